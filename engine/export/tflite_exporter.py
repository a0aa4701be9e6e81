"""TensorFlow Lite from Keras and TensorFlow, scored by the interpreter that comes with TensorFlow."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from engine.errors import EngineError
from engine.evaluate import outputs
from engine.evaluate.outputs import Outputs
from engine.evaluate.rows import Rows
from engine.export.base import Source
from engine.export.on_tensorflow import OnTensorFlow
from engine.formats import signature
from engine.scan.names import printable

_SIGNATURE = "serving_default"
_MOST_STEPS = 256  # of a recurrent layer; each becomes operations of its own
_LISTED = re.compile(r"^TF (?:Select|Custom) ops: ([\w, ]+?) *$", re.MULTILINE)
_NAMED = re.compile(r"'tf\.(\w+)'")


class TFLiteExporter(OnTensorFlow):
    """A flat file of TFLite's built-in operations, with the signature `serving_default` and an open batch."""

    name = "tflite"
    label = "TensorFlow Lite"
    format = "tflite"
    file_name = "model.tflite"

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")

    def export(self, source: Source, rows: Rows, out: Path, options: Options) -> dict[str, Any]:
        """{"signature", "opset": None, "labels": None}. EngineError(code="unsupported") for operations that TFLite
        does not have built in."""
        from engine.export.sources.base import source_of
        from engine.export.sources.tensorflow_graph import tensorflow
        from engine.export.sources.tensorflow_model import write_saved_model

        tf = tensorflow()
        graph = source_of(source.framework).load(source.folder)
        if graph.is_keras:
            _unroll(graph.owner)
        with tempfile.TemporaryDirectory() as work:
            # Only this way round the names of the tensors stay.
            folder = Path(work, "model")
            write_saved_model(graph, folder)
            converter = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=[_SIGNATURE])
            try:
                content = converter.convert()
            except Exception as error:
                # ConverterError has moved between modules, and what it stands for has no other name.
                raise EngineError(_reason(str(error)), field="exporter", code="unsupported") from error
        (out / self.file_name).write_bytes(content)
        return {"signature": _Interpreter(out / self.file_name).signature, "opset": None, "labels": None}

    def score(self, artifact: Path, rows: Rows, labels: list[Any] | None) -> Outputs:
        interpreter = _Interpreter(artifact)
        return outputs.run_all(interpreter, interpreter.signature, rows)


def _unroll(model: Any) -> None:
    """Has recurrent layers write out their steps: TFLite cannot keep the lists that TensorFlow's loop collects in."""
    import keras

    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.RNN):
            steps = layer.input.shape[1] if layer._inbound_nodes else None
            if steps is not None and steps > _MOST_STEPS:
                raise EngineError(
                    f"The layer '{printable(layer.name)}' goes {steps} steps, and only up to {_MOST_STEPS} can be "
                    "written out for TensorFlow Lite.",
                    field="exporter",
                    code="unsupported",
                )
            layer.unroll = True


def _reason(said: str) -> str:
    """Which operations are missing, from the converter's text."""
    listed = [name for line in _LISTED.findall(said) for name in line.split(", ")]
    names = list(dict.fromkeys(listed or _NAMED.findall(said)))
    if not names:
        return "TensorFlow Lite cannot convert this model; the log says why."
    return f"TensorFlow Lite has no built-in operation for {', '.join(names[:10])}, which this model needs."


class _Interpreter:
    """A TFLite file that looks like an ONNX session: `run` resizes to the batch it is given."""

    def __init__(self, artifact: Path) -> None:
        import warnings

        from engine.export.sources.tensorflow_graph import tensorflow

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it recommends its own successor
            interpreter = tensorflow().lite.Interpreter(model_path=str(artifact), num_threads=1)
        self._runner = interpreter.get_signature_runner(_SIGNATURE)
        self.signature: signature.Signature = {
            "inputs": _tensors(self._runner.get_input_details()),
            "outputs": _tensors(self._runner.get_output_details()),
        }

    def run(self, names: None, feeds: dict[str, Any]) -> list[Any]:
        from engine.export.sources.tensorflow_graph import texts

        given = self._runner(**feeds)
        return [texts(given[each["name"]]) for each in self.signature["outputs"]]


def _tensors(details: dict[str, dict[str, Any]]) -> list[signature.Tensor]:
    import numpy as np

    found = []
    for name, each in details.items():
        shape = [int(size) for size in each["shape_signature"]]
        found.append(signature.tensor(name, signature.of_numpy(np.dtype(each["dtype"]).name), shape))
    return found
