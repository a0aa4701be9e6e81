"""Signs artifacts where they are recorded; `engine.formats.signing` says how, the servers verify it at every load."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import transaction
from django.utils import timezone

from engine.formats import signing
from engine.formats.signing import Envelope, Recorded, SignatureError
from registry.models import Artifact, Version
from slipway import events, paths
from slipway.api.problems import Unavailable
from slipway.audit.services import record


def signing_key() -> Ed25519PrivateKey:
    """The private key, read anew each time, so that a replaced one counts at once."""
    try:
        return signing.private_key(paths.signing_key().read_bytes())
    except OSError as error:
        raise Unavailable(f"Slipway's signing key cannot be read: {error.strerror}.") from error
    except SignatureError as error:
        raise Unavailable(f"Slipway's signing key cannot be used: {error}.") from error


def attest(version: Version, *, format: str, sha256: str, size: int, file_name: str) -> Envelope:
    """The envelope to store with an artifact of `version`, made in the transaction that records it."""
    recorded = Recorded(
        project=version.model.project.slug,
        model=version.model.name,
        version=version.number,
        format=str(format),
        sha256=sha256,
        size=size,
        file_name=file_name,
    )
    return signing.sign(recorded, signing_key(), timezone.now())


def artifacts_sign(*, again: bool) -> int:
    """Signs what is not signed and, `again`, what another key than the present one signed; how many that were.

    For rows from before artifacts were signed, and after the key was replaced. Whoever starts this vouches for what
    the database says: the bytes themselves are held against their digest wherever they are used.
    """
    now = signing.key_id(signing_key().public_key())
    done = 0
    rows = Artifact.objects.select_related("version__model__project").order_by("pk")
    if not again:
        rows = rows.filter(attestation={})
    for row in rows.iterator(chunk_size=500):
        before = row.signed
        if before is not None and before.key_id == now:
            continue
        with transaction.atomic():
            envelope = attest(row.version, format=row.format, sha256=row.sha256, size=row.size, file_name=row.file_name)
            Artifact.objects.filter(pk=row.pk).update(attestation=envelope)
            project_id = row.version.model.project_id
            record(
                actor=None,
                action="artifact.sign",
                target=row,
                project_id=project_id,
                sha256=row.sha256,
                key=now,
                before=before.key_id if before else None,
            )
            events.ring(project_id, "version", row.version_id)
        done += 1
    return done
