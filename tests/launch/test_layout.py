"""What must hold of the folders and the locks for the two commands to work anywhere."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from slipway.paths import REPOSITORY

LOCKS = sorted((REPOSITORY / "locks").glob("*.txt"))


def test_platform_folder_holds_only_slipway_when_listed():
    # A package named `platform` would shadow the standard library's module of that name.
    assert [p.name for p in (REPOSITORY / "platform").iterdir() if p.name != "__pycache__"] == ["slipway"]


def test_standard_library_platform_is_found_when_started_in_the_repository():
    code = "import platform; print(platform.python_version())"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout.strip() == sys.version.split()[0], done.stderr


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_lock_records_only_pins_and_hashes_when_read(lock):
    pin = re.compile(r"[a-z0-9][a-z0-9._-]*==[^\s;/]+( ; [^/]+)? \\")
    digest = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")
    strange = [line for line in lock.read_text().splitlines() if not (pin.fullmatch(line) or digest.fullmatch(line))]
    assert strange == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_lock_has_a_hash_for_every_pin_when_read(lock):
    blocks = re.split(r"^(?=\S)", lock.read_text(), flags=re.MULTILINE)
    assert [block.split()[0] for block in blocks if block.strip() and "--hash=" not in block] == []


def test_test_lock_contains_the_base_lock_when_compared():
    def pins(name: str) -> set[str]:
        return set(re.findall(r"^\S+==\S+", (REPOSITORY / "locks" / name).read_text(), flags=re.MULTILINE))

    assert pins("base.txt") <= pins("test.txt")
