"""Graph simplification: the same results by fewer operators, standard ones only."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from engine.errors import EngineError
from engine.optimize.base import NOTHING
from engine.optimize.material import Material
from engine.optimize.written import failed, no_gain, operators, write

_CONTROL_FLOW = {"If", "Loop", "Scan", "SequenceMap"}


class Simplify:
    """By onnxslim. Worth most for graphs that came straight from a framework, and before quantization."""

    name = "simplify"
    label = "Simplify the graph"
    family = "acceleration"
    needs = NOTHING
    environment = None

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        fold_constants: bool = Field(True, description="Calculate now what no input changes.")
        fuse: bool = Field(
            True, description="Join operators, such as batch normalization into the convolution before it."
        )
        remove_dead: bool = Field(
            True, description="Remove operators that do nothing: identities, dropout, no-op casts."
        )
        share: bool = Field(True, description="Calculate once what is calculated twice.")
        largest_constant_kb: int = Field(
            1024, ge=1, le=1024**2, description="Results of folding above this size are not stored in the file."
        )

    def optimize(self, model: Path, target: Path, options: Options, material: Material) -> list[str]:
        """EngineError(code="control-flow") for If, Loop and Scan, whose graphs read values of the graph around them;
        (code="no-gain") when no operator can be left out."""
        import onnxslim
        from onnx import inliner

        from engine.scan.onnx_structure import parse

        source = parse(model.read_bytes())
        kinds = operators(source)
        if found := sorted({kind for _, kind in kinds if kind in _CONTROL_FLOW}):
            raise EngineError(
                f"The graph has {', '.join(found)}, and simplification is not safe across them.",
                field="optimizer",
                code="control-flow",
            )
        prepared = inliner.inline_local_functions(source) if source.functions else source
        stored = {each.name for each in source.graph.initializer}
        inputs = [each for each in source.graph.input if each.name not in stored]
        before = operators(prepared).total()
        try:
            slim = onnxslim.slim(
                prepared, skip_optimizations=_left_out(options), size_threshold=options.largest_constant_kb * 1024
            )
        except Exception as error:
            raise failed("The graph cannot be simplified", error) from error
        # onnxslim drops inputs that nothing reads; callers of the model still send them.
        del slim.graph.input[:]
        slim.graph.input.extend(inputs)
        after = operators(slim).total()
        if after >= before:
            raise no_gain("The graph is as simple as this method can make it.")
        write(slim, target)
        return [f"{after} operators instead of {before}."]


def _left_out(options: Simplify.Options) -> list[str]:
    """In onnxslim's names."""
    parts = {
        "constant_folding": options.fold_constants,
        "graph_fusion": options.fuse,
        "dead_node_elimination": options.remove_dead,
        "subexpression_elimination": options.share,
        "weight_tying": options.share,
    }
    return [name for name, wanted in parts.items() if not wanted]
