"""A graph without some channels computes what the whole one does with their weights at zero."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from engine.optimize.graph.channels import Channels
from tests.engine.pruning_nets import NETS, Net

PRUNABLE = {"residual": 3, "dense_net": 4, "depthwise": 5, "reshaped": 3, "mlp": 2, "transformer": 2}


def run(model: onnx.ModelProto, rows: int = 3) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    shape = [size if isinstance(size, int) else rows for size in session.get_inputs()[0].shape]
    return session.run(None, {"x": np.random.default_rng(9).normal(size=shape).astype(np.float32)})[0]


def zeroed(channels: Channels, removed: list[int]) -> onnx.ModelProto:
    """The whole model, the removed channels' slices of all its weights at zero."""
    model = onnx.ModelProto()
    model.CopyFrom(channels.model)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor).copy()
        for place in range(array.ndim):
            keep = channels.kept(tensor.name, place, removed)
            if keep is not None:
                np.moveaxis(array, place, 0)[~keep] = 0
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model


def some(channels: Channels, random: np.random.Generator) -> list[int]:
    """A random part of each group, at least one left."""
    chosen = [random.choice(g.roots, random.integers(0, len(g.roots)), replace=False) for g in channels.groups]
    return [int(root) for part in chosen for root in part]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("net", NETS)
def test_pruned_equals_zeroed_when_channels_are_any(net: str, seed: int) -> None:
    channels = Channels(NETS[net](seed))
    assert len(channels.groups) == PRUNABLE[net]
    removed = some(channels, np.random.default_rng(seed))
    pruned = channels.without(removed)
    onnx.checker.check_model(pruned, full_check=True)
    assert pruned.graph.input == channels.model.graph.input and pruned.graph.output == channels.model.graph.output
    assert not removed or pruned.ByteSize() < channels.model.ByteSize() + 200
    np.testing.assert_allclose(run(pruned), run(zeroed(channels, removed)), rtol=1e-4, atol=1e-5)
    assert not removed or np.abs(run(pruned) - run(channels.model)).max() > 1e-6


def test_channels_stay_when_an_operator_is_not_known() -> None:
    net = Net(0)
    x = net.add("LRN", net.conv("x", 2, 8), size=3)
    x = net.add("Relu", net.conv(x, 8, 6))
    x = net.add("Gemm", net.add("Flatten", net.conv(x, 6, 4)), net.weight(36, 5))
    found = Channels(net.done(x, [2, 3, 3]))
    assert [len(group.roots) for group in found.groups] == [6, 4]


def test_channels_stay_when_an_if_reads_them() -> None:
    net = Net(0)
    hidden = net.add("Relu", net.dense("x", 7, 16))
    branches = {
        name: helper.make_graph(
            [helper.make_node(kind, [hidden], [name])], name, [], [helper.make_empty_tensor_value_info(name)]
        )
        for name, kind in (("then_branch", "Relu"), ("else_branch", "Neg"))
    }
    net.add("If", net.store(np.array(True)), **branches)
    model = net.done(net.dense(hidden, 16, 5), [7])
    assert not Channels(model).groups


def test_layers_lose_the_same_when_they_share_weights() -> None:
    net = Net(1)
    shared, x = net.weight(8, 8), net.dense("x", 7, 8)
    for _ in range(2):
        x = net.add("Relu", net.add("MatMul", x, shared))
    channels = Channels(net.done(net.dense(x, 8, 5), [7]))
    assert [len(group.roots) for group in channels.groups] == [8]
    removed = [int(each) for each in channels.groups[0].roots[:3]]
    np.testing.assert_allclose(run(channels.without(removed)), run(zeroed(channels, removed)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", [7, 9, 13, 18])
def test_weights_are_found_when_they_are_constant_nodes(opset: int) -> None:
    net = Net(2, opset)
    model = net.done(net.dense(net.add("Relu", net.dense("x", 7, 16)), 16, 5), [7], batch=4)
    stored = list(model.graph.initializer)
    del model.graph.initializer[:]
    for tensor in reversed(stored):
        model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    channels = Channels(model)
    removed = [int(each) for each in channels.groups[0].roots[:8]]
    pruned = channels.without(removed)
    assert pruned.ByteSize() < 0.8 * model.ByteSize() and run(pruned).shape == (4, 5)
    np.testing.assert_allclose(run(pruned), run(zeroed(channels, removed)), rtol=1e-4, atol=1e-5)
