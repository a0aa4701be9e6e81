"""Answers remembered per endpoint (opt-in): the outputs of a deployment for inputs it has seen."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections import OrderedDict
from typing import Any

import numpy as np

_ENTRY = 200  # bytes of keeping one, whatever its arrays


class ResponseCache:
    """Bounded by bytes and age, least recently used first out. Usable from any thread.

    A key covers deployment, outputs asked for and every input's name, type, shape and bytes; what comes out is
    what the model said then, so it suits models that always say the same to the same input."""

    def __init__(self, max_bytes: int, ttl_s: float) -> None:
        self.max_bytes = max_bytes
        self.ttl_s = ttl_s
        self.hits = 0
        self.misses = 0
        self._bytes = 0
        self._held: OrderedDict[bytes, tuple[float, int, list[Any]]] = OrderedDict()
        self._lock = threading.Lock()

    @staticmethod
    def key(deployment: str, asked: list[str], feeds: dict[str, np.ndarray]) -> bytes:
        """Digest of a call."""
        digest = hashlib.blake2b(repr((deployment, asked)).encode(), digest_size=20)
        for name in sorted(feeds):
            array = feeds[name]
            digest.update(repr((name, array.dtype.str, array.shape)).encode())
            if array.dtype == object:
                for value in array.ravel():
                    text = str(value).encode("utf-8", "surrogatepass")
                    digest.update(b"%d:" % len(text))
                    digest.update(text)
            else:
                digest.update(np.ascontiguousarray(array).data)
        return digest.digest()

    def get(self, key: bytes) -> list[Any] | None:
        """Remembered outputs, or None."""
        now = time.monotonic()
        with self._lock:
            entry = self._held.get(key)
            if entry is not None and now - entry[0] <= self.ttl_s:
                self.hits += 1
                self._held.move_to_end(key)
                return entry[2]
            if entry is not None:
                self._drop(key)
            self.misses += 1
            return None

    def put(self, key: bytes, arrays: list[Any]) -> None:
        """Remember outputs; one larger than an eighth of the cache is not kept."""
        size = _ENTRY + sum(_size(array) for array in arrays)
        if size > self.max_bytes // 8:
            return
        # Rows of a shared batch would keep the whole batch alive.
        kept = [array.copy() if isinstance(array, np.ndarray) and array.base is not None else array for array in arrays]
        with self._lock:
            if key in self._held:
                self._drop(key)
            self._held[key] = (time.monotonic(), size, kept)
            self._bytes += size
            while self._bytes > self.max_bytes:
                self._drop(next(iter(self._held)))

    def _drop(self, key: bytes) -> None:
        self._bytes -= self._held.pop(key)[1]


def _size(array: Any) -> int:
    if isinstance(array, np.ndarray) and array.dtype != object:
        return array.nbytes
    return sum(sys.getsizeof(value) for value in np.asarray(array, dtype=object).ravel())
