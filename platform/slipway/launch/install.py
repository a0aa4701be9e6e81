"""Makes `.venv` from the hash-pinned locks. Standard library only; run by `bootstrap.py`.

A stamp holds the digest of what was installed, so that a second run does nothing. Two runs at once
wait for each other. Every failure is one sentence that says what to do.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from installer import Failure, Runner, package_environment, reason

ROOT = Path(__file__).resolve().parents[3]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
KINDS = ("base", "test")


def digest(kind: str) -> str:
    """Names one state of the environment: the locks, the project file, the interpreter and the place."""
    parts = [f"{sys.version_info[:3]}", str(ROOT)]
    parts += [(ROOT / name).read_text() for name in (f"locks/{kind}.txt", "locks/uv.txt", "pyproject.toml")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def stamp(kind: str) -> Path:
    return VENV / f"slipway-{kind}.stamp"


def is_installed(kind: str) -> bool:
    """Whether the environment holds at least what `kind` asks for; the tests' lock includes the base."""
    return PYTHON.exists() and any(
        stamp(k).exists() and stamp(k).read_text() == digest(k) for k in KINDS[KINDS.index(kind) :]
    )


def make_venv(run: Runner) -> None:
    """An environment with a working pip; a broken or foreign one is made anew."""
    if PYTHON.exists() and _was_made_here():
        probe = [str(PYTHON), "-c", "import sys, pip; print(sys.version_info[:2])"]
        done = subprocess.run(probe, capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout.strip() == str(sys.version_info[:2]):
            return
    run.say("Creating the environment .venv …")
    output = run([sys.executable, "-m", "venv", "--clear", str(VENV)])
    if output is None:
        return
    if re.search("ensurepip|No module named venv", output):
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise Failure(
            "This Python cannot make environments: its venv or ensurepip module is missing; "
            f"install it (Debian, Ubuntu: apt-get install python{version}-venv) and run make again."
        )
    raise Failure(f"The environment {VENV} could not be made: {reason(output)}")


def _was_made_here() -> bool:
    """False in a copied or moved folder: the scripts of its environment name the old one."""
    pip = VENV / "bin" / "pip"
    return pip.exists() and str(PYTHON.parent) in pip.read_text(errors="replace")[:500]


def install_packages(run: Runner, kind: str) -> None:
    """The lock's packages: by uv, which takes seconds, or by pip where uv cannot work."""
    lock = str(ROOT / "locks" / f"{kind}.txt")
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    uv = [str(PYTHON), "-m", "uv", "pip", "install", "--python", str(PYTHON), "--no-progress"]
    hashes = ["--require-hashes", "-r"]
    run.say("Installing the installer (uv) …")
    output = run([*pip, "install", "--quiet", *hashes, str(ROOT / "locks" / "uv.txt")])
    if output is not None:
        raise Failure(reason(output))
    run.say(f"Installing the packages of locks/{kind}.txt …")
    # Byte code now: with PYTHONDONTWRITEBYTECODE set, or a reader who may not write here, every start
    # would compile half a gigabyte of modules anew (MLflow alone: 8 s instead of 2).
    output = run([*uv, "--compile-bytecode", *hashes, lock], echo=True)
    if output is not None:
        if "os error 28" in output or "No space left" in output:
            raise Failure(reason(output))
        run.say("uv could not install them; trying pip, which takes longer …")
        output = run([*pip, "install", "--quiet", *hashes, lock], echo=True)
        if output is not None:
            raise Failure(reason(output))
    run.say("Installing Slipway itself …")
    output = run([*uv, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)])
    if output is not None:
        output = run([*pip, "install", "--quiet", "--no-deps", "--no-build-isolation", "-e", str(ROOT)])
    if output is not None:
        raise Failure(reason(output))


def install(kind: str) -> None:
    """Bring `.venv` to the state that the locks name."""
    if is_installed(kind):
        return
    descriptor = os.open(ROOT, os.O_RDONLY)  # a lock on the folder itself leaves no file behind
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another make installs at this moment; waiting for it …", flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if is_installed(kind):
            return
        started = time.monotonic()
        run = Runner()
        make_venv(run)
        run.env |= package_environment(PYTHON)
        install_packages(run, kind)
        unfinished = stamp(kind).with_suffix(".new")
        unfinished.write_text(digest(kind))
        unfinished.replace(stamp(kind))
        run.say(f"Installed in {time.monotonic() - started:.0f} s.")
    finally:
        os.close(descriptor)


def main(arguments: list[str]) -> int:
    kind = arguments[0] if arguments else "base"
    if kind not in KINDS:
        print(f"slipway: install one of {', '.join(KINDS)}, not {kind!r}.", file=sys.stderr)
        return 2
    os.umask(0o022)  # the user that PostgreSQL runs as must be able to read its binaries
    try:
        install(kind)
    except Failure as error:
        print(f"slipway: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("slipway: Stopped; run make again to go on.", file=sys.stderr)
        return 130
    except OSError as error:
        print(
            f"slipway: {error.filename or ROOT}: {error.strerror}; free or open it and run make again.",
            file=sys.stderr,
        )
        return 1
    return 0
