"""Signatures of artifacts: a DSSE envelope around an in-toto statement, signed with Ed25519.

The statement's subject is the artifact's SHA-256; its predicate says what the registry recorded: project, model,
version, format, size and when. The signed bytes are DSSE's pre-authentication encoding,
`"DSSEv1" SP len(type) SP type SP len(payload) SP payload` (https://github.com/secure-systems-lab/dsse).
A key's id is the SHA-256 (hex) of its SubjectPublicKeyInfo in DER. Keys are files in PEM.

Shared by the registry, which signs, and the inference server, which verifies: it needs nothing but `cryptography`.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:slipway:recorded-artifact:v1"
# A statement is about 500 bytes; whatever is much longer is none of ours and is not even decoded.
MAX_PAYLOAD = 16_384
MAX_SIGNATURES = 16

_PUBLIC_BLOCK = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)

Envelope = dict[str, Any]
TrustedKeys = Mapping[str, Ed25519PublicKey]


class SignatureError(ValueError):
    """A key or signature that cannot be believed; the text ends a sentence like “artifact … is refused: …”."""


@dataclass(frozen=True)
class Recorded:
    """What the registry says of an artifact. `version` is its number, `size` in bytes."""

    project: str
    model: str
    version: int
    format: str
    sha256: str
    size: int
    file_name: str


@dataclass(frozen=True)
class Signed:
    """Who signed, and when the artifact was recorded (UTC)."""

    key_id: str
    at: dt.datetime


# Keys


def generate() -> bytes:
    """A new private key, as PEM."""
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def private_key(pem: bytes) -> Ed25519PrivateKey:
    """The private key of a PEM file. Raises SignatureError."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it wants a password
        raise SignatureError("it holds no private key in PEM without a password") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureError("its key is not an Ed25519 key")
    return key


def public_pem(key: Ed25519PrivateKey) -> bytes:
    """The public half of a key, as PEM."""
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def trusted_keys(pem: bytes) -> dict[str, Ed25519PublicKey]:
    """{key id: key} of a file with one or more public keys. Raises SignatureError when it holds none."""
    found = {}
    for block in _PUBLIC_BLOCK.findall(pem):
        try:
            key = serialization.load_pem_public_key(block)
        except (ValueError, UnsupportedAlgorithm):
            raise SignatureError("one of its public keys is damaged") from None
        if not isinstance(key, Ed25519PublicKey):
            raise SignatureError("one of its keys is not an Ed25519 key")
        found[key_id(key)] = key
    if not found:
        raise SignatureError("it holds no public key in PEM")
    return found


def key_id(key: Ed25519PublicKey) -> str:
    """The name of a key: SHA-256 (hex) of its SubjectPublicKeyInfo in DER."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


# Signing


def sign(recorded: Recorded, key: Ed25519PrivateKey, at: dt.datetime) -> Envelope:
    """The envelope of a statement about `recorded`, as JSON-ready dict. `at` must know its zone."""
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": recorded.file_name, "digest": {"sha256": recorded.sha256}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "project": recorded.project,
            "model": recorded.model,
            "version": recorded.version,
            "format": recorded.format,
            "size": recorded.size,
            "recordedAt": at.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        },
    }
    payload = json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()
    return {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": key_id(key.public_key()), "sig": base64.b64encode(key.sign(_pae(payload))).decode()}],
    }


def signed(envelope: Any) -> Signed | None:
    """What an envelope says of itself, without verifying it: for showing what is stored. None when unsigned."""
    if not envelope:
        return None
    try:
        payload, signatures = _opened(envelope)
        at = dt.datetime.fromisoformat(_statement(payload)["predicate"]["recordedAt"])
        return Signed(signatures[0][0], at)
    except (SignatureError, KeyError, IndexError, TypeError, ValueError):
        return None


# Verifying


def verify(envelope: Any, trusted: TrustedKeys, *, sha256: str, size: int, format: str) -> str:
    """The id of the trusted key that signed exactly this digest, size and format. Raises SignatureError."""
    if not envelope:
        raise SignatureError("it is not signed")
    payload, signatures = _opened(envelope)
    signer = _signer(payload, signatures, trusted)
    # Only now: what nobody trusted has signed is not even read.
    statement = _statement(payload)
    said = (statement.get("_type"), statement.get("predicateType"))
    if said != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise SignatureError("its signature is about something else than a recorded artifact")
    try:
        (subject,) = statement["subject"]
        found = {"digest": subject["digest"]["sha256"], **{k: statement["predicate"][k] for k in ("size", "format")}}
    except (KeyError, TypeError, ValueError):
        raise SignatureError("its signed statement is incomplete") from None
    for name, wanted in (("digest", sha256), ("size", size), ("format", format)):
        if type(found[name]) is not type(wanted) or found[name] != wanted:
            raise SignatureError(f"its signature is for another {name} ({str(found[name])[:64]}, not {wanted})")
    return signer


def _signer(payload: bytes, signatures: list[tuple[str, bytes]], trusted: TrustedKeys) -> str:
    signed_bytes = _pae(payload)
    wrong = False
    for name, signature in signatures:
        key = trusted.get(name)
        if key is None:
            continue
        try:
            key.verify(signature, signed_bytes)
            return name
        except InvalidSignature:
            wrong = True
    if wrong:
        raise SignatureError("its signature is wrong")
    raise SignatureError(f"it is signed with a key that is not trusted here ({signatures[0][0][:12]}…)")


def _opened(envelope: Any) -> tuple[bytes, list[tuple[str, bytes]]]:
    """(payload, [(key id, signature)]) of an envelope."""
    try:
        if envelope["payloadType"] != PAYLOAD_TYPE or len(envelope["payload"]) > MAX_PAYLOAD:
            raise SignatureError("its signature is of an unknown kind")
        payload = base64.b64decode(envelope["payload"], validate=True)
        rows = envelope["signatures"]
        if not isinstance(rows, list) or not 1 <= len(rows) <= MAX_SIGNATURES:
            raise SignatureError("its signature is malformed")
        return payload, [(str(row["keyid"]), base64.b64decode(row["sig"], validate=True)) for row in rows]
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        if isinstance(error, SignatureError):
            raise
        raise SignatureError("its signature is malformed") from None


def _statement(payload: bytes) -> dict[str, Any]:
    try:
        statement = json.loads(payload)
    except (ValueError, RecursionError):
        raise SignatureError("its signed statement is not JSON") from None
    if not isinstance(statement, dict):
        raise SignatureError("its signed statement is not an object")
    return statement


def _pae(payload: bytes) -> bytes:
    return b"DSSEv1 %d %b %d %b" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)
