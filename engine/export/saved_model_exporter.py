"""SavedModel from Keras and TensorFlow, as one tar of the tree that TensorFlow Serving reads."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from engine.evaluate.outputs import Outputs
from engine.evaluate.rows import Rows
from engine.export.base import Source
from engine.export.on_tensorflow import OnTensorFlow
from engine.formats import archive

_VERSION = "1"  # TensorFlow Serving takes numbered folders and serves the highest


class SavedModelExporter(OnTensorFlow):
    """`1/saved_model.pb` and what belongs to it, with the signature `serving_default`. An artifact is one file, so
    the folder is an uncompressed tar."""

    name = "saved-model"
    label = "SavedModel"
    format = "saved-model"
    file_name = "saved-model.tar"

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")

    def export(self, source: Source, rows: Rows, out: Path, options: Options) -> dict[str, Any]:
        """{"signature", "opset": None, "labels": None}."""
        from engine.export.sources.base import source_of
        from engine.export.sources.tensorflow_model import saved_model, write_saved_model

        graph = source_of(source.framework).load(source.folder)
        with tempfile.TemporaryDirectory() as work:
            folder = Path(work, _VERSION)
            write_saved_model(graph, folder)
            # Carries a random number, and nothing reads it.
            (folder / "fingerprint.pb").unlink(missing_ok=True)
            archive.pack(Path(work), out / self.file_name)
            written = saved_model(folder).signature
        return {"signature": written, "opset": None, "labels": None}

    def score(self, artifact: Path, rows: Rows, labels: list[Any] | None) -> Outputs:
        """Loads the SavedModel out of the tar and asks `serving_default`."""
        from engine.export.sources.tensorflow_model import saved_model

        with tempfile.TemporaryDirectory() as work:
            archive.unpack(artifact, Path(work))
            return saved_model(Path(work, _VERSION)).predictions(rows)
