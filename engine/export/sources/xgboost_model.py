"""Models of XGBoost: boosters and its scikit-learn classes, both stored as XGBoost's own plain data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from engine.errors import EngineError
from engine.evaluate.outputs import Outputs
from engine.evaluate.rows import Rows
from engine.scan import mlmodel

_CLASSES = ("XGBClassifier", "XGBRegressor", "XGBRFClassifier", "XGBRFRegressor", "XGBRanker")
# What a bare booster needs beside itself to be asked for classes.
_CLASS_OBJECTIVES = ("binary:logistic", "binary:hinge", "multi:softprob", "multi:softmax")


class XgboostSource:
    """What `mlflow.xgboost.log_model` stores: .ubj or .json, never a pickle."""

    name = "xgboost"
    label = "XGBoost"
    environment: str | None = "boosting"

    class Options(BaseModel):
        """None."""

    def load(self, folder: Path) -> Any:
        """An XGBClassifier for whatever predicts classes, an XGBRegressor or XGBRanker otherwise.
        EngineError(field="file") when the file is damaged or its class is not one of XGBoost's own."""
        import xgboost

        data = mlmodel.read_yaml(folder / "MLmodel", "MLmodel")
        path = mlmodel.model_path(folder, data)
        named = str(mlmodel.flavor_of(data)[1].get("model_class", "xgboost.core.Booster"))
        module, _, kind = named.rpartition(".")
        try:
            booster = xgboost.Booster(model_file=str(path))
            if named == "xgboost.core.Booster":
                # A bare booster predicts with all its trees, its scikit-learn class with the best ones.
                booster.set_attr(best_iteration=None, best_score=None)
                return wrapped(booster)
            if module != "xgboost.sklearn" or kind not in _CLASSES:
                raise EngineError(
                    f"The model is a {named[:80]}, none of XGBoost's own.", field="file", code="unsupported"
                )
            model = getattr(xgboost, kind)()
            model.load_model(str(path))
        except (xgboost.core.XGBoostError, ValueError, TypeError, KeyError) as error:
            raise EngineError(
                f"XGBoost cannot read this model: {str(error).strip().splitlines()[-1][:200]}",
                field="file",
                code="mlmodel",
            ) from error
        return model

    def predictions(self, model: Any, rows: Rows) -> Outputs:
        """Labels and class probabilities of a classifier, numbers (n, targets) of the others."""
        import numpy as np
        from sklearn.base import is_classifier

        from engine.export.sources.columns import matrix_of

        booster = model.get_booster()
        data = matrix_of(rows, booster.feature_names, booster.num_features())
        predicted = np.asarray(model.predict(data))
        if not is_classifier(model):
            return Outputs(None, predicted.astype(np.float64).reshape(len(rows), -1))
        return Outputs(predicted, np.asarray(model.predict_proba(data), dtype=np.float64))

    def class_labels(self, model: Any) -> list[Any] | None:
        """0 .. k-1: XGBoost knows no other names of classes."""
        from sklearn.base import is_classifier

        return list(range(int(model.n_classes_))) if is_classifier(model) else None


def wrapped(booster: Any) -> Any:
    """A bare booster as the scikit-learn class for its objective."""
    import xgboost

    kind = xgboost.XGBClassifier if objective_of(booster) in _CLASS_OBJECTIVES else xgboost.XGBRegressor
    booster.set_attr(scikit_learn=None)
    model = kind()
    model.load_model(booster.save_raw("ubj"))
    return model


def objective_of(booster: Any) -> str:
    """As in "binary:logistic"."""
    return str(json.loads(booster.save_config())["learner"]["objective"]["name"])
