"""What Keras and SavedModel sources have in common: where MLflow puts them, and one function to ask."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.evaluate import outputs
from engine.evaluate.outputs import Outputs
from engine.evaluate.rows import Rows
from engine.formats import signature as signatures
from engine.formats.signature import Signature, Tensor
from engine.scan import mlmodel


@dataclass(frozen=True, slots=True)
class Graph:
    """A loaded model. owner: the Keras model or the object of the SavedModel; it holds the variables.
    call: tensors in the order of the inputs to tensors in the order of the outputs. folder: the SavedModel as it
    is stored, where it can be handed on unchanged; None otherwise."""

    owner: Any
    call: Callable[..., Sequence[Any]]
    signature: Signature
    folder: Path | None = None

    @property
    def is_keras(self) -> bool:
        return hasattr(self.owner, "layers")

    def specs(self) -> list[Any]:
        """TensorSpecs of the inputs, with their names."""
        tf = tensorflow()
        return [
            tf.TensorSpec(_open(each["shape"]), _dtype(each["datatype"]), each["name"])
            for each in self.signature["inputs"]
        ]

    def traced(self) -> Any:
        """The tf.function of the inputs that gives {output name: tensor}."""
        names = [each["name"] for each in self.signature["outputs"]]

        def function(*tensors: Any) -> dict[str, Any]:
            return dict(zip(names, self.call(*tensors), strict=True))

        return tensorflow().function(function, input_signature=self.specs(), autograph=False)

    def predictions(self, rows: Rows) -> Outputs:
        """Labels and scores for `rows`, which are reshaped to the one input; of several inputs each takes the column
        of its name. EngineError(field="rows") when they do not fit."""
        inputs = self.signature["inputs"]
        wide = [each["name"] for each in inputs if len(inputs) > 1 and any(size > 1 for size in each["shape"][1:])]
        if wide:
            raise EngineError(
                f"Of the model's several inputs '{wide[0][:60]}' takes more than one column, which rows cannot give.",
                field="rows",
                code="rows",
            )
        return outputs.run_all(_Session(self), self.signature, rows)


class _Session:
    """Looks like an ONNX session, so that rows are fed the same way to both."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def run(self, names: None, feeds: dict[str, Any]) -> list[Any]:
        tf = tensorflow()
        results = self.graph.call(*(tf.convert_to_tensor(values) for values in feeds.values()))
        return [texts(each.numpy()) for each in results]


def texts(array: Any) -> Any:
    """TensorFlow gives text as bytes; everything else gives str."""
    import numpy as np

    array = np.asarray(array)
    if array.dtype.kind != "O":
        return array
    return np.array([each.decode("utf-8", "replace") for each in array.reshape(-1)], dtype=object).reshape(array.shape)


def tensorflow() -> Any:
    """The module. EngineError(code="environment") where it is not installed."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Its sums depend on the machine; what is compared here should not.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        import tensorflow as module
    except ModuleNotFoundError as error:
        raise EngineError(
            "The model needs the package tensorflow, which is not installed here.", field="file", code="environment"
        ) from error
    return module


class GraphSource:
    """What the sources of both flavors do: either may hold a .keras file or a SavedModel."""

    environment: str | None = "tensorflow"

    def load(self, folder: Path) -> Graph:
        """The model of an MLflow folder, or of a .keras file or a SavedModel's folder. Sandbox only: operations may
        read and write files, although Keras refuses code."""
        from engine.export.sources.keras_model import keras_file
        from engine.export.sources.tensorflow_model import saved_model

        path, recorded = stored(folder)
        return keras_file(path, recorded) if path.is_file() else saved_model(path, recorded)

    def predictions(self, model: Graph, rows: Rows) -> Outputs:
        """What the last layer or the signature gives: the first real numbers (n, k), the first whole numbers or texts
        (n,)."""
        return model.predictions(rows)

    def class_labels(self, model: Graph) -> list[Any] | None:
        return None


def stored(folder: Path) -> tuple[Path, Signature]:
    """(the .keras file or the SavedModel's folder, the signature MLmodel records) of an MLflow folder, or of such
    a file or folder itself. EngineError(field="file") when it is neither."""
    described = folder.is_dir() and (folder / "MLmodel").exists()
    data = mlmodel.read_yaml(folder / "MLmodel", "MLmodel") if described else {}
    named = mlmodel.model_path(folder, data) if described else folder
    # The keras flavor names the folder `data` and means what lies in it.
    for path in (named, named / "model.keras", named / "model"):
        if (path.is_file() and path.suffix == ".keras") or (path / "saved_model.pb").is_file():
            return path, signatures.of_mlflow(data.get("signature"))
    raise EngineError(
        "The model is stored neither as a .keras file nor as a SavedModel; save it again with Keras 3.",
        field="file",
        code="unsupported",
    )


def tensor_of(name: str, spec: Any) -> Tensor:
    """V2 tensor of anything with TensorFlow's or Keras's `shape` and `dtype`; an unknown rank is [batch, any]."""
    dtype = tensorflow().as_dtype(spec.dtype).as_numpy_dtype
    shape = (
        [-1, -1] if getattr(spec.shape, "rank", 0) is None else [-1 if size is None else size for size in spec.shape]
    )
    return signatures.tensor(name, signatures.of_numpy(getattr(dtype, "__name__", str(dtype))), shape)


def completed(own: list[Tensor], recorded: list[Tensor]) -> list[Tensor]:
    """`own` with open dimensions behind the batch as `recorded` says: matched by name, or when each has one."""
    by_name = {each["name"]: each for each in recorded}
    found = []
    for each in own:
        other = recorded[0] if len(own) == len(recorded) == 1 else by_name.get(each["name"])
        shape = each["shape"]
        if other is not None and len(other["shape"]) == len(shape):
            shape = shape[:1] + [b if a < 0 else a for a, b in zip(shape[1:], other["shape"][1:], strict=True)]
        found.append({**each, "shape": shape})
    return found


def names_of(own: list[str], recorded: list[Tensor], default: str) -> list[str]:
    """Names of tensors: those the user recorded, else the model's own, numbered where Keras counted them up."""
    given = [each["name"] for each in recorded]
    if len(given) != len(own) or given == [f"{default}_{index}" for index in range(len(given))]:
        given = [
            (default if len(own) == 1 else f"{default}_{index}") if name.startswith("keras_tensor") else name
            for index, name in enumerate(own)
        ]
    plain = [re.sub(r"\W", "_", name, flags=re.ASCII) for name in given]
    plain = [name if name[:1].isalpha() else f"{default}_{name}" for name in plain]
    return [name if plain.count(name) == 1 else f"{name}_{index}" for index, name in enumerate(plain)]


def _open(shape: list[int]) -> list[int | None]:
    return [None if size < 0 else size for size in shape]


def _dtype(datatype: str) -> Any:
    tf = tensorflow()
    return tf.string if datatype == "BYTES" else tf.as_dtype(signatures.NUMPY[datatype])
