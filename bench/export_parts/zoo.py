"""Small real models on packaged data, each stored as MLflow stores it. Run by the interpreter that has the framework:

    python zoo.py KIND FOLDER

KIND is one of `sklearn`, `xgboost`, `pytorch`, `keras`; FOLDER gets a folder for each model, with `rows.npz` or
`rows.csv` in it. Only data that comes with scikit-learn is used.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def write_digits(file: Path) -> None:
    """float32 X [1797, 64] in 0..1, and the digit y of each."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    np.savez(file, X=(x / 16).astype(np.float32), y=y)


def digits(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """What `write_digits` left beside a kind's folder: not every environment has scikit-learn."""
    data = np.load(folder.parent / "digits.npz")
    return data["X"], data["y"]


def mlmodel(folder: Path, flavor: str, block: dict[str, Any], shape: list[int] | None) -> None:
    """The MLmodel file; a tensor signature where the model takes more than a row of columns."""
    signature: dict[str, str] = {}
    if shape:
        spec = {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": shape}}
        out = {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 10]}}
        signature = {"inputs": json.dumps([spec]), "outputs": json.dumps([out])}
    described = {"flavors": {flavor: block, "python_function": {"loader_module": f"mlflow.{flavor}"}}}
    # JSON is YAML, too.
    (folder / "MLmodel").write_text(json.dumps({**described, **({"signature": signature} if signature else {})}))


def sklearn(folder: Path) -> None:
    """An MLP, a forest and boosted trees on tables, and a text pipeline on the descriptions of scikit-learn's data."""
    import joblib
    from sklearn import datasets, ensemble, linear_model, neural_network, pipeline, preprocessing
    from sklearn.feature_extraction.text import TfidfVectorizer

    x, y = digits(folder)
    cancer, malignant = datasets.load_breast_cancer(return_X_y=True)
    texts, sources = sentences()
    network = pipeline.make_pipeline(preprocessing.StandardScaler(), neural_network.MLPClassifier((64,), max_iter=60))
    models: dict[str, tuple[Any, Any, Any]] = {
        "digits MLP": (network, x, y),
        "digits forest": (ensemble.RandomForestClassifier(60, random_state=0), x, y),
        "boosted table": (ensemble.GradientBoostingClassifier(random_state=0), cancer.astype(np.float32), malignant),
        "text pipeline": (
            pipeline.make_pipeline(TfidfVectorizer(), linear_model.LogisticRegression()), texts, sources,
        ),
    }  # fmt: skip
    for name, (model, rows, labels) in models.items():
        place = folder / name
        place.mkdir()
        joblib.dump(model.fit(rows, labels), place / "model.pkl")
        mlmodel(place, "sklearn", {"pickled_model": "model.pkl", "serialization_format": "cloudpickle"}, None)
        if name == "text pipeline":
            quoted = "\n".join('"' + text.replace('"', '""') + '"' for text in rows)
            (place / "rows.csv").write_text(f"text\n{quoted}\n")
        else:
            np.savez(place / "rows.npz", X=rows, y=labels)


def sentences() -> tuple[list[str], list[str]]:
    """Lines of the descriptions that come with scikit-learn's data sets, and the set each is from."""
    from sklearn import datasets

    texts, sources = [], []
    loaders: dict[str, Callable[[], Any]] = {
        "iris": datasets.load_iris, "wine": datasets.load_wine, "cancer": datasets.load_breast_cancer,
        "diabetes": datasets.load_diabetes, "digits": datasets.load_digits,
    }  # fmt: skip
    for name, load in loaders.items():
        for line in load().DESCR.splitlines():
            line = " ".join("".join(c if c.isascii() and c.isalpha() else " " for c in line).split())
            if len(line) > 20:
                texts.append(line)
                sources.append(name)
    return texts, sources


def xgboost(folder: Path) -> None:
    """Boosted trees on digits [-1, 64]."""
    import xgboost as boosting

    x, y = digits(folder)
    place = folder / "XGBoost digits"
    place.mkdir()
    boosting.XGBClassifier(n_estimators=30, max_depth=4, n_jobs=1).fit(x, y).save_model(place / "model.ubj")
    block = {"data": "model.ubj", "model_class": "xgboost.sklearn.XGBClassifier", "xgb_version": boosting.__version__}
    mlmodel(place, "xgboost", block, [-1, 64])
    np.savez(place / "rows.npz", X=x, y=y)


def pytorch(folder: Path) -> None:
    """A CNN on digits [-1, 1, 8, 8]."""
    import torch

    torch.manual_seed(0)
    x, y = digits(folder)
    pictures = x.reshape(-1, 1, 8, 8)
    nn = torch.nn
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 10)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.from_numpy(pictures)), torch.from_numpy(y)).backward()
        optimizer.step()
    place = folder / "torch CNN"
    (place / "data").mkdir(parents=True)
    torch.jit.save(torch.jit.script(model.eval()), place / "data" / "model.pth")
    mlmodel(place, "pytorch", {"model_data": "data", "pytorch_version": torch.__version__}, [-1, 1, 8, 8])
    np.savez(place / "rows.npz", X=x, y=y)


def keras(folder: Path) -> None:
    """A CNN on digits [-1, 8, 8, 1]."""
    import keras as k

    k.utils.set_random_seed(0)
    x, y = digits(folder)
    layers = [k.Input((8, 8, 1)), k.layers.Conv2D(16, 3, activation="relu"), k.layers.Flatten()]
    model = k.Sequential([*layers, k.layers.Dense(10, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x.reshape(-1, 8, 8, 1), y, epochs=4, verbose=0)
    place = folder / "Keras CNN"
    (place / "data").mkdir(parents=True)
    model.save(place / "data" / "model.keras")
    (place / "data" / "keras_module.txt").write_text("keras")
    mlmodel(place, "keras", {"data": "data", "keras_version": k.__version__}, [-1, 8, 8, 1])
    np.savez(place / "rows.npz", X=x, y=y)


if __name__ == "__main__":
    {"sklearn": sklearn, "xgboost": xgboost, "pytorch": pytorch, "keras": keras}[sys.argv[1]](Path(sys.argv[2]))
