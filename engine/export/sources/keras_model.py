"""Models of Keras 3, stored as a .keras file (or exported to a SavedModel) by `mlflow.keras`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from engine.errors import EngineError
from engine.export.sources import tensorflow_graph as graphs
from engine.export.sources.tensorflow_graph import Graph, GraphSource
from engine.formats.signature import Signature


class KerasSource(GraphSource):
    """Sequential and functional models made of Keras's own layers."""

    name = "keras"
    label = "Keras"

    class Options(BaseModel):
        """None."""


def keras_file(path: Path, recorded: Signature) -> Graph:
    """A .keras file. EngineError(field="file"): code "untrusted" when it brings code, "unsupported" when it needs
    classes that Keras does not have."""
    tf = graphs.tensorflow()
    import keras

    try:
        # Without compile: losses and optimizers are of no use here and are one more thing to trust.
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        # The file is foreign, and Keras raises whatever its config makes it raise.
        raise _refusal(error) from error
    inputs = list(getattr(model, "inputs", None) or [])
    if not inputs:
        raise EngineError(
            "The model does not know the shape of its input; call it once before saving.", field="file", code="shape"
        )

    def call(*tensors: Any) -> list[Any]:
        # A functional model wants its inputs in the structure it was built with: one tensor, a list, a mapping.
        given = tensors[0] if len(tensors) == 1 else keras.tree.pack_sequence_as(model.input, list(tensors))
        return [tf.convert_to_tensor(each) for each in keras.tree.flatten(model(given, training=False))]

    ins = graphs.names_of([each.name for each in inputs], recorded["inputs"], "input")
    named = getattr(model, "output_names", None) or [model.layers[-1].name]  # Sequential has no such list
    outs = graphs.names_of(list(named), recorded["outputs"], "output")
    own = [graphs.tensor_of(name, each) for name, each in zip(ins, inputs, strict=True)]
    gives = [graphs.tensor_of(name, each) for name, each in zip(outs, model.outputs, strict=True)]
    return Graph(model, call, {"inputs": graphs.completed(own, recorded["inputs"]), "outputs": gives})


def _refusal(error: Exception) -> EngineError:
    text = str(error)
    if "safe_mode" in text:
        return EngineError(
            "The model holds code of its own (a Lambda layer), which is not loaded; use layers of Keras instead.",
            field="file",
            code="untrusted",
        )
    if "Could not locate" in text or "Could not deserialize" in text:
        return EngineError(
            "The model uses a class or function that is not part of Keras, so it cannot be loaded here.",
            field="file",
            code="unsupported",
        )
    return EngineError(f"Keras cannot load this model ({type(error).__name__}).", field="file", code="keras")
