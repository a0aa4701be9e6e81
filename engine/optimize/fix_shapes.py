"""Fixed shapes: free dimensions get one size, so that a runtime can plan memory and fold shape arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from engine.errors import EngineError
from engine.optimize.base import NOTHING
from engine.optimize.material import Material
from engine.optimize.written import failed, no_gain, write

Size = Annotated[int, Field(ge=1, le=1_000_000)]


class FixShapes:
    """Wanted by edge runtimes, and good before "simplify". The model then takes that number of rows and no other."""

    name = "fix-shapes"
    label = "Fix input shapes"
    family = "acceleration"
    needs = NOTHING
    environment = None

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        batch: int | None = Field(1, ge=1, le=4096, description="Rows in a call; empty: their number stays free.")
        dimensions: dict[str, Size] = Field(
            {}, max_length=64, description="Sizes of other free dimensions by their names in the model."
        )

    def optimize(self, model: Path, target: Path, options: Options, material: Material) -> list[str]:
        """EngineError(field="dimensions") for a name that no input has, (code="no-gain") when all was fixed before."""
        import onnx

        from engine.scan.onnx_structure import parse

        source = parse(model.read_bytes())
        sizes = _sizes(source.graph, options)
        changed = _fix_first(source.graph, options.batch) + _fix_named(source, sizes)
        if not changed:
            raise no_gain("The inputs of the model have no free dimension to fix.")
        # Inferred anew from the inputs: what was noted before would keep the dimensions free.
        del source.graph.value_info[:]
        try:
            fixed = onnx.shape_inference.infer_shapes(source, data_prop=True)
        except Exception as error:
            raise failed("These sizes do not fit the model", error) from error
        write(fixed, target)
        notes = [f"Takes {_described(fixed.graph)}, and no other shape."]
        if free := sorted({dim.dim_param or "?" for dim in _free(fixed.graph.input)}):
            notes.append(f"Still free: {', '.join(free)}.")
        return notes


def _sizes(graph: Any, options: FixShapes.Options) -> dict[str, int]:
    """{name: size} of the dimensions to fix; a name given for itself counts more than the batch."""
    names = {dim.dim_param for dim in _free(graph.input)} - {""}
    for name in options.dimensions:
        if name not in names:
            known = ", ".join(sorted(names)) or "none"
            raise EngineError(
                f"No input has a free dimension named '{name[:40]}' (there are: {known}).",
                field="dimensions",
                code="unknown",
            )
    firsts = {dims[0].dim_param for dims in map(_dims, graph.input) if len(dims)} - {""}
    batch = {} if options.batch is None else dict.fromkeys(firsts, options.batch)
    return {**batch, **options.dimensions}


def _fix_first(graph: Any, batch: int | None) -> int:
    """First dimensions of inputs that are free and have no name; how many there were."""
    found = [dims[0] for dims in map(_dims, graph.input) if len(dims) and not dims[0].WhichOneof("value")]
    for dim in found if batch is not None else ():
        dim.dim_value = batch
    return len(found) if batch is not None else 0


def _fix_named(model: Any, sizes: dict[str, int]) -> int:
    """Every dimension with one of the names, nested graphs included; how many there were."""
    from engine.scan.onnx_structure import graphs

    count = 0
    for graph, _ in graphs(model):
        if graph.DESCRIPTOR.name == "GraphProto":
            for dim in _free([*graph.input, *graph.output, *graph.value_info]):
                if dim.dim_param in sizes:
                    dim.dim_value = sizes[dim.dim_param]
                    count += 1
    return count


def _free(values: Any) -> Iterator[Any]:
    """Dimensions of tensors without a size."""
    for value in values:
        yield from [dim for dim in _dims(value) if not dim.HasField("dim_value")]


def _dims(value: Any) -> Any:
    return value.type.tensor_type.shape.dim


def _described(graph: Any) -> str:
    """ "input 1×1×8×8"; stored tensors that are also inputs are left out."""
    stored = {each.name for each in graph.initializer}
    inputs = [each for each in graph.input if each.name not in stored]
    return ", ".join(
        f"{each.name} {'×'.join(str(dim.dim_value or dim.dim_param or '?') for dim in _dims(each))}" for each in inputs
    )
