"""One loaded model: an ONNX Runtime session, its signature, and what a call of it costs."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort

from serving.protocol.datatypes import Datatype, of_ort

# About what a hop to a thread and back costs; a cheaper call runs in the event loop itself.
THREAD_HOP_US = 50.0
WARM_LIMIT_S = 20.0
_RUNS = 5
_ENOUGH_S = 0.05  # a model this slow needs no exact figure

ort.set_default_logger_severity(4)


class ModelError(Exception):
    """The artifact cannot be served; the text is for the person who deployed it."""


@dataclass(frozen=True)
class Tensor:
    """Signature of one input or output. `shape` has -1 where any size goes; None when rank is unknown."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...] | None

    def metadata(self) -> dict[str, object]:
        """The tensor as V2 metadata shows it."""
        return {"name": self.name, "datatype": self.datatype.name, "shape": list(self.shape or ())}


def _tensors(nodes: list[ort.NodeArg], what: str, skip_unknown: bool) -> tuple[Tensor, ...]:
    found = []
    for node in nodes:
        datatype = of_ort(node.type)
        if datatype is None:
            if skip_unknown:
                continue
            raise ModelError(f"{what} {node.name!r} has type {node.type}, which the V2 protocol cannot carry")
        shape = None if node.shape is None else tuple(d if isinstance(d, int) else -1 for d in node.shape)
        found.append(Tensor(node.name, datatype, shape))
    return tuple(found)


@dataclass(frozen=True)
class Evidence:
    """What measuring at load said of batching: up to `most` rows share a run (1: never), and why."""

    most: int
    why: str


NO_BATCHING = Evidence(1, "not measured")


class Model:
    """A session and its signature. `run` may be called from any thread."""

    def __init__(self, session: ort.InferenceSession, size: int) -> None:
        self.session = session
        # The session's own `run` checks what was checked here already, which costs a tenth of a small call.
        self._run = session._sess.run
        self.size = size
        self.inputs = _tensors(session.get_inputs(), "input", skip_unknown=False)
        # Maps and sequences (a classifier exported with its ZipMap) are left out; the tensors remain.
        self.outputs = _tensors(session.get_outputs(), "output", skip_unknown=True)
        if not self.outputs:
            raise ModelError("no output of this model is a tensor")
        self.input_by_name = {tensor.name: tensor for tensor in self.inputs}
        self.output_by_name = {tensor.name: tensor for tensor in self.outputs}
        self.output_names = [tensor.name for tensor in self.outputs]
        self.signature = (frozenset((t.name, t.datatype.name, t.shape) for t in self.inputs),)
        self.label = _label(self.outputs)
        self.cost_us: float | None = None
        self.inline_elements = 0
        self.openings: dict[tuple[str, tuple[int, ...]], bytes] = {}  # see protocol/encode.py
        self.batching = NO_BATCHING
        self.lane: Any = None  # the queue of this model's calls, made by the dataplane when first needed
        self.memory_bytes = size

    def run(self, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Outputs in the order of `names`. Raises ONNX Runtime's own exceptions."""
        result: list[np.ndarray] = self._run(names, feeds, None)
        return result

    def warm(self) -> str:
        """Run once with every free dimension 1 and measure. Returns why it could not, or "".

        A model whose zero input it rejects itself (a lookup, a reshape) is served all the same, off the
        loop. One that does not come back within WARM_LIMIT_S raises ModelError."""
        feeds = {t.name: _zeros(t) for t in self.inputs}
        options = ort.RunOptions()
        timer = threading.Timer(WARM_LIMIT_S, setattr, (options, "terminate", True))
        timer.daemon = True
        timer.start()
        try:
            times = []
            for _ in range(_RUNS):
                start = time.perf_counter()
                self.session.run(self.output_names, feeds, options)
                times.append(time.perf_counter() - start)
                if sum(times) > _ENOUGH_S:
                    break
        except Exception as error:
            if options.terminate:
                raise ModelError(f"a trial run did not end within {WARM_LIMIT_S:.0f} s") from error
            return f"not warmed: {_first_line(error)}"
        finally:
            timer.cancel()
        # The least disturbed run: other processes share these cores while we load.
        self.cost_us = min(times) * 1e6
        elements = max(1, sum(array.size for array in feeds.values()))
        if self.cost_us < THREAD_HOP_US:
            # A batch costs more than one row; beyond this many elements the call leaves the loop.
            self.inline_elements = int(elements * max(1.0, THREAD_HOP_US / max(self.cost_us, 1.0)))
        return ""


def load_model(data: bytes, format_name: str = "onnx") -> Model:
    """A session from bytes, one thread, no external data, no custom operators. Raises ModelError."""
    if format_name not in ("onnx", "ort"):
        raise ModelError(f"format {format_name!r} cannot be served here; export the version to onnx")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if format_name == "ort":
        options.add_session_config_entry("session.load_model_format", "ORT")
    before = _resident()
    try:
        # From bytes, never a path: a path lets a model name other files of this machine as its weights.
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises a dozen unrelated types, RuntimeError among them
        raise ModelError(f"ONNX Runtime refused the model: {_first_line(error)}") from error
    model = Model(session, len(data))
    model.memory_bytes = max(len(data), _resident() - before)
    return model


def _zeros(tensor: Tensor) -> np.ndarray:
    shape = tuple(1 if d < 0 else d for d in tensor.shape or ())
    if tensor.datatype.name == "BYTES":
        return np.full(shape, "", dtype=object)
    return np.zeros(shape, tensor.datatype.dtype)


def _label(outputs: tuple[Tensor, ...]) -> str | None:
    """The first output that looks like a predicted class: integers or strings, [N] or [N,1]."""
    for tensor in outputs:
        kind = tensor.datatype
        if kind.name != "BYTES" and (kind.low is None):
            continue
        if tensor.shape is not None and (len(tensor.shape) == 1 or (len(tensor.shape) == 2 and tensor.shape[1] == 1)):
            return tensor.name
    return None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]


def _resident() -> int:
    """Resident bytes of this process (0 where /proc is not there)."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - hot enough to stay plain
            return int(file.read().split()[1]) * 4096
    except OSError:
        return 0
