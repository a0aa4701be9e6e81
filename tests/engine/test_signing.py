"""Signatures of artifacts: what holds, and everything that does not."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import hashlib
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from engine.formats import signing
from engine.formats.signing import Recorded, SignatureError

AT = dt.datetime(2026, 11, 25, 6, 0, tzinfo=dt.UTC)
DATA = b"bytes of a model"
RECORDED = Recorded("vision", "数字 digits", 3, "onnx", hashlib.sha256(DATA).hexdigest(), len(DATA), "model.onnx")
FACTS: dict[str, Any] = {"sha256": RECORDED.sha256, "size": RECORDED.size, "format": "onnx"}
KEY, OTHER = (signing.private_key(signing.generate()) for _ in range(2))
TRUSTED = signing.trusted_keys(signing.public_pem(KEY))
ENVELOPE = signing.sign(RECORDED, KEY, AT)


def signed_by(key: Any, statement: Any, keyid: str | None = None) -> dict[str, Any]:
    """A properly signed envelope of any statement."""
    payload = statement if isinstance(statement, bytes) else json.dumps(statement).encode()
    signature = key.sign(signing._pae(payload))
    return {
        "payloadType": signing.PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [
            {"keyid": keyid or signing.key_id(key.public_key()), "sig": base64.b64encode(signature).decode()}
        ],
    }


def statement() -> dict[str, Any]:
    return json.loads(base64.b64decode(ENVELOPE["payload"]))


def test_artifact_is_believed_when_its_key_is_trusted() -> None:
    assert signing.verify(ENVELOPE, TRUSTED, **FACTS) == signing.key_id(KEY.public_key())
    assert signing.verify(json.loads(json.dumps(ENVELOPE)), TRUSTED, **FACTS)
    shown = signing.signed(ENVELOPE)
    assert shown is not None and (shown.key_id, shown.at) == (signing.key_id(KEY.public_key()), AT)
    assert statement()["predicate"]["model"] == "数字 digits" and statement()["predicate"]["version"] == 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"sha256": "f" * 64}, "another digest"), ({"size": len(DATA) + 1}, "another size"), ({"size": 0}, "size"),
        ({"size": float(len(DATA))}, "size"), ({"format": "pmml"}, "another format"), ({"format": "ONNX"}, "format"),
    ],
)  # fmt: skip
def test_signature_is_refused_when_for_another(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(SignatureError, match=reason):
        signing.verify(ENVELOPE, TRUSTED, **{**FACTS, **change})


@pytest.mark.parametrize("envelope", [None, {}, "", [], 0])
def test_artifact_is_refused_when_not_signed(envelope: Any) -> None:
    with pytest.raises(SignatureError, match="not signed"):
        signing.verify(envelope, TRUSTED, **FACTS)
    assert signing.signed(envelope) is None


def test_signature_is_refused_when_its_key_is_not_trusted() -> None:
    with pytest.raises(SignatureError, match="not trusted here"):
        signing.verify(signing.sign(RECORDED, OTHER, AT), TRUSTED, **FACTS)
    # A name is not a key: the other's signature under the trusted key's name.
    with pytest.raises(SignatureError, match="is wrong"):
        signing.verify(signed_by(OTHER, statement(), signing.key_id(KEY.public_key())), TRUSTED, **FACTS)


def test_old_and_new_signatures_hold_when_keys_rotate() -> None:
    both = signing.trusted_keys(signing.public_pem(KEY) + b"\n# the new one\n" + signing.public_pem(OTHER))
    assert len(both) == 2
    for key in (KEY, OTHER):
        assert signing.verify(signing.sign(RECORDED, key, AT), both, **FACTS) == signing.key_id(key.public_key())
    after = signing.trusted_keys(signing.public_pem(OTHER))
    with pytest.raises(SignatureError, match="not trusted"):
        signing.verify(ENVELOPE, after, **FACTS)
    twice = {**ENVELOPE, "signatures": ENVELOPE["signatures"] + signed_by(OTHER, statement())["signatures"]}
    payload = base64.b64decode(ENVELOPE["payload"])
    twice["signatures"][1]["sig"] = base64.b64encode(OTHER.sign(signing._pae(payload))).decode()
    assert signing.verify(twice, after, **FACTS) == signing.key_id(OTHER.public_key())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_type", "https://in-toto.io/Statement/v0.1"), ("predicateType", "https://slsa.dev/provenance/v1"),
        ("subject", []), ("subject", [{"digest": {}}]), ("subject", None), ("predicate", {}), ("predicate", []),
        ("subject", [{"digest": {"sha256": RECORDED.sha256}}] * 2),
    ],
)  # fmt: skip
def test_statement_is_refused_when_it_says_something_else(name: str, value: Any) -> None:
    with pytest.raises(SignatureError):
        signing.verify(signed_by(KEY, {**statement(), name: value}), TRUSTED, **FACTS)


@pytest.mark.parametrize("payload", [b"", b"null", b"[]", b"{", b"\xff", b"[" * 10_000, b'"x"', b"NaN"])
def test_statement_is_refused_when_it_is_no_statement(payload: bytes) -> None:
    with pytest.raises(SignatureError):
        signing.verify(signed_by(KEY, payload), TRUSTED, **FACTS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)


@given(JSON, st.sampled_from(["", "payloadType", "payload", "signatures", "sig", "keyid"]))
def test_envelope_is_refused_and_never_fails_otherwise_when_it_holds_anything(value: Any, place: str) -> None:
    envelope = json.loads(json.dumps(ENVELOPE))
    if place in ("sig", "keyid"):
        envelope["signatures"][0][place] = value
    elif place:
        envelope[place] = value
    else:
        envelope = value
    assert signing.signed(envelope) is None or place in ("keyid", "sig")
    with pytest.raises(SignatureError):
        signing.verify(envelope, TRUSTED, **FACTS)


@given(st.integers(min_value=0), st.integers(1, 255))
def test_signature_is_refused_when_a_byte_differs(position: int, mask: int) -> None:
    payload = bytearray(base64.b64decode(ENVELOPE["payload"]))
    payload[position % len(payload)] ^= mask
    with pytest.raises(SignatureError, match="is wrong"):
        signing.verify({**ENVELOPE, "payload": base64.b64encode(payload).decode()}, TRUSTED, **FACTS)
    signature = bytearray(base64.b64decode(ENVELOPE["signatures"][0]["sig"]))
    signature[position % len(signature)] ^= mask
    one = {**ENVELOPE["signatures"][0], "sig": base64.b64encode(signature).decode()}
    with pytest.raises(SignatureError, match="is wrong"):
        signing.verify({**ENVELOPE, "signatures": [one]}, TRUSTED, **FACTS)


def test_key_files_are_refused_with_a_reason_when_unfit() -> None:
    curve = ec.generate_private_key(ec.SECP256R1())
    encoding, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    wrong = curve.private_bytes(encoding, private, serialization.NoEncryption())
    locked = KEY.private_bytes(encoding, private, serialization.BestAvailableEncryption(b"pw"))
    for pem in (b"", b"nonsense", wrong, locked, signing.public_pem(KEY)):
        with pytest.raises(SignatureError):
            signing.private_key(pem)
    public = curve.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    damaged = signing.public_pem(KEY).replace(b"MCow", b"MCoX")
    for pem in (b"", b"nonsense", public, damaged, signing.public_pem(KEY) + public, signing.generate()):
        with pytest.raises(SignatureError):
            signing.trusted_keys(pem)


def test_openssl_agrees_when_it_verifies(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(signing.public_pem(KEY))
    (tmp_path / "sig").write_bytes(base64.b64decode(ENVELOPE["signatures"][0]["sig"]))
    payload = base64.b64decode(ENVELOPE["payload"])
    (tmp_path / "said").write_bytes(b"DSSEv1 28 application/vnd.in-toto+json %d " % len(payload) + payload)
    command = [
        "openssl",
        "pkeyutl",
        "-verify",
        "-pubin",
        "-inkey",
        "key.pem",
        "-rawin",
        "-in",
        "said",
        "-sigfile",
        "sig",
    ]
    try:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed here")
    assert done.returncode == 0, done.stdout + done.stderr


def test_verifying_costs_well_under_a_millisecond_when_repeated() -> None:
    times = []
    for _ in range(200):
        start = time.perf_counter()
        signing.verify(ENVELOPE, TRUSTED, **FACTS)
        times.append(time.perf_counter() - start)
    assert sorted(times)[len(times) // 2] < 0.001


def test_longest_names_still_fit_when_signed() -> None:
    longest = dataclasses.replace(RECORDED, project="型" * 100, model="型" * 256, file_name="型" * 200)
    assert signing.verify(signing.sign(longest, KEY, AT), TRUSTED, **FACTS)
