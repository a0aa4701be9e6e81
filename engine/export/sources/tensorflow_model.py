"""Models of the TensorFlow flavor: a SavedModel with a serving signature, or Keras's file in it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from engine.errors import EngineError
from engine.export.sources import tensorflow_graph as graphs
from engine.export.sources.tensorflow_graph import Graph, GraphSource
from engine.formats.signature import Signature, Tensor

_SERVING = "serving_default"


class TensorFlowSource(GraphSource):
    """SavedModels, asked through `serving_default` or their only signature."""

    name = "tensorflow"
    label = "TensorFlow"

    class Options(BaseModel):
        """None."""


def saved_model(folder: Path, recorded: Signature | None = None) -> Graph:
    """A SavedModel's folder; `recorded` orders its tensors and closes open dimensions.
    EngineError(field="file") when it cannot be loaded or has no signature."""
    recorded = recorded or {"inputs": [], "outputs": []}
    tf = graphs.tensorflow()
    try:
        owner = tf.saved_model.load(str(folder))
    except Exception as error:
        # The file is foreign; TensorFlow raises errors of its own, of Python and of protobuf.
        raise EngineError(
            f"TensorFlow cannot load this SavedModel ({type(error).__name__}).", field="file", code="tensorflow"
        ) from error
    known = dict(owner.signatures)
    function = known.get(_SERVING) or (next(iter(known.values())) if len(known) == 1 else None)
    if function is None:
        raise EngineError(
            f"The SavedModel has no signature '{_SERVING}'; save it with one.", field="file", code="signature"
        )
    takes = _ordered(function.structured_input_signature[1], recorded["inputs"])
    gives = _ordered(function.structured_outputs, recorded["outputs"])
    own = [graphs.tensor_of(name, spec) for name, spec in takes.items()]
    inputs = graphs.completed(own, recorded["inputs"])

    def call(*tensors: Any) -> list[Any]:
        given = function(**dict(zip(takes, tensors, strict=True)))
        return [given[name] for name in gives]

    outputs = [graphs.tensor_of(name, spec) for name, spec in gives.items()]
    unchanged = folder if own == inputs and _SERVING in known else None
    return Graph(owner, call, {"inputs": inputs, "outputs": outputs}, unchanged)


def _ordered(specs: dict[str, Any], recorded: list[Tensor]) -> dict[str, Any]:
    names = [each["name"] for each in recorded]
    return {name: specs[name] for name in (names if set(names) == set(specs) else specs)}


def write_saved_model(graph: Graph, folder: Path) -> None:
    """Writes `graph` as a SavedModel with the signature `serving_default`; one that is stored as it is needed is
    copied, without what a server does not read. EngineError(code="unsupported") when it cannot be traced."""
    if graph.folder is not None:
        folder.mkdir(parents=True)
        shutil.copyfile(graph.folder / "saved_model.pb", folder / "saved_model.pb")
        for part in ("variables", "assets"):
            if (graph.folder / part).is_dir():
                shutil.copytree(graph.folder / part, folder / part, copy_function=shutil.copyfile)
        return
    tf = graphs.tensorflow()
    try:
        function = graph.traced()
        if graph.is_keras:
            import keras

            archive = keras.export.ExportArchive()
            archive.track(graph.owner)
            archive.add_endpoint("serve", function)
            archive.write_out(str(folder), verbose=False)
        else:
            module = tf.Module()
            module.owner, module.serve = graph.owner, function
            tf.saved_model.save(module, str(folder), signatures={_SERVING: function})
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise EngineError(
            "TensorFlow cannot trace this model as one function; the log says why.",
            field="exporter",
            code="unsupported",
        ) from error
