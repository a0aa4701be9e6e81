"""PMML documents: scored by jpmml-evaluator, in the environment and process that PMML export uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from engine.errors import EngineError
from engine.evaluate.outputs import Outputs
from engine.evaluate.rows import Rows


class PmmlSource:
    """The one .pmml file of a folder, or the file itself."""

    name = "pmml"
    label = "PMML"
    environment: str | None = "pmml"
    complete = True

    class Options(BaseModel):
        """None."""

    def load(self, folder: Path) -> Path:
        """The file's path."""
        if folder.is_file():
            return folder
        found = sorted(folder.rglob("*.pmml"))
        if len(found) != 1:
            raise EngineError(f"The model has {len(found)} .pmml files instead of one.", field="file", code="pmml")
        return found[0]

    def predictions(self, model: Path, rows: Rows) -> Outputs:
        """Labels and probabilities of a classification, numbers of a regression, as Java gives them."""
        from engine.export.pmml_exporter import pmml_outputs

        return pmml_outputs(model, rows, self.class_labels(model))

    def class_labels(self, model: Path) -> list[Any] | None:
        """In the order of the DataDictionary; EngineError for a file that is not safe to read."""
        from engine.scan import pmml

        return pmml.class_labels(pmml.read(model))
