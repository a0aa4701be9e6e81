"""The signing key: made once, closed to others, and its public half where servers look for it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from engine.formats import signing
from slipway import paths
from slipway.launch import keys
from slipway.launch.errors import LaunchError


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLIPWAY_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SLIPWAY_SIGNING_KEY_FILE", raising=False)
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def key_id() -> str:
    return signing.key_id(signing.private_key(paths.signing_key().read_bytes()).public_key())


def trusted() -> list[str]:
    return list(signing.trusted_keys(paths.trusted_keys().read_bytes()))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_key_is_made_once_and_private_when_started_again(home: Path) -> None:
    keys.signing_keys()
    pem = paths.signing_key().read_bytes()
    assert (mode(paths.signing_key()), mode(paths.secrets())) == (0o600, 0o700)
    assert mode(paths.trusted_keys()) & 0o444 == 0o444 and b"PRIVATE" not in paths.trusted_keys().read_bytes()
    keys.signing_keys()
    assert paths.signing_key().read_bytes() == pem and trusted() == [key_id()]


def test_former_key_stays_trusted_when_the_key_is_replaced(home: Path) -> None:
    keys.signing_keys()
    former = key_id()
    paths.signing_key().unlink()
    keys.signing_keys()
    assert key_id() != former and trusted() == [former, key_id()]


def test_given_key_is_used_and_trusted_when_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = home / "given.pem"
    given.write_bytes(signing.generate())
    monkeypatch.setenv("SLIPWAY_SIGNING_KEY_FILE", str(given))
    keys.signing_keys()
    assert paths.signing_key() == given and trusted() == [key_id()]
    assert not (paths.secrets() / "signing-key.pem").exists()


@pytest.mark.parametrize("content", [None, b"", b"no key"])
def test_start_is_refused_in_one_sentence_when_the_given_key_is_unfit(
    content: bytes | None, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = home / "given.pem"
    if content is not None:
        given.write_bytes(content)
    monkeypatch.setenv("SLIPWAY_SIGNING_KEY_FILE", str(given))
    with pytest.raises(LaunchError, match=rf"^[^\n]*{given}[^\n]*\.$"):
        keys.signing_keys()
    assert not paths.trusted_keys().exists()


def test_start_is_refused_when_the_file_of_trusted_keys_is_damaged(home: Path) -> None:
    keys.signing_keys()
    paths.trusted_keys().write_bytes(paths.trusted_keys().read_bytes().replace(b"MCow", b"MCoX"))
    with pytest.raises(LaunchError, match="trusted keys"):
        keys.signing_keys()
