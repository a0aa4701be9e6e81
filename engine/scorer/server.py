"""The scorer's server: a thread for each connection, models held for as long as a connection wants them.

Java has no way to stop a thread. A run that takes longer than it may is answered for, and then the whole process
makes room for the next one: who holds models is told before, and whatever else runs may end first.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.formats import frames
from engine.scorer.evaluator import Evaluator, Refusal, start_java

# Between two looks at the clock, and for other runs to end before the process goes.
_LOOK_S = 0.1
_GRACE_S = 2.0
_EXIT = 75
_LOAD_S = 50.0
REPLACED = {"error": "the JVM scorer is being replaced", "kind": "replaced"}


def serve(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """The sandboxed task; never returns. params: socket_fd (listening Unix socket), heap_mb, run_s (the most that
    one run may take, in seconds)."""
    start_java(params["heap_mb"])
    models, watch = Models(), Watch({"score": params["run_s"], "load": _LOAD_S})
    threading.Thread(target=watch.run, daemon=True).start()
    with socket.socket(fileno=params["socket_fd"]) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_talk, args=(connection, models, watch), daemon=True).start()


class Watch:
    """What runs for which connection and until when it may, and the end of the process where one takes longer."""

    def __init__(self, limits: dict[str, float]) -> None:
        """limits: seconds that an operation may take, by its name."""
        self._limits = limits
        self._leaving = False
        self._until: dict[socket.socket, float] = {}
        self._holders: set[socket.socket] = set()
        self._lock = threading.Lock()

    def begin(self, connection: socket.socket, operation: str) -> bool:
        """False where nothing may begin any more."""
        with self._lock:
            if self._leaving:
                return False
            if operation == "load":
                self._holders.add(connection)
            if operation in self._limits:
                self._until[connection] = time.monotonic() + self._limits[operation]
            return True

    def end(self, connection: socket.socket) -> None:
        with self._lock:
            self._until.pop(connection, None)

    def closed(self, connection: socket.socket) -> None:
        self.end(connection)
        with self._lock:
            self._holders.discard(connection)

    def run(self) -> None:
        """Look until something takes too long; then end the process."""
        while not (late := self._late()):
            time.sleep(_LOOK_S)
        with self._lock:
            self._leaving = True
            holders = self._holders - self._until.keys()
        for connection in late:
            _tell(connection, {"error": "the JVM scorer did not come to an end in time", "kind": "late"})
        for connection in holders:
            _tell(connection, REPLACED)
        until = time.monotonic() + _GRACE_S
        time.sleep(2 * _LOOK_S)  # for the holders to hear it before they see the end
        while time.monotonic() < until and self._until.keys() - late:
            time.sleep(_LOOK_S)
        os._exit(_EXIT)

    def _late(self) -> set[socket.socket]:
        now = time.monotonic()
        with self._lock:
            return {connection for connection, until in self._until.items() if until < now}


def _tell(connection: socket.socket, message: dict[str, Any]) -> None:
    """Tell somebody who may be gone, or not read."""
    with contextlib.suppress(OSError):
        connection.settimeout(_LOOK_S)
        frames.send(connection, message)


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


def _talk(connection: socket.socket, models: Models, watch: Watch) -> None:
    """Answer one connection until it ends; what it held is let go then."""
    holder = id(connection)
    with connection:
        try:
            while True:
                message, data = frames.receive(connection)
                answer: dict[str, Any] = REPLACED
                if watch.begin(connection, str(message.get("op"))):
                    answer = _answer(message, data, holder, models)
                    watch.end(connection)
                frames.send(connection, answer)
        except (EOFError, OSError, ValueError):
            pass  # it left, or speaks nonsense: the connection ends either way
        finally:
            watch.closed(connection)
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
