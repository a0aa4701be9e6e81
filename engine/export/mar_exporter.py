"""A TorchServe model archive: the TorchScript file, a handler for V2 tensors, and the manifest TorchServe reads."""

from __future__ import annotations

import importlib.util
import json
import tempfile
import types
import zipfile
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from engine.errors import EngineError
from engine.evaluate import outputs
from engine.evaluate.outputs import Outputs
from engine.evaluate.rows import Rows
from engine.export.base import Source
from engine.export.on_torch import OnTorch
from engine.export.torchscript_exporter import Method, write_script

_HANDLER = Path(__file__).with_name("torchserve") / "slipway_handler.py"
_BATCH = 64


class MarExporter(OnTorch):
    """One .mar file that a TorchServe takes from its model store."""

    name = "mar"
    label = "TorchServe archive"
    format = "mar"
    file_name = "model.mar"

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        archive_name: str = Field(
            "model", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="Name that the manifest gives the model."
        )
        archive_version: str = Field("1.0", pattern=r"^[0-9]{1,6}(\.[0-9]{1,6}){0,2}$", description="As in 1.0.")
        method: Method = Field("auto", description="How TorchScript is made: script, trace, or auto.")

    def export(self, source: Source, rows: Rows, out: Path, options: Options) -> dict[str, Any]:
        """{"signature", "opset": None, "labels": None, "method"}."""
        from engine.export.sources.base import source_of

        model = source_of(source.framework).load(source.folder)
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder) / "model.pt"
            described, method = write_script(model, rows, script, options.method)
            # As torch-model-archiver 0.12 writes it, without the time: the same model gives the same bytes.
            manifest = {
                "runtime": "python",
                "model": {
                    "modelName": options.archive_name,
                    "serializedFile": script.name,
                    "handler": _HANDLER.name,
                    "modelVersion": options.archive_version,
                },
                "archiverVersion": "0.12.0",
            }
            with zipfile.ZipFile(out / self.file_name, "w") as archive:
                _add(archive, script.name, script.read_bytes())
                _add(archive, _HANDLER.name, _HANDLER.read_bytes())
                _add(archive, "signature.json", json.dumps(described, indent=2).encode())
                _add(archive, "MAR-INF/MANIFEST.json", json.dumps(manifest, indent=2).encode())
        return {"signature": described, "opset": None, "labels": None, "method": method}

    def score(self, artifact: Path, rows: Rows, labels: list[Any] | None) -> Outputs:
        """Unpacks the archive and asks its handler, as TorchServe does."""
        import numpy as np

        with tempfile.TemporaryDirectory() as folder:
            with zipfile.ZipFile(artifact) as archive:
                archive.extractall(folder)
            handler, described = _started(Path(folder))
            arrays = outputs.feeds(described, rows)
            parts: list[list[Any]] = []
            for start in range(0, len(rows), _BATCH):
                part = {name: values[start : start + _BATCH] for name, values in arrays.items()}
                parts.append(_asked(handler, described, part))
        return outputs.of_arrays([np.concatenate(each) for each in zip(*parts, strict=True)])


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    # A fixed time, for the same bytes each time.
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, content)


def _started(folder: Path) -> tuple[Any, Any]:
    """(the archive's handler, initialized; its signature)."""
    manifest = json.loads((folder / "MAR-INF" / "MANIFEST.json").read_text())
    spec = importlib.util.spec_from_file_location("slipway_handler", folder / manifest["model"]["handler"])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    handler = module.SlipwayHandler()
    properties = {"model_dir": str(folder), "gpu_id": None}
    handler.initialize(types.SimpleNamespace(system_properties=properties, manifest=manifest))
    return handler, json.loads((folder / "signature.json").read_text())


def _asked(handler: Any, described: Any, arrays: dict[str, Any]) -> list[Any]:
    """One request through JSON and back: arrays of the outputs."""
    import numpy as np

    from engine.formats.signature import NUMPY

    inputs = [
        {
            "name": each["name"],
            "datatype": each["datatype"],
            "shape": list(arrays[each["name"]].shape),
            "data": arrays[each["name"]].reshape(-1).tolist(),
        }
        for each in described["inputs"]
    ]
    nothing = types.SimpleNamespace(set_response_status=lambda **status: None)
    answer = handler.handle([{"body": json.dumps({"inputs": inputs}).encode()}], nothing)[0]
    if "error" in answer:
        raise EngineError(f"The archive's handler refuses the rows: {answer['error']}", field="exporter", code="parity")
    return [np.array(each["data"], dtype=NUMPY[each["datatype"]]).reshape(each["shape"]) for each in answer["outputs"]]
