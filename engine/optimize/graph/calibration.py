"""Calibration rows as ONNX Runtime's quantizer and our own probes read them: batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from engine.errors import EngineError
from engine.optimize.material import Material

BATCH = 16


class Calibration:
    """The first `most` calibration rows as feeds of a model, in batches of BATCH or of the model's own fixed size.

    It is a `CalibrationDataReader` (get_next, set_range, len) without importing one. EngineError(code="calibration")
    for no rows, for fewer than a fixed batch asks for, and for values that are not finite; EngineError(field="rows")
    for rows that do not fit.
    """

    def __init__(self, model: Any, material: Material, most: int) -> None:
        import numpy as np

        from engine.evaluate.outputs import feeds
        from engine.formats import signature

        described = signature.of_onnx(model)
        self.rows = material.to_calibrate().head(most)
        self._feeds = feeds(described, self.rows)
        for name, values in self._feeds.items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise _wrong(f"The calibration rows have missing or infinite values in '{name[:60]}'.")
        shape = described["inputs"][0]["shape"]
        self.fixed = bool(shape) and shape[0] > 0
        self.batch = shape[0] if self.fixed else min(BATCH, len(self.rows))
        # A model of a fixed batch size takes whole batches only.
        self.count = len(self.rows) // self.batch * self.batch if self.fixed else len(self.rows)
        if not self.count:
            raise _wrong(f"Calibration needs at least {self.batch} rows.")
        self.rows = self.rows.head(self.count)
        self.set_range(0, len(self))

    def smallest(self) -> dict[str, Any]:
        """One row, or one batch where the model asks for it."""
        size = self.batch if self.fixed else 1
        return {name: values[:size] for name, values in self._feeds.items()}

    def batches(self) -> Iterator[dict[str, Any]]:
        for start in range(0, self.count, self.batch):
            yield {name: values[start : start + self.batch] for name, values in self._feeds.items()}

    def refuse_infinite(self, model: Any) -> None:
        """EngineError(code="calibration") naming the first value inside the model that is not finite on these rows."""
        import numpy as np
        from onnx import ModelProto

        names = [name for node in model.graph.node for name in node.output if name]
        run = probing(ModelProto.FromString(model.SerializeToString()), names)
        for feed in self.batches():
            for name, array in zip(names, run(feed), strict=True):
                if isinstance(array, np.ndarray) and array.dtype.kind == "f" and not np.isfinite(array).all():
                    raise _wrong(f"With the calibration rows the values at '{name[:60]}' are not finite.")

    def __len__(self) -> int:
        return -(-self.count // self.batch)

    def set_range(self, start_index: int, end_index: int) -> None:
        """The batches that `get_next` gives from here."""
        self._pending = list(self.batches())[start_index:end_index][::-1]

    def get_next(self) -> dict[str, Any] | None:
        return self._pending.pop() if self._pending else None


def describe(model: Any, feed: dict[str, Any]) -> None:
    """Writes down the element type and the number of dimensions of every tensor that the graph's value_info leaves out,
    from one run on `feed`.

    ONNX infers nothing behind operators of other domains (a scikit-learn scaler), and the quantizer leaves out, without
    a word, what it knows no type of. Sizes stay open, since one run does not tell which of them may change.
    """
    import numpy as np
    from onnx import ModelProto, helper

    known = {each.name for each in [*model.graph.value_info, *model.graph.output, *model.graph.input]}
    names = [name for node in model.graph.node for name in node.output if name and name not in known]
    arrays = probing(ModelProto.FromString(model.SerializeToString()), names)(feed)
    for name, array in zip(names, arrays, strict=True):
        if isinstance(array, np.ndarray) and array.dtype.kind in "fiub":
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            model.graph.value_info.append(helper.make_tensor_value_info(name, kind, [None] * array.ndim))


def probing(model: Any, names: list[str]) -> Callable[[dict[str, Any]], list[Any]]:
    """A function from a feed to the values of these tensors, none fused away; `model` gets them as outputs.

    It raises EngineError(code="calibration") where the model fails on the rows."""
    import onnxruntime
    from onnx import ValueInfoProto

    from engine.sandbox.text import neutral

    outputs = {each.name for each in model.graph.output}
    model.graph.output.extend(ValueInfoProto(name=name) for name in names if name not in outputs)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    content = model.SerializeToString()

    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise EngineError(
            f"ONNX Runtime cannot show the values inside this model. {neutral(error)}",
            field="optimizer",
            code="unsupported",
        ) from error

    def run(feed: dict[str, Any]) -> list[Any]:
        if not names:
            return []
        try:
            return list(session.run(names, feed))
        except Exception as error:
            raise _wrong(f"The model fails on the calibration rows. {neutral(error)}") from error

    return run


def _wrong(message: str) -> EngineError:
    return EngineError(message, field="calibration", code="calibration")
