"""Two small networks that really tell digits apart, and what the tests of optimizers ask of a file."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from engine.evaluate.outputs import run_all
from engine.evaluate.rows import Rows
from engine.formats import signature
from engine.optimize.material import Material
from engine.plugins import options_of
from engine.scan import onnx_run
from engine.scan.tasks import check_onnx_file

_X, _Y = load_digits(return_X_y=True)
ROWS = Rows([f"x{i}" for i in range(64)], (_X / 16).astype(np.float32), None, _Y)
SEEN, UNSEEN = ROWS.take(slice(0, 1000)), ROWS.take(slice(1000, None))
MATERIAL = Material(task="image-classification", calibration=SEEN.head(128), training=SEEN)


@dataclass(frozen=True)
class Made:
    """A checked variant, in a file."""

    path: Path
    notes: list[str]
    ratio: float  # of its size to its parent's

    @property
    def model(self) -> Any:
        return onnx.load(str(self.path))

    @property
    def domains(self) -> set[str]:
        return {node.domain for node in self.model.graph.node}

    def kinds(self) -> list[str]:
        return [node.op_type for node in self.model.graph.node]


def make(plugin: Any, source: Path, target: Path, material: Material = MATERIAL, **options: Any) -> Made:
    """What the task does for one step, and the check that every variant has to pass."""
    notes = plugin.optimize(source, target, options_of(plugin, options), material)
    check_onnx_file(target)
    return Made(target, notes, target.stat().st_size / source.stat().st_size)


def scores(path: Path, rows: Rows = UNSEEN) -> Any:
    content = path.read_bytes()
    return run_all(onnx_run.session(content), signature.of_onnx(onnx.load_from_string(content)), rows).scores


def accuracy(path: Path) -> float:
    return float(np.mean(scores(path).argmax(axis=1) == UNSEEN.y))


def model_of(nodes: Sequence[Any], weights: dict[str, Any], shape: Sequence[Any], opset: int = 17) -> Any:
    """From input "x" of `shape` to output "y"; weights by name."""
    stored = [
        numpy_helper.from_array(v if v.dtype.kind == "i" else v.astype(np.float32), name) for name, v in weights.items()
    ]
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("x", 1, list(shape))],
        [helper.make_tensor_value_info("y", 1, [shape[0], None])],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def mlp(path: Path) -> Path:
    """A scaler (an operator of another domain) and a network, as skl2onnx makes them, with a ZipMap at the end."""
    from skl2onnx import to_onnx

    network = MLPClassifier((192, 96), max_iter=25, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = make_pipeline(StandardScaler(), network).fit(SEEN.matrix, SEEN.y)
    path.write_bytes(to_onnx(fitted, SEEN.matrix[:1]).SerializeToString())
    return path


def convnet(path: Path, batch: Any = "n") -> Path:
    """Random convolutions with a batch normalization and a shortcut, and a head fitted on what they give."""
    random = np.random.default_rng(0)

    def filters(count: int, depth: int) -> Any:
        return random.normal(size=(count, depth, 3, 3)) * np.sqrt(2 / (9 * depth))

    weights: dict[str, Any] = {
        "w1": filters(16, 1),
        "b1": random.normal(size=16) * 0.1,
        "gain": random.uniform(0.5, 1.5, 16),
        "shift": random.normal(size=16) * 0.1,
        "mean": np.zeros(16),
        "variance": np.ones(16),
        "w2": filters(16, 16) * 0.5,
        "w3": filters(64, 16),
        "b3": random.normal(size=64) * 0.1,
        "w4": filters(64, 64),
        "b4": random.normal(size=64) * 0.1,
    }
    near = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], name="first", **near),
        helper.make_node("BatchNormalization", ["c1", "gain", "shift", "mean", "variance"], ["n1"], name="norm"),
        helper.make_node("Relu", ["n1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="second", **near),
        helper.make_node("Add", ["c2", "r1"], ["a2"]),
        helper.make_node("Relu", ["a2"], ["r2"]),
        helper.make_node("Conv", ["r2", "w3", "b3"], ["c3"], name="third", strides=[2, 2], **near),
        helper.make_node("Relu", ["c3"], ["r3"]),
        helper.make_node("Conv", ["r3", "w4", "b4"], ["c4"], name="fourth", **near),
        helper.make_node("Relu", ["c4"], ["r4"]),
        helper.make_node("MaxPool", ["r4"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["features"]),
    ]
    body = model_of([*nodes, helper.make_node("Identity", ["features"], ["y"])], weights, [batch, 1, 8, 8])
    path.write_bytes(body.SerializeToString())
    head = RidgeClassifier(alpha=10).fit(scores(path, SEEN), SEEN.y)
    weights |= {"head": head.coef_, "bias": head.intercept_}
    nodes.append(helper.make_node("Gemm", ["features", "head", "bias"], ["y"], name="head", transB=1))
    path.write_bytes(model_of(nodes, weights, [batch, 1, 8, 8]).SerializeToString())
    return path
