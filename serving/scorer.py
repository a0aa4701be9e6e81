"""One process's side of the PMML scorer: pooled connections, and a thread that notices its end and loads again."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.formats import frames
from serving.call import ModelFailure
from serving.compute import Compute, Cores
from serving.model import ModelError
from serving.options import Options
from serving.protocol.errors import BadInput
from serving.scorer_process import address, problem_path, socket_path, wish_path

log = logging.getLogger("serving.scorer")

# Until it has started; a start takes one to four seconds.
START_S = 15.0
LOAD_S = 60.0
# Beyond what a run may take: the scorer itself says first that one was too long.
_SPARE_S = 5.0
# Between two looks whether it is there.
LOOK_S = 0.1
# For a sign of life on a new connection: the socket takes connections while nobody serves it.
_SIGN_S = 1.0
_AGAIN = ((b"retry-after", b"1"),)
_STARTING = "the JVM scorer of this model is starting again"
_LATE = "the JVM scorer of this model did not answer in time"


class Scorer(threading.Thread):
    """The scorer as one process knows it. Everything public may be called from any thread.

    One connection, the thread's, holds the loaded models; `score` takes others from a pool. `on_health` is called
    when it went or came back."""

    def __init__(self, options: Options, run_folder: Path, index: int, on_health: Callable[[], object]) -> None:
        super().__init__(name="scorer", daemon=True)
        self._options = options
        self._run_folder = run_folder
        self._folder = os.open(run_folder, os.O_PATH)
        self._wish = wish_path(run_folder, index)
        self._wanted = False  # whether the wish is there
        self._on_health = on_health
        self.up = False
        # Not set while a scorer that had to be replaced has no successor yet: runs wait for that.
        self._ready = threading.Event()
        self._ready.set()
        # Waiting for Java must not take the threads that other models' runs need.
        self.compute = Compute(Cores(len(os.sched_getaffinity(0)), 1), 0)
        self._documents: dict[str, bytes] = {}
        self._uses: Counter[str] = Counter()
        self._released: deque[str] = deque()
        self._lock = threading.Lock()  # of the holding connection and of what it holds
        self._holder: socket.socket | None = None
        self._pool: deque[socket.socket] = deque()

    # -- models -----------------------------------------------------------------------------------

    def load(self, name: str, document: bytes) -> dict[str, Any]:
        """What the scorer says of a document: inputs, outputs, memory_bytes. Raises ModelError."""
        python = self._options.pmml_python
        if python is None:
            raise ModelError("PMML needs a JVM scorer, and this server has none: set SLIPWAY_PMML_PYTHON")
        if not python.exists():
            raise ModelError("PMML needs a JVM scorer: its environment `pmml` is not prepared on this machine")
        with self._lock:
            self._wish.touch()
            self._wanted = True
            try:
                self._attach(time.monotonic() + START_S)
                found = self._load(name, document)
            except ModelError:
                if not self._documents:
                    self._part()
                raise
            self._documents[name] = document
            self._uses[name] += 1
            self.up = True
        if not self.is_alive():
            self.start()
        return found

    def release(self, name: str) -> None:
        """Say that one user of a model is gone; never waits, so that a finalizer may call it."""
        self._released.append(name)

    def _attach(self, until: float) -> None:
        """Have a connection that holds all models: the present one, or one to the next scorer. Raises ModelError."""
        if self._holder is not None and not _closed(self._holder):
            return
        self._drop_connections()
        self._holder = self._connect(until)
        for name, document in self._documents.items():
            self._load(name, document)

    def _load(self, name: str, document: bytes) -> dict[str, Any]:
        assert self._holder is not None
        try:
            self._holder.settimeout(LOAD_S)
            answer = _ask(self._holder, {"op": "load", "model": name}, document)
        except (EOFError, OSError, ValueError) as error:
            self._drop_connections()
            heap = self._options.pmml_heap_mb
            raise ModelError(
                f"the JVM scorer ended while it loaded this model; its heap is {heap} MB (SLIPWAY_PMML_HEAP_MB)"
            ) from error
        if "error" in answer:
            raise ModelError(str(answer["error"]))
        return answer

    def _connect(self, until: float) -> socket.socket:
        """A connection that answers. Raises ModelError with the scorer's own reason where it has told one."""
        began = time.time()
        while True:
            with contextlib.suppress(EOFError, OSError, ValueError):
                return self._connection()
            reason = self._problem(began)
            if reason or time.monotonic() > until:
                raise ModelError(reason or f"the JVM scorer did not start within {START_S:.0f} s")
            time.sleep(LOOK_S)

    def _connection(self) -> socket.socket:
        """A new connection that gave a sign of life. Raises OSError, EOFError, ValueError."""
        made = socket.socket(socket.AF_UNIX)
        try:
            made.settimeout(_SIGN_S)
            made.connect(address(self._folder, socket_path(self._run_folder)))
            if _ask(made, {"op": "ping"}).get("kind") == "replaced":
                self._ready.clear()
                raise ConnectionResetError("the scorer makes room for the next one")
        except BaseException:
            made.close()
            raise
        return made

    def _problem(self, since: float) -> str:
        """Why the scorer ended by itself, if it did since then (epoch seconds); "" otherwise."""
        path = problem_path(self._run_folder)
        try:
            if path.stat().st_mtime < since:
                return ""
            told = json.loads(path.read_text(encoding="utf-8").partition("\n")[0] or "{}")
            return str(told["error"]["message"])[:300]
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    # -- scoring ----------------------------------------------------------------------------------

    def score(self, name: str, columns: dict[str, list[Any]], rows: int) -> dict[str, list[Any]]:
        """{output: values}. Raises BadInput for what the model does not take, ModelFailure 503 while the scorer is
        starting, 504 where it takes too long; RuntimeError for a failure of the model itself."""
        message = {"op": "score", "model": name, "columns": columns, "rows": rows}
        answer = self._scored(message)
        if answer is None:  # it was replaced because of another run; this one has no part in that
            answer = self._scored(message)
        if answer is None:
            raise ModelFailure(503, _STARTING, _AGAIN)
        if "outputs" in answer:
            outputs: dict[str, list[Any]] = answer["outputs"]
            return outputs
        if answer.get("kind") == "input":
            raise BadInput(f"the model refuses these inputs: {answer['error']}")
        if answer.get("kind") == "late":
            raise ModelFailure(504, _LATE)
        if answer.get("kind") == "unknown":  # it has started again, and we have not noticed yet
            raise ModelFailure(503, _STARTING, _AGAIN)
        raise RuntimeError(str(answer.get("error")))

    def _scored(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """The scorer's answer, None where it is being replaced. Raises ModelFailure."""
        if not self.up or not self._ready.wait(START_S):
            raise ModelFailure(503, _STARTING, _AGAIN)
        connection: socket.socket | None = None
        pool = self._pool
        try:
            connection = self._pooled(pool) or self._connection()
            connection.settimeout(self._options.pmml_run_s + _SPARE_S)
            answer = _ask(connection, message)
        except (EOFError, OSError, ValueError) as error:
            if connection is not None:
                connection.close()
            if isinstance(error, TimeoutError) and connection is not None:
                raise ModelFailure(504, _LATE) from None
            if not self._ready.is_set():
                return None
            raise ModelFailure(503, _STARTING, _AGAIN) from None
        if answer.get("kind") not in ("late", "replaced"):
            pool.append(connection)  # nobody's any more where the scorer has changed meanwhile
            return answer
        connection.close()
        self._ready.clear()
        return answer if answer["kind"] == "late" else None

    @staticmethod
    def _pooled(pool: deque[socket.socket]) -> socket.socket | None:
        try:
            return pool.pop()
        except IndexError:
            return None

    # -- watching ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Let go of what nobody uses, and load again what was lost with a scorer; for ever."""
        while True:
            time.sleep(LOOK_S)
            with self._lock:
                self._let_go()
                if self._holder is not None and _told(self._holder):
                    self._ready.clear()
                replaced = not self._ready.is_set()
                lost = bool(self._documents) and (replaced or self._holder is None or _closed(self._holder))
                if lost:
                    self.up = replaced
                    self._drop_connections()
            if lost:
                log.warning("the PMML scorer is gone; waiting for the next one")
                self._on_health()
                self._recover()
                self._on_health()
            if replaced or lost:
                self._ready.set()

    def _let_go(self) -> None:
        while self._released:
            name = self._released.popleft()
            self._uses[name] -= 1
            if self._uses[name] <= 0:
                del self._uses[name]
                self._documents.pop(name, None)
                if self._holder is None:
                    continue  # it went with the scorer that had it
                try:
                    self._holder.settimeout(_SIGN_S)
                    _ask(self._holder, {"op": "release", "model": name})
                except (EOFError, OSError, ValueError):
                    # A late answer would be taken for the next one's: begin anew.
                    self._drop_connections()
        if not self._documents and self._wanted:
            self._part()

    def _recover(self) -> None:
        """Load all models into the next scorer, however long it takes to come."""
        soon = time.monotonic() + START_S
        while True:
            time.sleep(LOOK_S)
            if time.monotonic() > soon:
                self.up = False
            with self._lock:
                self._let_go()
                if not self._documents:
                    return
                try:
                    self._attach(time.monotonic() + _SIGN_S)
                except ModelError as error:
                    log.warning("the PMML scorer is not back: %s", error)
                    continue
                self.up = True
                log.info("the PMML scorer is back")
                return

    def _part(self) -> None:
        """Want no scorer any more."""
        self._wish.unlink(missing_ok=True)
        self._wanted = False
        self._drop_connections()

    def _drop_connections(self) -> None:
        """Forget all connections: they led to a scorer that is gone, or that nobody needs."""
        if self._holder is not None:
            self._holder.close()
            self._holder = None
        self._pool = deque()  # what is in the former one, or comes back to it, ends with it


def _ask(connection: socket.socket, message: dict[str, Any], data: bytes = b"") -> dict[str, Any]:
    frames.send(connection, message, data)
    return frames.receive(connection)[0]


def _told(connection: socket.socket) -> bool:
    """Whether the other side said something of itself: that it is being replaced."""
    try:
        connection.setblocking(False)
        return connection.recv(1, socket.MSG_PEEK) != b""
    except OSError:
        return False


def _closed(connection: socket.socket) -> bool:
    """Whether the other side has closed a connection on which it owes no answer."""
    try:
        connection.setblocking(False)
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
