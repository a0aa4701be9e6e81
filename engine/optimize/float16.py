"""Half precision: 16-bit floats for weights alone, or for the computation as well."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from engine.errors import EngineError
from engine.optimize.base import NOTHING
from engine.optimize.material import Material

_LARGEST = 65504.0  # of IEEE 754 binary16


class Float16:
    """Half the size. CPUs compute in float32 all the same and gain no speed; GPUs and NPUs do."""

    name = "float16"
    label = "Half precision (float16)"
    family = "quantization"
    needs = NOTHING
    environment = None

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        weights_only: bool = Field(
            False,
            description="Store weights as float16 and compute in float32: nothing can overflow, and it is as fast as "
            "before on CPUs. Otherwise the computation is float16 too; inputs and outputs stay float32.",
        )

    def optimize(self, model: Path, target: Path, options: Options, material: Material) -> list[str]:
        """EngineError(code="no-gain") without weights of some size."""
        from engine.optimize.graph.model import no_gain, open_model, save
        from engine.optimize.graph.weights import weights

        opened = open_model(model)
        found = weights(opened)
        if not found:
            raise no_gain("no float32 weights of some size")
        fitting = [weight for weight in found if abs(weight.array()).max() <= _LARGEST]
        notes = []
        if options.weights_only:
            store_half(opened, fitting)
            notes.append(f"{len(fitting)} tensors stored as float16.")
        else:
            if len(fitting) < len(found):
                raise EngineError(
                    "Some weights are larger than 65504, the largest float16: store weights only.",
                    field="options.weights_only",
                    code="range",
                )
            opened = _computed_in_half(opened)
            # What feeds operators that know float32 only (ai.onnx.ml's neighbours) is stored smaller all the same.
            store_half(opened, weights(opened))
            notes.append("Weights and computation are float16, inputs and outputs float32.")
        save(opened, target)
        return notes


def store_half(model: Any, weights: list[Any]) -> None:
    """Stores weights as float16, each cast to float32 under its old name before it is read; whoever loads the model
    may cast once, ahead of time."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weight in weights:
        name, stored = weight.name, f"{weight.name}/float16"
        weight.tensor.CopyFrom(numpy_helper.from_array(weight.array().astype(np.float16), stored))
        casts.append(helper.make_node("Cast", [stored], [name], name=f"{name}/cast", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _computed_in_half(model: Any) -> Any:
    from onnx import TensorProto, numpy_helper
    from onnxruntime.transformers.float16 import convert_float_to_float16

    from engine.optimize.graph.model import put_in_order, unsupported

    try:
        with warnings.catch_warnings():
            # One warning for each weight below 6e-8, which becomes that.
            warnings.simplefilter("ignore")
            converted = convert_float_to_float16(model, keep_io_types=True)
    except Exception as error:
        raise unsupported("Conversion to float16", error) from error
    # Its casts are at the end of the list of nodes.
    put_in_order(converted.graph)
    for tensor in converted.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16 and not tensor.HasField("raw_data"):
            # It writes numbers of variable length, a quarter larger than they need be.
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    return converted
