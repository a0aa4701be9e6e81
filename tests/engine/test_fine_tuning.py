"""Fine-tuning of ONNX graphs in the sandbox, in the torch environment."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from sklearn.datasets import load_diabetes, load_digits

from engine.errors import EngineError
from engine.optimize.base import optimizer
from engine.sandbox import Limits, run
from tests.engine.conftest import ROOT

MAKE = "engine.optimize.tasks:make"
LIMITS = Limits(seconds=120, memory_mb=6144)
Tune = Callable[..., tuple[dict[str, Any], Path]]


@pytest.fixture(scope="module")
def tune(torch_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Tune:
    def go(model: Path, rows: Path, original: Path, task: str = "image-classification", **options: Any) -> Any:
        name = options.pop("optimizer", "fine-tuning")
        params = {"steps": [{"optimizer": name, "options": options}], "task": task, "seed": 1}
        result = run(
            MAKE,
            params=params,
            inputs={"model": model, "training": rows, "original": original},
            scratch=tmp_path_factory.mktemp("tuning"),
            limits=LIMITS,
            python=torch_python,
        )
        return result.value, result.files / result.value["file"]

    return go


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits as images from 0 to 1: three quarters to train on (train.npz), the rest to judge by."""
    folder = tmp_path_factory.mktemp("digits")
    x, y = load_digits(return_X_y=True)
    images = (x / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    train = np.arange(len(y)) % 4 != 0
    np.savez(folder / "train.npz", X=images[train], y=y[train])
    np.savez(folder / "test.npz", X=images[~train], y=y[~train])
    return folder


def weights(file: Path) -> dict[str, Any]:
    return {each.name: numpy_helper.to_array(each) for each in onnx.load(file).graph.initializer}


def changed(file: Path, target: Path, how: Callable[[str, Any], Any]) -> Path:
    """The model with how(name, weights) for each of its floating weights."""
    model = onnx.load(file)
    for each in model.graph.initializer:
        if each.data_type == onnx.TensorProto.FLOAT:
            each.CopyFrom(numpy_helper.from_array(how(each.name, numpy_helper.to_array(each)), each.name))
    onnx.save(model, target)
    return target


def accuracy(file: Path, folder: Path) -> float:
    stored = np.load(folder / "test.npz")
    session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    x = stored["X"].reshape(len(stored["y"]), *session.get_inputs()[0].shape[1:])
    scores = next(each for each in session.run(None, {session.get_inputs()[0].name: x}) if each.ndim == 2)
    return float((scores.argmax(axis=1) == stored["y"]).mean())


def network(folder: Path, ending: str = "Softmax") -> Path:
    """Convolution, batch normalization, residual, and a layer, with random weights."""
    random = np.random.default_rng(0)

    def some(*shape: int) -> Any:
        return (random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    stored = {"w1": some(16, 1, 3, 3), "w2": some(16, 16, 3, 3), "w3": some(10, 256), "b3": np.zeros(10, np.float32),
              "ones": np.ones(16, np.float32), "zeros": np.zeros(16, np.float32)}  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["c1", "ones", "zeros", "zeros", "ones"], ["n1"]),
        helper.make_node("Relu", ["n1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c2", "ones", "zeros", "zeros", "ones"], ["n2"]),
        helper.make_node("Add", ["n2", "r1"], ["a"]),
        helper.make_node("Flatten", ["a"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["logits"], transB=1),
        helper.make_node(ending, ["logits"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("x", 1, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("y", 1, ["n", 10])],
        [numpy_helper.from_array(each, name) for name, each in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / f"random-{ending}.onnx")
    return folder / f"random-{ending}.onnx"


@pytest.fixture(scope="module")
def trained(folder: Path, tune: Tune) -> Path:
    """The network, trained from nothing by the optimizer itself."""
    file = network(folder)
    value, made = tune(file, folder / "train.npz", file, distillation=0, epochs=10, learning_rate=0.003)
    assert accuracy(file, folder) < 0.3 and accuracy(made, folder) > 0.95, value["notes"]
    return made


def test_graph_is_the_same_but_for_its_weights_when_it_was_trained(trained: Path, folder: Path) -> None:
    before, after = onnx.load(folder / "random-Softmax.onnx"), onnx.load(trained)
    assert [node.op_type for node in before.graph.node] == [node.op_type for node in after.graph.node]
    assert before.graph.input == after.graph.input and before.graph.output == after.graph.output
    stored = weights(trained)
    # The two normalizations shared their ones and zeros, and have their own now; running statistics were learnt too.
    means = [stored[node.input[3]] for node in after.graph.node if node.op_type == "BatchNormalization"]
    assert np.abs(means[0] - means[1]).max() > 0.01


def test_damaged_network_is_rescued_when_tuned_and_says_so(trained: Path, folder: Path, tune: Tune) -> None:
    random = np.random.default_rng(3)
    damaged = changed(
        trained, folder / "damaged.onnx",
        lambda name, w: w + (0.5 * w.std() * random.normal(size=w.shape).astype(np.float32) if w.ndim > 1 else 0),
    )  # fmt: skip
    value, made = tune(damaged, folder / "train.npz", trained)
    whole, before, after = (accuracy(each, folder) for each in (trained, damaged, made))
    assert before < whole - 0.03 and after > before + 0.02 and after > whole - 0.02, (whole, before, after)
    assert value["steps"][0]["options"]["epochs"] == 3 and "held out accuracy" in value["notes"][0]
    again = tune(damaged, folder / "train.npz", trained)[1]
    assert all((weights(again)[name] == each).all() for name, each in weights(made).items())


def test_zeros_stay_when_a_pruned_network_is_tuned(trained: Path, folder: Path, tune: Tune) -> None:
    def prune(name: str, w: Any) -> Any:
        return np.where(np.abs(w) < np.quantile(np.abs(w), 0.7), 0, w).astype(np.float32) if w.ndim > 1 else w

    pruned = changed(trained, folder / "pruned.onnx", prune)
    _, made = tune(pruned, folder / "train.npz", trained, augmentation="shift", freeze_normalization=True)
    found = weights(made)
    assert all((found[name][w == 0] == 0).all() for name, w in weights(pruned).items() if w.ndim > 1)
    assert accuracy(made, folder) > accuracy(pruned, folder)


def test_accuracy_stays_when_nothing_is_damaged(trained: Path, folder: Path, tune: Tune) -> None:
    _, made = tune(trained, folder / "train.npz", trained)
    assert accuracy(made, folder) >= accuracy(trained, folder)


def test_scikit_learn_pipelines_are_rescued_when_they_are_networks(
    digits_files: dict[bool, Path], digits_rows: Path, tune: Tune, tmp_path: Path
) -> None:
    x, y = load_digits(return_X_y=True)
    np.savez(tmp_path / "test.npz", X=x.astype(np.float32), y=y)
    original = digits_files[False]
    random = np.random.default_rng(3)
    damaged = changed(
        original, tmp_path / "damaged.onnx",
        lambda name, w: w + (0.2 * random.normal(size=w.shape).astype(np.float32) if w.ndim > 1 else 0),
    )  # fmt: skip
    value, made = tune(damaged, digits_rows, original, "tabular-classification")
    assert accuracy(made, tmp_path) > accuracy(damaged, tmp_path) + 0.01, value["notes"]
    assert len(onnx.load(made).graph.node) == len(onnx.load(original).graph.node)
    value, made = tune(digits_files[True], digits_rows, digits_files[True], "tabular-classification", epochs=1)
    assert [each.name for each in onnx.load(made).graph.output][1] == "output_probability"


def test_numbers_are_learnt_when_the_task_is_regression(tune: Tune, tmp_path: Path) -> None:
    x, y = load_diabetes(return_X_y=True)
    np.savez(tmp_path / "rows.npz", X=x, y=y / 100)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])],
        "line",
        [helper.make_tensor_value_info("x", 1, ["n", 10])],
        [helper.make_tensor_value_info("y", 1, ["n", 1])],
        [
            numpy_helper.from_array(np.ones((10, 1), np.float32), "w"),
            numpy_helper.from_array(np.zeros((1, 1), np.float32), "b"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    value, made = tune(
        tmp_path / "m.onnx", tmp_path / "rows.npz", tmp_path / "m.onnx", "tabular-regression",
        distillation=0, epochs=30, learning_rate=0.1,
    )  # fmt: skip
    rest = np.load(tmp_path / "rows.npz")
    session = onnxruntime.InferenceSession(made.read_bytes(), providers=["CPUExecutionProvider"])
    predicted = session.run(None, {"x": rest["X"].astype(np.float32)})[0][:, 0]
    assert 1 - ((predicted - rest["y"]) ** 2).mean() / rest["y"].var() > 0.4 and "RMSE" in value["notes"][0]


def bad(folder: Path) -> dict[str, Path]:
    """Rows that do not fit, by what is wrong with them."""
    stored = np.load(folder / "train.npz")
    x, y = stored["X"][:200], stored["y"][:200]
    cases = {
        "label": {"X": x, "y": np.where(y == 3, 12, y)},
        "shape": {"X": x[:, :, :7], "y": y},
        "few": {"X": x[:5], "y": y[:5]},
        "unlabelled": {"X": x},
        "nan": {"X": np.where(x > 0.9, np.nan, x), "y": y},
    }
    for name, arrays in cases.items():
        np.savez(folder / f"bad-{name}.npz", **arrays)
    return {name: folder / f"bad-{name}.npz" for name in cases}


@pytest.mark.parametrize(
    ("name", "field", "words"),
    [
        ("label", "target", "The target '12' is none of the model's 10 classes"),
        ("shape", "rows", "56 columns do not fit"),
        ("few", "training", "at least 20 rows"),
        ("unlabelled", "training", "with a target column"),
        ("nan", "training", "not finite"),
    ],
)
def test_rows_are_refused_when_nothing_can_be_learnt(
    name: str, field: str, words: str, trained: Path, folder: Path, tune: Tune
) -> None:
    with pytest.raises(EngineError, match=words) as caught:
        tune(trained, bad(folder)[name], trained)
    assert caught.value.field == field


def test_model_is_kept_when_the_loss_is_no_number(trained: Path, folder: Path, tune: Tune) -> None:
    value, made = tune(trained, folder / "train.npz", trained, learning_rate=1.0, epochs=2)
    assert accuracy(made, folder) >= accuracy(trained, folder) - 0.01
    assert any("kept" in note for note in value["notes"])


def test_graph_with_control_flow_is_refused_by_name(folder: Path, tune: Tune) -> None:
    x = helper.make_tensor_value_info("x", 1, ["n", 1, 8, 8])
    y = helper.make_tensor_value_info("y", 1, ["n", 10])
    branch = helper.make_graph(
        [helper.make_node("Identity", ["f"], ["b"])], "b", [], [helper.make_tensor_value_info("b", 1, ["n", 64])]
    )
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("If", ["yes"], ["i"], then_branch=branch, else_branch=branch),
        helper.make_node("MatMul", ["i", "w"], ["y"]),
    ]
    stored = [
        numpy_helper.from_array(np.array(True), "yes"),
        numpy_helper.from_array(np.ones((64, 10), np.float32), "w"),
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], stored), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(model, folder / "if.onnx")
    with pytest.raises(EngineError, match="The operator If cannot be trained") as caught:
        tune(folder / "if.onnx", folder / "train.npz", folder / "if.onnx")
    assert caught.value.code == "unsupported"


def test_torch_is_not_imported_when_optimizers_are_listed() -> None:
    code = "import sys; from engine.optimize.base import optimizers; optimizers(); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
    assert optimizer("fine-tuning").environment == "torch" and optimizer("fine-tuning").needs == {"training"}
