"""One loaded model: an ONNX Runtime session, its signature, and what a call of it costs."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from serving.batching import UNMEASURED, measure
from serving.compute import Compute
from serving.protocol.datatypes import Datatype
from serving.sealed import Sealed
from serving.values import MAPS, PLAIN, SEQUENCE, classify, given, run_with_bfloat16, taken

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
    """Signature of one input or output. `shape` has -1 where any size goes; None when rank is unknown. `kind`
    is what ONNX Runtime has there (see values.py); an `optional` input may be left out."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...] | None
    kind: str = PLAIN
    optional: bool = False

    def metadata(self) -> dict[str, object]:
        """The tensor as V2 metadata shows it."""
        return {"name": self.name, "datatype": self.datatype.name, "shape": list(self.shape or ())}


def _tensors(nodes: list[ort.NodeArg], what: str) -> tuple[Tensor, ...]:
    found = []
    for node in nodes:
        known = classify(node.type)
        if known is None:
            raise ModelError(f"{what} {node.name!r} has type {node.type}, which the V2 protocol cannot carry")
        datatype, kind, optional = known
        shape = None if node.shape is None else tuple(d if isinstance(d, int) else -1 for d in node.shape)
        if kind != PLAIN:
            shape = (-1,) if kind == MAPS else None
        found.append(Tensor(node.name, datatype, shape, kind, optional))
    return tuple(found)


class Model:
    """A session and its signature. `run` may be called from any thread."""

    # As V2 metadata and Triton's configuration call it.
    platform = "onnxruntime_onnx"
    backend = "onnxruntime"
    # Threads of its own, for a model that waits for another process; None: those of all.
    compute: Compute | None = None

    def __init__(self, session: ort.InferenceSession, size: int) -> None:
        self.session = session
        # The session's own `run` checks what was checked here already, which costs a tenth of a small call.
        self._run = session._sess.run
        required = _tensors(session.get_inputs(), "input")
        # An initializer that is also an input has a default, and may be left out.
        defaults = _tensors(session.get_overridable_initializers(), "input")
        inputs = (*required, *(replace(tensor, optional=True) for tensor in defaults))
        self._describe(inputs, _tensors(session.get_outputs(), "output"), size)

    def _describe(self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], size: int) -> None:
        """Take a signature; nothing is measured yet."""
        self.size = size
        self.inputs, self.outputs = inputs, outputs
        tensors = (*inputs, *outputs)
        self.plain = all(t.kind == PLAIN and not t.optional for t in tensors)
        self.halves = frozenset(t.name for t in tensors if t.datatype.name == "BF16")
        self._direct = not self.halves and all(t.kind == PLAIN for t in tensors)
        self.input_by_name = {tensor.name: tensor for tensor in self.inputs}
        self.output_by_name = {tensor.name: tensor for tensor in self.outputs}
        self.output_names = [tensor.name for tensor in self.outputs]
        self.signature = (frozenset((t.name, t.datatype.name, t.shape) for t in self.inputs),)
        self.label = _label(self.outputs)
        self.cost_us: float | None = None
        self.inline_elements = 0
        self.openings: dict[tuple[str, tuple[int, ...], bool], bytes] = {}  # see protocol/encode.py
        self.batching = UNMEASURED
        self.options = ort.RunOptions()  # of all runs that bring none: see guard.py
        self.lane: Any = None  # the queue of this model's calls, made by the dataplane when first needed
        self.memory_bytes = size
        self.provider = "cpu"

    @property
    def well(self) -> bool:
        """Whether it would answer now."""
        return True

    def run(
        self, names: list[str], feeds: dict[str, np.ndarray], options: ort.RunOptions | None = None
    ) -> list[np.ndarray]:
        """Outputs in the order of `names`, as the protocol carries them; `options` are for whoever may want to end
        the run. Raises ONNX Runtime's own exceptions, and ServingError for an output that cannot be carried."""
        if self._direct:
            result: list[np.ndarray] = self._run(names, feeds, options or self.options)
            return result
        return self._run_special(names, feeds, options or self.options)

    def shared_rows(self, limit: int, budget_ms: float) -> int:
        """Rows that may share a run within a limit and a time; 1 for never. What runs in the event loop stays
        short even so."""
        if self.inline_elements:
            budget_ms = min(budget_ms, 2 * THREAD_HOP_US / 1000)
        return self.batching.most(limit, budget_ms)

    def _run_special(
        self, names: list[str], feeds: dict[str, np.ndarray], options: ort.RunOptions | None
    ) -> list[np.ndarray]:
        ready = {name: given(array, self.input_by_name[name].kind) for name, array in feeds.items()}
        if self.halves:
            values = run_with_bfloat16(self.session, names, ready, self.halves)
        else:
            values = self._run(names, ready, options)
        outputs = [self.output_by_name[name] for name in names]
        return [taken(v, o.kind, o.datatype, o.name) for v, o in zip(values, outputs, strict=True)]

    def warm(self) -> str:
        """Run once with every free dimension 1 and measure. Returns why it could not, or "".

        A model whose zero input it rejects itself (a lookup, a reshape) is served all the same, off the
        loop. One that does not come back within WARM_LIMIT_S raises ModelError."""
        feeds = {t.name: _zeros(t) for t in self.inputs if not t.optional}
        options = ort.RunOptions()
        timer = threading.Timer(WARM_LIMIT_S, setattr, (options, "terminate", True))
        timer.daemon = True
        timer.start()
        try:
            times = []
            for _ in range(_RUNS):
                start = time.perf_counter()
                self._run_special(self.output_names, feeds, options)
                times.append(time.perf_counter() - start)
                if sum(times) > _ENOUGH_S:
                    break
            # The least disturbed run: other processes share these cores while we load.
            self.cost_us = min(times) * 1e6
            # Zeros may be quick where other inputs take for ever: within the same limit.
            self.batching = measure(self, options)
        except Exception as error:
            if not options.terminate:
                return f"not warmed: {_first_line(error)}"
        finally:
            timer.cancel()
        if options.terminate:
            raise ModelError(f"a trial run did not end within {WARM_LIMIT_S:.0f} s")
        elements = max(1, sum(array.size for array in feeds.values()))
        if self.cost_us is not None and self.cost_us < THREAD_HOP_US:
            # A batch costs more than one row; beyond this many elements the call leaves the loop.
            self.inline_elements = int(elements * max(1.0, THREAD_HOP_US / max(self.cost_us, 1.0)))
        return ""


_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}


def load_model(source: bytes | Path | Sealed, format_name: str = "onnx", provider: str = "cpu") -> Model:
    """A session with one thread and no custom operators. Raises ModelError.

    Only given by a path can a model name other files as its weights: that is for the standalone server, whose
    models have their external data beside them."""
    if format_name not in ("onnx", "ort"):
        raise ModelError(f"format {format_name!r} cannot be served here; export the version to onnx")
    wanted = _PROVIDERS[provider]
    if wanted not in ort.get_available_providers():
        raise ModelError(f"the {provider} provider is not installed on this server (it has {_installed()})")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if format_name == "ort":
        options.add_session_config_entry("session.load_model_format", "ORT")
    providers = list(dict.fromkeys([wanted, _PROVIDERS["cpu"]]))
    before = resident_bytes()
    with contextlib.ExitStack() as held:
        if isinstance(source, Path):
            path, size = source, source.stat().st_size
        else:
            sealed = source if isinstance(source, Sealed) else held.enter_context(contextlib.closing(Sealed.of(source)))
            path, size = held.enter_context(sealed.path()), sealed.size
        try:
            session = ort.InferenceSession(path, options, providers=providers)
        except Exception as error:  # ONNX Runtime raises a dozen unrelated types, RuntimeError among them
            words = _first_line(error).replace(str(path), "it")
            raise ModelError(f"ONNX Runtime refused the model: {words}") from error
    if wanted not in session.get_providers():
        # ONNX Runtime goes on with the CPU when a device is missing, and says so in a log only.
        raise ModelError(f"the {provider} provider could not be used on this server")
    model = Model(session, size)
    model.provider = provider
    model.memory_bytes = max(size, resident_bytes() - before)
    return model


def _installed() -> str:
    names = {long: short for short, long in _PROVIDERS.items()}
    return ", ".join(names[long] for long in ort.get_available_providers() if long in names)


def _zeros(tensor: Tensor) -> np.ndarray:
    shape = tuple(1 if d < 0 else d for d in tensor.shape or ((1,) if tensor.kind == SEQUENCE else ()))
    if tensor.datatype.name == "BYTES":
        return np.full(shape, "", dtype=object)
    return np.zeros(shape, tensor.datatype.dtype)


def _label(outputs: tuple[Tensor, ...]) -> str | None:
    """The first output that looks like a predicted class: integers or strings, [N] or [N,1]."""
    for tensor in outputs:
        kind = tensor.datatype
        if tensor.kind != PLAIN or (kind.name != "BYTES" and kind.low is None):
            continue
        if tensor.shape is not None and (len(tensor.shape) == 1 or (len(tensor.shape) == 2 and tensor.shape[1] == 1)):
            return tensor.name
    return None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]


def resident_bytes() -> int:
    """Resident bytes of this process (0 where /proc is not there)."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - hot enough to stay plain
            return int(file.read().split()[1]) * 4096
    except OSError:
        return 0
