"""The scorer's server: a thread for each connection, models held for as long as a connection wants them."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.formats import frames
from engine.scorer.evaluator import Evaluator, Refusal, start_java


def serve(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """The sandboxed task; never returns. params: socket_fd (listening Unix socket), heap_mb."""
    start_java(params["heap_mb"])
    models = Models()
    with socket.socket(fileno=params["socket_fd"]) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_talk, args=(connection, models), daemon=True).start()


class Models:
    """Loaded documents by digest. Each connection that loaded one holds it; without holders it goes."""

    def __init__(self) -> None:
        self._loaded: dict[str, Evaluator] = {}
        self._holders: dict[str, set[int]] = {}
        self._lock = threading.Lock()

    def load(self, name: str, document: bytes, holder: int) -> dict[str, Any]:
        """What the document takes and gives, and how much memory it took. Raises Refusal."""
        with self._lock:  # one at a time: several processes of one server ask for the same
            before = _resident_bytes()
            if name not in self._loaded:
                self._loaded[name] = Evaluator(document)
            self._holders.setdefault(name, set()).add(holder)
            found = self._loaded[name]
            return {
                "inputs": [asdict(field) for field in found.inputs],
                "outputs": [asdict(field) for field in found.outputs],
                "memory_bytes": max(len(document), _resident_bytes() - before),
            }

    def release(self, names: Iterable[str], holder: int) -> None:
        with self._lock:
            for name in names:
                holders = self._holders.get(name, set())
                holders.discard(holder)
                if not holders:
                    self._loaded.pop(name, None)
                    self._holders.pop(name, None)

    def held_by(self, holder: int) -> list[str]:
        with self._lock:
            return [name for name, holders in self._holders.items() if holder in holders]

    def score(self, name: str, columns: dict[str, list[Any]], rows: int) -> dict[str, list[Any]]:
        """Raises Refusal."""
        found = self._loaded.get(name)
        if found is None:
            raise Refusal("this model is not loaded", "unknown")
        return found.score(columns, rows)


def _talk(connection: socket.socket, models: Models) -> None:
    """Answer one connection until it ends; what it held is let go then."""
    holder = id(connection)
    with connection:
        try:
            while True:
                message, data = frames.receive(connection)
                frames.send(connection, _answer(message, data, holder, models))
        except (EOFError, OSError, ValueError):
            pass  # it left, or speaks nonsense: the connection ends either way
        finally:
            models.release(models.held_by(holder), holder)


def _answer(message: dict[str, Any], data: bytes, holder: int, models: Models) -> dict[str, Any]:
    try:
        if message.get("op") == "score":
            return {"outputs": models.score(message["model"], message["columns"], message["rows"])}
        if message.get("op") == "load":
            return models.load(message["model"], data, holder)
        if message.get("op") == "release":
            models.release([message["model"]], holder)
        return {"pid": os.getpid()}
    except Refusal as refusal:
        return {"error": str(refusal)[:400], "kind": refusal.kind}


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
