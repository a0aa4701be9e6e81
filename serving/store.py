"""What is kept on disk under the home folder: verified artifacts and the last desired state.

Several processes share it. A file appears under its digest only whole and verified (temporary name, fsync,
rename), and its digest is checked again at every load.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from serving.sealed import Sealed

log = logging.getLogger("serving.store")

MAX_ARTIFACT = 64 << 30


class StoreError(Exception):
    """An artifact or state that cannot be used; the text is for the operator."""


class Store:
    """`home/artifacts/<sha256>` and `home/state.json`."""

    def __init__(self, home: Path, gc_grace_s: float = 600.0) -> None:
        self.home = home
        self.artifacts = home / "artifacts"
        self.artifacts.mkdir(parents=True, exist_ok=True)
        self.state_path = home / "state.json"
        self.gc_grace_s = gc_grace_s

    @contextlib.contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        with (self.home / name).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def read(self, sha256: str) -> Sealed | None:
        """A cached artifact, verified; None when it is not there. One whose bytes changed is put
        aside as `<sha256>.corrupt` and counts as not there. Raises OSError."""
        path = self.artifacts / sha256
        try:
            with path.open("rb", buffering=0) as file:
                found = Sealed.copy(file)
        except FileNotFoundError:
            return None
        if found.sha256 == sha256:
            return found
        found.close()
        log.error("cached artifact %s does not match its digest; put aside", sha256)
        with contextlib.suppress(FileNotFoundError):  # another process may have been faster
            path.replace(path.with_suffix(".corrupt"))
        return None

    def obtain(self, sha256: str, size: int, download: Callable[[str], Iterable[bytes | memoryview]] | None) -> Sealed:
        """Verified bytes, to be closed, from the cache or else from `download(sha256)`, which yields chunks.

        Processes take turns, so that each artifact is downloaded once. Raises StoreError, OSError and
        whatever `download` raises."""
        found = self.read(sha256)
        if found is not None:
            return found
        if download is None:
            raise StoreError(f"artifact {sha256[:12]} is not in the cache, and there is no control plane")
        with self._lock(".download.lock"):
            found = self.read(sha256)
            if found is not None:
                return found
            self._store(sha256, size, download(sha256))
            found = self.read(sha256)
        if found is None:
            raise StoreError(f"artifact {sha256[:12]} did not read back as it was written")
        return found

    def _store(self, sha256: str, size: int, chunks: Iterable[bytes | memoryview]) -> None:
        temporary = self.artifacts / f".{sha256}.{os.getpid()}.tmp"
        digest, written = hashlib.sha256(), 0
        limit = size or MAX_ARTIFACT
        try:
            with temporary.open("wb") as file:
                for chunk in chunks:
                    written += len(chunk)
                    if written > limit:
                        raise StoreError(f"artifact {sha256[:12]} is larger than the {limit} bytes announced")
                    digest.update(chunk)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            if size and written != size:
                raise StoreError(f"artifact {sha256[:12]} has {written} bytes, {size} were announced")
            if digest.hexdigest() != sha256:
                raise StoreError(f"artifact {sha256[:12]} is corrupt: its bytes hash to {digest.hexdigest()[:12]}")
            temporary.replace(self.artifacts / sha256)
            _sync_folder(self.artifacts)
        finally:
            temporary.unlink(missing_ok=True)

    def load_state(self) -> Any | None:
        """The desired state last saved, or None when there is none. Raises StoreError when unreadable."""
        try:
            held = json.loads(self.state_path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise StoreError(f"state.json cannot be read: {error}") from error
        return held

    def save_state(self, document: dict[str, Any]) -> None:
        """Replace state.json with a document. Raises OSError (a full disk leaves the former file)."""
        temporary = self.home / f".state.{os.getpid()}.tmp"
        try:
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(document, file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.state_path)
            _sync_folder(self.home)
        finally:
            temporary.unlink(missing_ok=True)

    def collect_garbage(self, keep: set[str]) -> list[str]:
        """Remove artifacts not in `keep` and older than the grace time (another process may be a generation
        ahead and have just fetched them). Returns the names removed. Raises OSError."""
        removed = []
        oldest = time.time() - self.gc_grace_s
        for path in self.artifacts.iterdir():
            if path.name in keep:
                continue
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < oldest:
                    path.unlink()
                    removed.append(path.name)
        return removed


def _sync_folder(folder: Path) -> None:
    """Make a rename in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
