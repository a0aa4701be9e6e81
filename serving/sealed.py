"""A model's bytes between its verification and its loading, where nobody else can change them.

ONNX Runtime loads from a path without the interpreter's lock, and faster. Given 100 MB as a bytes object it holds the
lock for 35 ms, and freeing the object takes 6 more: an event loop's requests would wait as long. The path lies in
a folder with nothing else in it that a model could name as its weights.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_PIECE = 1 << 20


class Sealed:
    """Bytes in memory outside the interpreter's own, with their digest. To be closed."""

    def __init__(self) -> None:
        self._memory = os.memfd_create("model")
        self._digest = hashlib.sha256()
        self.size = 0

    @classmethod
    def of(cls, data: bytes) -> Sealed:
        """A copy of bytes."""
        made = cls()
        made._add(memoryview(data))
        return made

    @classmethod
    def copy(cls, file: BinaryIO) -> Sealed:
        """A copy of an open file, to its end. Raises OSError."""
        made = cls()
        piece = memoryview(bytearray(_PIECE))
        try:
            while read := file.readinto(piece):  # type: ignore[attr-defined]
                made._add(piece[:read])
        except OSError:
            made.close()
            raise
        return made

    def _add(self, piece: memoryview) -> None:
        self._digest.update(piece)
        self.size += len(piece)
        while piece:
            piece = piece[os.write(self._memory, piece) :]

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    @contextlib.contextmanager
    def path(self) -> Iterator[Path]:
        """Where to read them from, meanwhile."""
        with tempfile.TemporaryDirectory(prefix="slipway-load-") as folder:
            path = Path(folder, "model")
            path.symlink_to(f"/proc/{os.getpid()}/fd/{self._memory}")
            yield path

    def close(self) -> None:
        """Give the memory back."""
        os.close(self._memory)
