"""Which artifacts may be served at all: with a file of public keys, only those that one of them signed."""

from __future__ import annotations

import json
from pathlib import Path

from serving.document import Placement


class TrustError(Exception):
    """An artifact whose signature does not hold; the text is for the operator."""


class Trust:
    """Verifies a placement against the public keys in `file` (PEM); without a file everything passes.

    The file is read at each look, so that a key that was added or taken away counts at once."""

    def __init__(self, file: Path | None) -> None:
        self.file = file

    def check(self, placement: Placement) -> None:
        """Raises TrustError unless a trusted key signed this very digest, size and format."""
        if self.file is None:
            return
        # Only here: a server that verifies nothing does not load the cryptography either.
        from engine.formats import signing

        artifact = f"artifact {placement.sha256[:12]} is refused"
        try:
            trusted = signing.trusted_keys(self.file.read_bytes())
        except OSError as error:
            raise TrustError(f"{artifact}: the file of trusted keys cannot be read: {error.strerror}") from error
        except signing.SignatureError as error:
            raise TrustError(f"{artifact}: the file of trusted keys cannot be used: {error}") from error
        try:
            signing.verify(
                json.loads(placement.signature or "null"),
                trusted,
                sha256=placement.sha256,
                size=placement.size,
                format=placement.format,
            )
        except signing.SignatureError as error:
            raise TrustError(f"{artifact}: {error}") from error
