"""Models of LightGBM: boosters as its own text, its scikit-learn classes as skops or pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from engine.errors import EngineError
from engine.evaluate.outputs import Outputs
from engine.evaluate.rows import Rows
from engine.scan import mlmodel


class LightgbmSource:
    """What `mlflow.lightgbm.log_model` stores."""

    name = "lightgbm"
    label = "LightGBM"
    environment: str | None = "boosting"

    class Options(BaseModel):
        """None."""

    def load(self, folder: Path) -> Any:
        """A Booster or one of LightGBM's scikit-learn classes. Unpickling runs foreign code: sandbox only."""
        from engine.export.sources.scikit_learn import opened

        lightgbm = _library()
        data = mlmodel.read_yaml(folder / "MLmodel", "MLmodel")
        path = mlmodel.model_path(folder, data)
        if mlmodel.flavor_of(data)[1].get("model_class", "lightgbm.basic.Booster") == "lightgbm.basic.Booster":
            try:
                return lightgbm.Booster(model_file=str(path), params={"verbose": -1})
            except lightgbm.basic.LightGBMError as error:
                raise EngineError(
                    f"LightGBM cannot read this model: {str(error)[:200]}", field="file", code="mlmodel"
                ) from error
        model = opened(path)
        if not isinstance(model, lightgbm.LGBMModel):
            raise EngineError(
                f"The model is a {type(model).__name__[:80]}, none of LightGBM's own.", field="file", code="unsupported"
            )
        return model

    def predictions(self, model: Any, rows: Rows) -> Outputs:
        """Labels and class probabilities of a classifier, numbers (n, 1) of the others."""
        import numpy as np

        from engine.export.sources.columns import matrix_of

        names = [str(name) for name in booster_of(model).feature_name()]
        data = matrix_of(rows, names, len(names))
        labels = self.class_labels(model)
        if labels is None:
            return Outputs(None, np.asarray(model.predict(data), dtype=np.float64).reshape(len(rows), -1))
        if hasattr(model, "predict_proba"):
            return Outputs(np.asarray(model.predict(data)), np.asarray(model.predict_proba(data), dtype=np.float64))
        scores = np.asarray(model.predict(data), dtype=np.float64)
        if scores.ndim == 1:
            scores = np.column_stack([1 - scores, scores])
        return Outputs(scores.argmax(axis=1), scores)

    def class_labels(self, model: Any) -> list[Any] | None:
        """A classifier's own names of classes, 0 .. k-1 for a booster that predicts classes."""
        import numpy as np

        if not isinstance(model, type(booster_of(model))):
            classes = getattr(model, "classes_", None)
            return None if classes is None else np.asarray(classes).tolist()
        head = model.dump_model(num_iteration=1)
        if not str(head.get("objective", "")).startswith(("binary", "multiclass")):
            return None
        return list(range(max(2, int(head["num_class"]))))


def booster_of(model: Any) -> Any:
    """The Booster inside a scikit-learn class, or the model itself."""
    return getattr(model, "booster_", model)


def _library() -> Any:
    """The package. Its wheel, unlike all others here, brings no OpenMP along."""
    try:
        import lightgbm
    except OSError as error:
        raise EngineError(
            f"LightGBM lacks a library of the system ({str(error)[:100]}): install libgomp1.",
            field="exporter",
            code="environment",
        ) from error
    return lightgbm
