"""Trains small XGBoost and LightGBM models and stores them as MLflow 3.17.2 does. Run in the environment `boosting`.

`python boosted_models.py FOLDER` makes one folder a model: the MLflow folder `source` (the flavor's block of MLmodel
is what `mlflow.xgboost.save_model` and `mlflow.lightgbm.save_model` write), `rows.csv`, and `expected.npy`, which the
library itself predicts for the rows as float32.
"""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import skops.io
import xgboost
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

ROOT = Path(sys.argv[1])
CANCER, CANCER_Y = load_breast_cancer(return_X_y=True)
IRIS, IRIS_Y = load_iris(return_X_y=True, as_frame=True)
IRIS_WORDS = IRIS_Y.map(dict(enumerate(load_iris().target_names)))
DIABETES, DIABETES_Y = load_diabetes(return_X_y=True)
QUIET = {"verbose": -1, "num_threads": 1}


def store(name: str, model: Any, x: Any, kind: str = "", flavor: dict[str, Any] | None = None) -> None:
    """kind: how the file is written: "ubj", "json", "lgb", "skops" or "pkl"."""
    folder = ROOT / name / "source"
    folder.mkdir(parents=True)
    library = name.split("-")[0]
    file = f"model.{kind}"
    if kind == "skops":
        skops.io.dump(model, folder / file)
    elif kind == "pkl":
        (folder / file).write_bytes(pickle.dumps(model))
    else:
        model.save_model(str(folder / file))
    cls = f"{type(model).__module__}.{type(model).__name__}"
    if library == "xgboost":
        block = {"code": None, "data": file, "model_class": cls, "model_format": kind, "xgb_version": "3.2.0"}
    else:
        form = "cloudpickle" if kind == "pkl" else "skops"
        block = {"code": None, "data": file, "lgb_version": "4.7.0", "model_class": cls, "serialization_format": form}
    frame = x if isinstance(x, pd.DataFrame) else pd.DataFrame(x, columns=[f"x{i}" for i in range(x.shape[1])])
    inputs = [{"type": "double", "name": str(column), "required": True} for column in frame.columns]
    generic = {"data": file, "loader_module": f"mlflow.{library}", "python_version": "3.11.7"}
    described = {
        "flavors": flavor or {library: block, "python_function": generic},
        "mlflow_version": "3.17.2",
        "signature": {"inputs": json.dumps(inputs), "outputs": None, "params": None},
    }
    (folder / "MLmodel").write_text(json.dumps(described))
    frame.to_csv(ROOT / name / "rows.csv", index=False)
    matrix = frame.to_numpy(dtype=np.float32)
    if isinstance(model, xgboost.Booster):
        expected = model.predict(xgboost.DMatrix(matrix, feature_names=model.feature_names))
    elif hasattr(model, "predict_proba"):
        expected = model.predict_proba(pd.DataFrame(matrix, columns=frame.columns) if x is frame else matrix)
    else:
        expected = model.predict(matrix)
    np.save(ROOT / name / "expected.npy", expected)


def holes(x: Any) -> Any:
    x = np.array(x)
    x[np.random.default_rng(0).random(x.shape) < 0.2] = np.nan
    return x


def xgboosts() -> None:
    classifier = {"n_estimators": 20, "n_jobs": 1}
    binary = {"objective": "binary:logistic", "nthread": 1}
    multi = {"num_class": 3, "nthread": 1}
    cancer, iris = xgboost.DMatrix(CANCER, CANCER_Y), xgboost.DMatrix(IRIS, IRIS_Y)
    store("xgboost-classifier-cancer", xgboost.XGBClassifier(**classifier).fit(CANCER, CANCER_Y), CANCER, "ubj")
    store("xgboost-classifier-iris", xgboost.XGBClassifier(**classifier).fit(IRIS, IRIS_Y), IRIS, "ubj")
    store(
        "xgboost-classifier-holes",
        xgboost.XGBClassifier(**classifier).fit(holes(CANCER), CANCER_Y),
        holes(CANCER),
        "ubj",
    )
    early = xgboost.XGBClassifier(n_estimators=200, learning_rate=0.5, early_stopping_rounds=3, n_jobs=1)
    early.fit(IRIS[::2], IRIS_Y[::2], eval_set=[(IRIS[1::2], IRIS_Y[1::2])], verbose=False)
    store("xgboost-classifier-early", early, IRIS, "ubj")
    store(
        "xgboost-regressor-diabetes",
        xgboost.XGBRegressor(n_estimators=150, n_jobs=1).fit(DIABETES, DIABETES_Y),
        DIABETES,
        "ubj",
    )
    store("xgboost-booster-cancer", xgboost.train(binary, cancer, 20), CANCER, "json")
    store("xgboost-booster-iris", xgboost.train({"objective": "multi:softprob", **multi}, iris, 20), IRIS, "ubj")
    store("xgboost-booster-winner", xgboost.train({"objective": "multi:softmax", **multi}, iris, 20), IRIS, "ubj")
    diabetes = xgboost.DMatrix(DIABETES, DIABETES_Y)
    store(
        "xgboost-booster-poisson",
        xgboost.train({"objective": "count:poisson", "nthread": 1}, diabetes, 20),
        DIABETES,
        "ubj",
    )
    forest = xgboost.XGBRFClassifier(n_estimators=5, n_jobs=1).fit(IRIS, IRIS_Y)
    store("xgboost-refused-forest", forest, IRIS, "ubj")
    store("xgboost-refused-dart", xgboost.train({"booster": "dart", **binary}, cancer, 5), CANCER, "ubj")
    two = xgboost.XGBRegressor(n_estimators=5, n_jobs=1).fit(DIABETES, np.c_[DIABETES_Y, -DIABETES_Y])
    store("xgboost-refused-targets", two, DIABETES, "ubj")
    flavor = {"sklearn": {"pickled_model": "model.pkl", "sklearn_version": "1.9.0"}}
    pipeline = make_pipeline(StandardScaler(), xgboost.XGBClassifier(**classifier)).fit(CANCER, CANCER_Y)
    store("xgboost-pipeline-pkl", pipeline, CANCER, "pkl", flavor)


def lightgbms() -> None:
    few = {"n_estimators": 20, "n_jobs": 1, "verbose": -1}
    cancer, iris = lightgbm.Dataset(CANCER, CANCER_Y), lightgbm.Dataset(IRIS, IRIS_Y)
    store("lightgbm-classifier-cancer", lightgbm.LGBMClassifier(**few).fit(CANCER, CANCER_Y), CANCER, "pkl")
    store("lightgbm-classifier-iris", lightgbm.LGBMClassifier(**few).fit(IRIS, IRIS_WORDS), IRIS, "skops")
    store("lightgbm-classifier-bool", lightgbm.LGBMClassifier(**few).fit(CANCER, CANCER_Y > 0), CANCER, "skops")
    store(
        "lightgbm-classifier-holes", lightgbm.LGBMClassifier(**few).fit(holes(CANCER), CANCER_Y), holes(CANCER), "skops"
    )
    early = lightgbm.LGBMClassifier(**{**few, "n_estimators": 200, "learning_rate": 0.5})
    stop = [lightgbm.early_stopping(3, verbose=False)]
    early.fit(IRIS[::2], IRIS_Y[::2], eval_set=[(IRIS[1::2], IRIS_Y[1::2])], callbacks=stop)
    store("lightgbm-classifier-early", early, IRIS, "pkl")
    many = lightgbm.LGBMRegressor(**{**few, "n_estimators": 250}).fit(DIABETES, DIABETES_Y)
    store("lightgbm-regressor-diabetes", many, DIABETES, "skops")
    store("lightgbm-booster-diabetes", many.booster_, DIABETES, "lgb")
    store("lightgbm-booster-cancer", lightgbm.train({"objective": "binary", **QUIET}, cancer, 20), CANCER, "lgb")
    multi = lightgbm.train({"objective": "multiclass", "num_class": 3, **QUIET}, iris, 20)
    store("lightgbm-booster-iris", multi, IRIS, "lgb")
    store("lightgbm-booster-edges", multi, edges(multi), "lgb")
    zero = lightgbm.Dataset(np.round(CANCER), CANCER_Y)
    params = {"objective": "binary", "zero_as_missing": True, **QUIET}
    store("lightgbm-refused-zero", lightgbm.train(params, zero, 5), np.round(CANCER), "lgb")
    params = {"objective": "binary", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6, **QUIET}
    store("lightgbm-refused-forest", lightgbm.train(params, lightgbm.Dataset(CANCER, CANCER_Y), 5), CANCER, "lgb")
    store(
        "lightgbm-refused-sigmoid", lightgbm.LGBMClassifier(**few, sigmoid=2.0).fit(CANCER, CANCER_Y), CANCER, "skops"
    )
    ova = lightgbm.LGBMClassifier(**few, objective="multiclassova").fit(IRIS, IRIS_Y)
    store("lightgbm-refused-ova", ova, IRIS, "skops")
    linear = lightgbm.LGBMRegressor(**few, linear_tree=True).fit(DIABETES, DIABETES_Y)
    store("lightgbm-refused-linear", linear, DIABETES, "skops")
    flavor = {"sklearn": {"pickled_model": "model.skops", "sklearn_version": "1.9.0"}}
    pipeline = make_pipeline(StandardScaler(), lightgbm.LGBMClassifier(**few)).fit(CANCER, CANCER_Y)
    store("lightgbm-pipeline-skops", pipeline, CANCER, "skops", flavor)


def edges(booster: Any) -> Any:
    """Rows that lie on a threshold of the model, as the float32 next to it: where a rounding error turns them."""
    splits = booster.trees_to_dataframe().dropna(subset=["threshold"])
    rows = np.tile(IRIS.to_numpy().mean(axis=0), (len(splits), 1))
    columns = [booster.feature_name().index(name) for name in splits.split_feature]
    rows[np.arange(len(rows)), columns] = splits.threshold.astype(np.float32)
    return rows


if __name__ == "__main__":
    xgboosts()
    lightgbms()
