"""Models of scikit-learn: loaded in the sandbox and asked for predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from engine.errors import EngineError
from engine.evaluate.outputs import Outputs
from engine.evaluate.rows import Rows
from engine.scan import mlmodel
from engine.scan.allowed import judge
from engine.scan.magic import kind_of_file


class SklearnSource:
    """Estimators and pipelines, stored as skops or pickle."""

    name = "sklearn"
    label = "scikit-learn"
    environment: str | None = None

    class Options(BaseModel):
        """None."""

    def load(self, folder: Path) -> Any:
        """The fitted estimator of an MLflow model folder. Unpickling runs foreign code: sandbox only."""
        path = mlmodel.model_path(folder, mlmodel.read_yaml(folder / "MLmodel", "MLmodel"))
        return opened(path)

    def predictions(self, model: Any, rows: Rows) -> Outputs:
        """Labels and class probabilities of a classifier, numbers of a regressor."""
        import numpy as np
        from sklearn.base import is_classifier

        data = model_input(model, rows)
        predicted = np.asarray(model.predict(data))
        if not is_classifier(model):
            if predicted.dtype.kind in "iu":
                return Outputs(predicted, None)
            return Outputs(None, predicted.astype(np.float64).reshape(len(rows), -1))
        scores = None
        if hasattr(model, "predict_proba"):
            scores = np.asarray(model.predict_proba(data), dtype=np.float64)
        return Outputs(predicted, scores)

    def class_labels(self, model: Any) -> list[Any] | None:
        """Class names in the order of the scores, as JSON values; None for anything but one-target classifiers."""
        import numpy as np

        classes = getattr(model, "classes_", None)
        if classes is None or isinstance(classes, list):
            return None
        return np.asarray(classes).tolist()


def opened(path: Path) -> Any:
    """The object of a skops file or a pickle. EngineError naming the package that it needs and that is not here."""
    import joblib

    try:
        return _from_skops(path) if kind_of_file(path) == "zip archive" else joblib.load(path)
    except ModuleNotFoundError as error:
        raise EngineError(
            f"The model needs the package {str(error.name).split('.')[0]}, which is not installed here.",
            field="file",
            code="environment",
        ) from error


def _from_skops(path: Path) -> Any:
    import skops.io

    types = [str(each) for each in skops.io.get_untrusted_types(file=path)]
    bad = [each for each in types if judge(*each.rpartition(".")[::2]) == "dangerous"]
    if bad:
        raise EngineError(f"The model calls {bad[0]}.", field="file", code="untrusted")
    return skops.io.load(path, trusted=types)


def model_input(estimator: Any, rows: Rows) -> Any:
    """Rows in the shape the estimator was fitted on: texts, a data frame, or a matrix."""
    import pandas

    if rows.matrix is None and len(rows.columns) == 1:
        return rows.column(rows.columns[0])
    names = getattr(estimator, "feature_names_in_", None)
    if rows.matrix is not None and names is None:
        wanted = getattr(estimator, "n_features_in_", rows.matrix.shape[1])
        if rows.matrix.shape[1] != wanted:
            raise EngineError(
                f"The rows have {rows.matrix.shape[1]} columns, the model takes {wanted}.", field="rows", code="rows"
            )
        return rows.matrix
    columns = rows.columns if names is None else [str(name) for name in names]
    if rows.matrix is not None and len(rows.columns) == len(columns) and not set(columns) <= set(rows.columns):
        # Numbers without names (npz): by position.
        return pandas.DataFrame(rows.matrix, columns=columns)
    return pandas.DataFrame({name: rows.column(name) for name in columns})
