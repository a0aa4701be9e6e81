"""A model repository of the Triton inference server: `<name>/config.pbtxt` and `<name>/1/model.onnx`, as one tar."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from engine.errors import EngineError
from engine.evaluate.outputs import Outputs
from engine.evaluate.rows import Rows
from engine.export.on_onnx import OnOnnx


class TritonExporter(OnOnnx):
    """Triton batches requests where every tensor has a free first dimension."""

    name = "triton"
    label = "Triton repository"
    format = "triton"
    file_name = "triton.tar"

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        opset: int | None = Field(None, ge=11, le=30, description="Operator set; empty: the newest that fits.")
        model_name: str = Field(
            "model", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", description="What Triton calls the model."
        )
        max_batch_size: int = Field(64, ge=0, le=65536, description="Most rows in a batch; 0: Triton never batches.")

    def wrap(self, onnx_file: Path, artifact: Path, described: dict[str, Any], options: Options) -> None:
        """EngineError for outputs that are no tensors: Triton knows nothing else."""
        from engine.formats import archive
        from engine.scan import onnx_structure

        for value in onnx_structure.parse(onnx_file.read_bytes()).graph.output:
            if value.type.WhichOneof("value") != "tensor_type":
                raise EngineError(
                    f"Triton takes tensors only; the output '{onnx_structure.name_of(value.name)}' is none.",
                    field="exporter",
                    code="unsupported",
                )
        with tempfile.TemporaryDirectory(dir=artifact.parent) as made:
            folder = Path(made) / options.model_name
            (folder / "1").mkdir(parents=True)
            (folder / "config.pbtxt").write_text(config(described, options.model_name, options.max_batch_size), "ascii")
            shutil.copyfile(onnx_file, folder / "1" / "model.onnx")
            archive.pack(Path(made), artifact)

    def score(self, artifact: Path, rows: Rows, labels: list[Any] | None) -> Outputs:
        """Runs the ONNX file out of the archive."""
        import tarfile

        from engine.export.sources.onnx_file import onnx_outputs

        with tarfile.open(artifact) as archive, tempfile.TemporaryDirectory(dir=artifact.parent) as folder:
            inside = next(name for name in archive.getnames() if name.endswith("/1/model.onnx"))
            content = archive.extractfile(inside)
            assert content is not None
            path = Path(folder) / "model.onnx"
            path.write_bytes(content.read())
            return onnx_outputs(path, rows)


def config(described: dict[str, Any], name: str, max_batch_size: int) -> str:
    """The text of config.pbtxt, in ASCII. With batching, dimensions are those of one row; a tensor that has no other
    is [1] for Triton and reshaped for the model."""
    tensors = [*described["inputs"], *described["outputs"]]
    batches = max_batch_size > 0 and all(each["shape"][:1] == [-1] for each in tensors)
    lines = [f"name: {_quoted(name)}", 'backend: "onnxruntime"', 'default_model_filename: "model.onnx"']
    lines.append(f"max_batch_size: {max_batch_size if batches else 0}")
    for side, entries in (("input", described["inputs"]), ("output", described["outputs"])):
        for each in entries:
            kind = "STRING" if each["datatype"] == "BYTES" else each["datatype"]
            shape = each["shape"][1:] if batches else each["shape"]
            dims = ", ".join(str(size) for size in shape or [1])
            lines += [
                f"{side} {{",
                f"  name: {_quoted(each['name'])}",
                f"  data_type: TYPE_{kind}",
                f"  dims: [ {dims} ]",
            ]
            lines += ["  reshape { shape: [ ] }"] if not shape else []
            lines.append("}")
    # An empty block is what turns it on: Triton then joins requests that are waiting, and waits for none.
    lines += ["dynamic_batching { }"] if batches else []
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A string of protobuf's text format: bytes that are not plain are octal."""
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}" for byte in text.encode())
    return f'"{"".join(plain)}"'
