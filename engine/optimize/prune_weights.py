"""Unstructured pruning: single weights become zero."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from engine.errors import EngineError
from engine.optimize.base import NOTHING
from engine.optimize.material import Material


class PruneWeights:
    """Zeros compress well; ONNX Runtime still multiplies by them."""

    name = "prune-weights"
    label = "Prune single weights"
    family = "pruning"
    needs = NOTHING
    environment = None

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        pattern: Literal["any", "1:4", "2:4", "4:8"] = Field(
            "any", description="Any weights, or N of every M neighbouring inputs of an output stay (2:4: half)."
        )
        amount: float = Field(0.5, gt=0, le=0.99, description="Share of weights to zero, where the pattern is any.")
        scope: Literal["layer", "global"] = Field(
            "global", description="The smallest weights of all layers, or the same share in every layer."
        )
        exclude: list[str] = Field(
            [], max_length=200, description="Names of layers to leave alone; * stands for any part."
        )

    def optimize(self, model: Path, target: Path, options: Options, material: Material) -> list[str]:
        """EngineError(code="no-gain") when the model has no layers with stored weights."""
        import onnx
        from onnx import numpy_helper

        from engine.optimize.graph.prepare import prepared

        graph = prepared(onnx.load(str(model), load_external_data=False))
        stored = {each.name: each for each in graph.graph.initializer}
        axes = dict(_weights(graph.graph, stored, options.exclude))
        arrays = {name: numpy_helper.to_array(stored[name]).copy() for name in axes}
        if not arrays:
            raise EngineError("This model has no weights to prune.", field="optimizer", code="no-gain")
        if options.pattern == "any":
            _smallest(list(arrays.values()), options.amount, options.scope == "global")
        else:
            keep, of = (int(part) for part in options.pattern.split(":"))
            for name, array in arrays.items():
                _of_each(array, axes[name], keep, of)
        for name, array in arrays.items():
            stored[name].CopyFrom(numpy_helper.from_array(array, name))
        onnx.save(graph, str(target))
        zeros = sum(int((array == 0).sum()) for array in arrays.values())
        total = sum(array.size for array in arrays.values())
        return [
            f"{zeros / total:.0%} of {total:,} weights in {len(arrays)} layers are zero.",
            "The file is smaller only once it is compressed, and dense runtimes get no faster.",
        ]


def _weights(graph: Any, stored: dict[str, Any], exclude: list[str]) -> list[tuple[str, int]]:
    """Stored weights of real numbers of the linear layers, with the axis of their inputs."""
    import fnmatch

    from engine.optimize.graph.walk import attribute

    found: dict[str, int] = {}
    for node in graph.node:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or node.input[1] not in stored:
            continue
        tensor = stored[node.input[1]]
        if tensor.data_type not in (1, 10, 11) or len(tensor.dims) < 2:
            continue
        if any(fnmatch.fnmatchcase(name, pattern) for name in (node.name, tensor.name) for pattern in exclude):
            continue
        places = {"Conv": 1, "ConvTranspose": 0, "MatMul": len(tensor.dims) - 2}
        found[tensor.name] = places.get(node.op_type, 1 if attribute(node, "transB", 0) else 0)
    return list(found.items())


def _smallest(arrays: list[Any], amount: float, together: bool) -> None:
    """Zeroes the `amount` of least magnitude, of all arrays or of each (Han et al., "Learning both Weights and
    Connections", NeurIPS 2015)."""
    import numpy as np

    for part in [arrays] if together else [[each] for each in arrays]:
        sizes = np.concatenate([np.abs(each).reshape(-1).astype(np.float32) for each in part])
        count = round(amount * len(sizes))
        gone = np.zeros(len(sizes), dtype=bool)
        gone[np.argpartition(sizes, count - 1)[:count] if count else []] = True
        ends = np.cumsum([each.size for each in part])[:-1]
        for array, which in zip(part, np.split(gone, ends), strict=True):
            array[which.reshape(array.shape)] = 0


def _of_each(array: Any, axis: int, keep: int, of: int) -> None:
    """Zeroes all but the `keep` largest of every `of` neighbours along the inputs (Mishra et al., "Accelerating Sparse
    Deep Neural Networks", 2021); a shorter rest at the end stays."""
    import numpy as np

    rows = np.moveaxis(array, axis, -1)
    whole = rows.shape[-1] // of * of
    blocks = rows[..., :whole].reshape(*rows.shape[:-1], -1, of).copy()
    least = np.argsort(np.abs(blocks), axis=-1, kind="stable")[..., : of - keep]
    np.put_along_axis(blocks, least, 0, axis=-1)
    rows[..., :whole] = blocks.reshape(*rows.shape[:-1], whole)
