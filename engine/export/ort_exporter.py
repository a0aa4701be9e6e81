"""ORT format: what ONNX Runtime's small builds for edge devices load."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from engine.errors import EngineError
from engine.evaluate.outputs import Outputs
from engine.evaluate.rows import Rows
from engine.export.on_onnx import OnOnnx


class OrtExporter(OnOnnx):
    """The optimized graph as ONNX Runtime writes it. Its highest level is not used: that fixes the memory layout of
    convolutions (NCHWc) to the processor the file was made on."""

    name = "ort"
    label = "ORT (edge)"
    format = "ort"
    file_name = "model.ort"

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        opset: int | None = Field(None, ge=11, le=30, description="Operator set; empty: the newest that fits.")
        level: Literal["basic", "extended"] = Field(
            "extended",
            description="Extended joins operators for the CPU provider; basic keeps to standard operators.",
        )

    def wrap(self, onnx_file: Path, artifact: Path, described: dict[str, Any], options: Options) -> None:
        import onnxruntime

        levels = onnxruntime.GraphOptimizationLevel
        settings = onnxruntime.SessionOptions()
        settings.graph_optimization_level = (
            levels.ORT_ENABLE_EXTENDED if options.level == "extended" else levels.ORT_ENABLE_BASIC
        )
        settings.optimized_model_filepath = str(artifact)
        settings.add_session_config_entry("session.save_model_format", "ORT")
        settings.intra_op_num_threads = 1
        settings.log_severity_level = 4
        try:
            onnxruntime.InferenceSession(onnx_file.read_bytes(), settings, providers=["CPUExecutionProvider"])
        except Exception as error:
            # ONNX Runtime raises a dozen unrelated types.
            from engine.sandbox.text import neutral

            raise EngineError(
                f"ONNX Runtime cannot save this model. {neutral(error)}", field="exporter", code="unsupported"
            ) from error

    def score(self, artifact: Path, rows: Rows, labels: list[Any] | None) -> Outputs:
        """Loads the .ort file itself."""
        from engine.evaluate import outputs

        session = ort_session(artifact.read_bytes())
        return outputs.run_all(session, signature_of(session), rows)


def ort_session(content: bytes) -> Any:
    """An onnxruntime.InferenceSession of an ORT file, which is not optimized again."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.log_severity_level = 4
    settings.add_session_config_entry("session.load_model_format", "ORT")
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])


def signature_of(session: Any) -> dict[str, Any]:
    """Signature of a session's tensors, sequences of them and maps; EngineError for anything else."""
    from engine.formats import signature

    def side(nodes: Any) -> list[dict[str, Any]]:
        found = []
        for node in nodes:
            if node.type.startswith("seq(map("):
                found.append(signature.tensor(node.name, "BYTES", [-1], signature.MAPS))
                continue
            told = signature.SEQUENCE if node.type.startswith("seq(") else ""
            kind = node.type.removeprefix("seq(").removeprefix("tensor(").rstrip(")")
            kind = {"float": "float32", "double": "float64", "string": "object"}.get(kind, kind)
            shape = [size if isinstance(size, int) else -1 for size in node.shape or []]
            axis = [-1] if told else []
            found.append(signature.tensor(node.name, signature.of_numpy(kind), [*axis, *shape], told))
        return found

    return {"inputs": side(session.get_inputs()), "outputs": side(session.get_outputs())}
