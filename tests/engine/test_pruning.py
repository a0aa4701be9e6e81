"""Pruned models that are smaller, valid and still right."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.linear_model import RidgeClassifier

from engine.errors import EngineError
from engine.evaluate.rows import Rows, load
from engine.optimize.graph.channels import Channels
from engine.optimize.sampling import split
from tests.engine.conftest import Task
from tests.engine.onnx_files import relu
from tests.engine.pruning_nets import NETS, Net, noise, prune, saved

CHANNELS = ("prune-channels", "prune-channels-by-activation")


def answers(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


@pytest.fixture(scope="module")
def digits(digits_rows: Path) -> tuple[Rows, Rows]:
    """Rows to calibrate with, and rows to judge on."""
    calibration, rest = split(load(digits_rows), 0.3, 0)
    return calibration, rest


@pytest.fixture(scope="module")
def conv_net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers of random filters and one of 128 units, and a head fitted to digits."""
    net = Net(7)
    x = net.add("Relu", net.conv(net.add("Mul", "x", net.store(np.float32(1 / 16))), 1, 24))
    x = net.add("MaxPool", net.add("Relu", net.norm(net.conv(x, 24, 32), 32)), kernel_shape=[2, 2], strides=[2, 2])
    x = net.add("Relu", net.add("Gemm", net.add("Flatten", x), net.weight(128, 512), net.weight(128), transB=1))
    pixels, y = load_digits(return_X_y=True)
    body = saved(net.done(x, [1, 8, 8], classes=128), tmp_path_factory.mktemp("body"))
    features = answers(body, pixels.reshape(-1, 1, 8, 8).astype(np.float32))
    head = RidgeClassifier(alpha=0.1).fit(features[::2], y[::2])
    weight, bias = net.store(head.coef_.T.astype(np.float32)), net.store(head.intercept_.astype(np.float32))
    return saved(net.done(net.add("Gemm", x, weight, bias), [1, 8, 8], classes=10), tmp_path_factory.mktemp("net"))


def accuracy(path: Path, rows: Rows) -> float:
    shape = (len(rows), 1, 8, 8) if "x" in {each.name for each in onnx.load(path).graph.input} else (len(rows), 64)
    found = answers(path, rows.matrix.reshape(shape))
    return float(np.mean((found.argmax(1) if found.ndim == 2 else found) == rows.y))


@pytest.mark.parametrize("criterion", ["contribution", "activation", "apoz", "magnitude"])
def test_accuracy_stays_when_a_third_of_a_convnet_goes(
    conv_net: Path, digits: tuple[Rows, Rows], tmp_path: Path, criterion: str
) -> None:
    rows, judged = digits
    before = accuracy(conv_net, judged)
    fitted, notes = prune(CHANNELS[1], conv_net, tmp_path, rows, amount=0.3, multiple=4, criterion=criterion)
    after = accuracy(fitted, judged)
    assert before > 0.93 and after > before - 0.02
    assert fitted.stat().st_size < 0.75 * conv_net.stat().st_size and "3 layers fitted" in notes[-1]
    bare, _ = prune(
        CHANNELS[1], conv_net, tmp_path, rows, amount=0.3, multiple=4, criterion=criterion, reconstruct=False
    )
    assert after >= accuracy(bare, judged) - 0.005


def test_accuracy_stays_when_a_third_of_a_scikit_learn_network_goes(
    digits_onnx: Path, digits: tuple[Rows, Rows], tmp_path: Path
) -> None:
    rows, judged = digits
    fitted, _ = prune(CHANNELS[1], digits_onnx, tmp_path, rows, amount=0.3)
    assert accuracy(fitted, judged) > accuracy(digits_onnx, judged) - 0.02
    by_weight, _ = prune(CHANNELS[0], digits_onnx, tmp_path, rows, amount=0.3)
    assert accuracy(by_weight, judged) > accuracy(digits_onnx, judged) - 0.05
    assert fitted.stat().st_size == pytest.approx(by_weight.stat().st_size, rel=0.02)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("reconstruct", [False, True])
def test_outputs_come_closer_when_layers_are_repaired(net: str, reconstruct: bool, tmp_path: Path) -> None:
    model = NETS[net](3)
    path = saved(model, tmp_path)
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    rows, x = noise(shape, 256), noise(shape).matrix.reshape(-1, *shape)
    common = {"amount": 0.3, "multiple": 1, "criterion": "magnitude"}
    bare, _ = prune(CHANNELS[0], path, tmp_path, **common)
    distances = [np.abs(answers(bare, x) - answers(path, x)).mean()]
    repaired, _ = prune(CHANNELS[1], path, tmp_path, rows, reconstruct=reconstruct, **common)
    distances.append(np.abs(answers(repaired, x) - answers(path, x)).mean())
    assert distances[1] < (0.8 if reconstruct else 1.0) * distances[0]


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("amount", [0.5, 0.95])
def test_layers_keep_a_multiple_when_much_goes(scope: str, amount: float, tmp_path: Path) -> None:
    net = Net(4)
    x = net.add("Relu", net.dense("x", 7, 64))
    model = net.done(net.dense(net.add("Relu", net.dense(x, 64, 40)), 40, 5), [7])
    pruned, _ = prune(CHANNELS[0], saved(model, tmp_path), tmp_path, amount=amount, scope=scope, at_least=3)
    sizes = [group.roots.size for group in Channels(onnx.load(pruned)).groups]
    assert len(sizes) == 2 and all(size % 8 == 0 and size >= 8 for size in sizes)
    assert sum(sizes) <= 104 * (1 - amount) + 16


def test_share_is_of_parameters_when_asked(tmp_path: Path) -> None:
    net = Net(4)
    x = net.add("Relu", net.dense("x", 7, 64))
    path = saved(net.done(net.dense(net.add("Relu", net.dense(x, 64, 64)), 64, 5), [7]), tmp_path)
    before = Channels(onnx.load(path)).parameters()
    pruned, _ = prune(CHANNELS[0], path, tmp_path, amount=0.5, share_of="parameters", multiple=1)
    assert Channels(onnx.load(pruned)).parameters() == pytest.approx(0.5 * before, rel=0.05)


def test_layer_is_left_alone_when_it_is_excluded(tmp_path: Path) -> None:
    path = saved(NETS["residual"](0), tmp_path)
    whole = [group for group in Channels(onnx.load(path)).groups if len(group.roots) == 12]
    name = whole[0].producers[1].name
    pruned, _ = prune(CHANNELS[0], path, tmp_path, amount=0.5, multiple=1, exclude=[name])
    assert sorted(len(group.roots) for group in Channels(onnx.load(pruned)).groups) == [5, 5, 12]
    with pytest.raises(EngineError) as caught:
        prune(CHANNELS[0], path, tmp_path, exclude=["*"])
    assert caught.value.code == "no-gain"


def test_pruning_works_when_the_batch_is_fixed(tmp_path: Path) -> None:
    net = Net(6)
    x = net.add("Flatten", net.add("Relu", net.conv(net.add("Relu", net.conv("x", 1, 16)), 16, 16)))
    path = saved(net.done(net.add("Gemm", x, net.weight(16 * 9, 5)), [1, 3, 3], batch=4), tmp_path)
    pruned, _ = prune(CHANNELS[1], path, tmp_path, noise([1, 3, 3], 50), amount=0.5)
    assert answers(pruned, np.zeros((4, 1, 3, 3), np.float32)).shape == (4, 5)


@pytest.mark.parametrize("name", [*CHANNELS, "prune-weights"])
def test_no_gain_is_said_when_nothing_can_go(name: str, tmp_path: Path) -> None:
    with pytest.raises(EngineError) as caught:
        prune(name, saved(relu(), tmp_path), tmp_path, noise([2]))
    assert caught.value.code == "no-gain"


def test_no_gain_is_said_when_layers_are_narrower_than_the_multiple(tmp_path: Path) -> None:
    with pytest.raises(EngineError) as caught:
        prune(CHANNELS[0], saved(NETS["mlp"](0), tmp_path), tmp_path, amount=0.3, multiple=32)
    assert caught.value.code == "no-gain"


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_small_weights_are_zero_when_single_ones_are_pruned(scope: str, conv_net: Path, tmp_path: Path) -> None:
    pruned, notes = prune("prune-weights", conv_net, tmp_path, amount=0.6, scope=scope)
    old, new = (
        {each.name: numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}
        for path in (conv_net, pruned)
    )
    shares = [float((new[name] == 0).mean()) for name in old if old[name].ndim > 1]
    total = sum(old[name].size for name in old if old[name].ndim > 1)
    assert sum((new[name] == 0).sum() for name in old if old[name].ndim > 1) == pytest.approx(0.6 * total, abs=4)
    assert (np.ptp(shares) < 0.01) == (scope == "layer")
    assert all(np.all((new[name] == 0) | (new[name] == old[name])) for name in old)
    assert len(zlib.compress(pruned.read_bytes())) < 0.6 * len(zlib.compress(conv_net.read_bytes()))
    assert "no faster" in notes[-1]


@pytest.mark.parametrize("net", ["depthwise", "mlp"])
def test_two_of_four_inputs_stay_when_the_pattern_says_so(net: str, tmp_path: Path) -> None:
    path = saved(NETS[net](1), tmp_path)
    pruned, _ = prune("prune-weights", path, tmp_path, pattern="2:4")
    model = onnx.load(pruned)
    stored = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    checked = 0
    for node in model.graph.node:
        axis = {"Conv": 1, "ConvTranspose": 0, "MatMul": 0, "Gemm": 0}.get(node.op_type)
        if axis is not None and stored[node.input[1]].shape[axis] % 4 == 0:
            rows = np.moveaxis(stored[node.input[1]], axis, -1)
            assert np.all((rows.reshape(-1, 4) != 0).sum(axis=1) == 2)
            checked += 1
    assert checked >= 2


def test_recipe_of_pruning_and_int8_runs_when_sandboxed(conv_net: Path, digits_rows: Path, task: Task) -> None:
    steps = [
        {"optimizer": CHANNELS[1], "options": {"amount": 0.5}},
        {"optimizer": "dynamic-quantization", "options": {}},
    ]
    value = task("engine.optimize.tasks:make", {"steps": steps}, model=conv_net, calibration=digits_rows).value
    assert value["size_bytes"] < 0.35 * value["source_bytes"] and len(value["notes"]) >= 3


def test_rows_are_asked_for_when_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(EngineError) as caught:
        prune(CHANNELS[1], saved(NETS["mlp"](0), tmp_path), tmp_path)
    assert caught.value.code == "calibration"


def test_a_layer_gets_its_bias_when_its_weights_are_shared_or_halves(tmp_path: Path) -> None:
    """Weights of two layers cannot be fitted to one; float16 keeps its type."""
    net = Net(8)
    shared, x = net.weight(16, 16), net.dense("x", 7, 16)
    for _ in range(2):
        x = net.add("Relu", net.add("MatMul", x, shared))
    net.stored = {name: array.astype(np.float16) for name, array in net.stored.items()}
    net.nodes.insert(0, helper.make_node("Cast", ["x"], ["half"], to=onnx.TensorProto.FLOAT16))
    net.nodes[1].input[0] = "half"
    last = net.add("MatMul", x, net.store(np.ones((16, 5), np.float16)))
    path = saved(net.done(net.add("Cast", last, to=onnx.TensorProto.FLOAT), [7]), tmp_path)
    pruned, notes = prune(CHANNELS[1], path, tmp_path, noise([7]), amount=0.5)
    assert "1 layers fitted" in notes[-1] and "2 by mean" in notes[-1]
    kinds = {each.data_type for each in onnx.load(pruned).graph.initializer}
    assert kinds == {onnx.TensorProto.FLOAT16}
