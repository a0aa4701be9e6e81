"""Small ONNX nets with every kind of joint that channels pass, made by code with random weights; and their pruning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine.evaluate.rows import Rows
from engine.optimize.base import optimizer
from engine.optimize.material import Material
from engine.plugins import options_of
from engine.scan.tasks import check_onnx_file


class Net:
    """Builds a graph node by node; every method gives the name of its result."""

    def __init__(self, seed: int, opset: int = 17) -> None:
        self.random, self.opset = np.random.default_rng(seed), opset
        self.nodes: list[onnx.NodeProto] = []
        self.stored: dict[str, np.ndarray] = {}

    def add(self, kind: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        names = [f"t{len(self.nodes)}" + "abc"[:outputs][i] * (outputs > 1) for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, f"{kind}{len(self.nodes)}", **attributes))
        return names[0]

    def store(self, array: np.ndarray | list[int]) -> str:
        name = f"w{len(self.stored)}"
        self.stored[name] = np.array(array)
        return name

    def weight(self, *dims: int) -> str:
        scale = 1 / np.sqrt(max(1, np.prod(dims[1:])))
        return self.store((self.random.normal(size=dims) * scale).astype(np.float32))

    def conv(self, x: str, cin: int, cout: int, k: int = 3, group: int = 1, bias: bool = True) -> str:
        weights = [self.weight(cout, cin // group, k, k), *([self.weight(cout)] if bias else [])]
        return self.add("Conv", x, *weights, pads=[k // 2] * 4, group=group)

    def norm(self, x: str, count: int) -> str:
        variance = self.store(self.random.uniform(0.5, 2, count).astype(np.float32))
        return self.add("BatchNormalization", x, *(self.weight(count) for _ in range(3)), variance)

    def dense(self, x: str, cin: int, cout: int) -> str:
        return self.add("Add", self.add("MatMul", x, self.weight(cin, cout)), self.weight(cout))

    def done(self, y: str, shape: list[int], batch: str | int = "n", classes: int = 5) -> onnx.ModelProto:
        rank = len(shape)
        out = [batch, *([*shape[:-1], classes] if rank == 2 else [classes])]
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shape])],
            [helper.make_tensor_value_info(y, TensorProto.FLOAT, out)],
            [numpy_helper.from_array(array, name) for name, array in self.stored.items()],
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        onnx.checker.check_model(made)
        return made


def residual(seed: int) -> onnx.ModelProto:
    net = Net(seed)
    x = net.add("Relu", net.norm(net.conv("x", 2, 12, bias=False), 12))
    for _ in range(2):
        inner = net.add("Relu", net.norm(net.conv(x, 12, 10), 10))
        x = net.add("Relu", net.add("Add", net.conv(inner, 10, 12), x))
    pooled = net.add("Flatten", net.add("GlobalAveragePool", x))
    return net.done(net.add("Gemm", pooled, net.weight(5, 12), net.weight(5), transB=1), [2, 6, 6])


def dense_net(seed: int) -> onnx.ModelProto:
    """Concat of Concat, and a Split whose parts are multiplied."""
    net = Net(seed)
    first = net.add("Relu", net.conv("x", 2, 8))
    second = net.add("LeakyRelu", net.conv(first, 8, 6))
    both = net.add("Concat", first, second, axis=1)
    third = net.add("Concat", both, net.conv(both, 14, 4, k=1), axis=1)
    left = net.add("Split", net.conv(third, 18, 12), outputs=2, axis=1)
    gated = net.add("Mul", left, net.add("Sigmoid", left[:-1] + "b"))
    mean = net.add("ReduceMean", gated, axes=[2, 3], keepdims=0)
    return net.done(net.add("Gemm", mean, net.weight(6, 5)), [2, 6, 6])


def depthwise(seed: int) -> onnx.ModelProto:
    """Depthwise with a multiplier, a grouped convolution, a transposed one, squeeze and excitation."""
    net = Net(seed, opset=13)
    x = net.add("Clip", net.conv("x", 2, 8), net.store(np.float32(0)), net.store(np.float32(6)))
    x = net.add("HardSigmoid", net.norm(net.conv(x, 8, 16, group=8), 16))
    x = net.add("Relu", net.conv(x, 16, 12, k=1))
    x = net.add("Relu", net.conv(x, 12, 8, group=2))
    squeezed = net.add("Relu", net.conv(net.add("GlobalAveragePool", x), 8, 4, k=1))
    x = net.add("Mul", x, net.add("Sigmoid", net.conv(squeezed, 4, 8, k=1)))
    x = net.add("Relu", net.add("ConvTranspose", x, net.weight(8, 6, 2, 2), net.weight(6), strides=[2, 2]))
    x = net.add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    return net.done(net.add("Gemm", net.add("Flatten", x), net.weight(6 * 9, 5)), [2, 3, 3])


def reshaped(seed: int) -> onnx.ModelProto:
    """Flatten by a stored Reshape, with numbers for the channels in it, and by a computed one; a Transpose."""
    net = Net(seed)
    x = net.add("Relu", net.conv("x", 2, 8))
    x = net.add("Reshape", x, net.store([0, 8, 9]))
    x = net.add("Relu", net.dense(net.add("Transpose", x, perm=[0, 2, 1]), 8, 6))
    batch = net.add("Gather", net.add("Shape", x), net.store([0]), axis=0)
    flat = net.add("Reshape", x, net.add("Concat", batch, net.store([54]), axis=0))
    x = net.add("Tanh", net.add("Gemm", flat, net.weight(54, 10), net.weight(10)))
    return net.done(net.dense(x, 10, 5), [2, 3, 3])


def mlp(seed: int) -> onnx.ModelProto:
    net = Net(seed, opset=11)
    x = net.add("Relu", net.dense("x", 7, 16))
    x = net.add("Relu", net.dense(x, 16, 12))
    return net.done(net.dense(x, 12, 5), [7])


def transformer(seed: int) -> onnx.ModelProto:
    """Attention of 4 heads and a gated MLP around a residual stream with LayerNormalization."""
    net = Net(seed)
    x = net.dense("x", 6, 8)
    heads = []
    for order in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
        split = net.add("Reshape", net.dense(x, 8, 12), net.store([0, 0, 4, 3]))
        heads.append(net.add("Transpose", split, perm=order))
    scores = net.add("Softmax", net.add("MatMul", heads[0], heads[1]), axis=-1)
    mixed = net.add("Transpose", net.add("MatMul", scores, heads[2]), perm=[0, 2, 1, 3])
    x = net.add("Add", x, net.dense(net.add("Reshape", mixed, net.store([0, 0, 12])), 12, 8))
    x = net.add("LayerNormalization", x, net.weight(8), net.weight(8), axis=-1)
    x = net.add("Add", x, net.dense(net.add("Erf", net.dense(x, 8, 16)), 16, 8))
    return net.done(net.dense(x, 8, 5), [4, 6])


NETS: dict[str, Callable[[int], onnx.ModelProto]] = {
    each.__name__: each for each in (residual, dense_net, depthwise, reshaped, mlp, transformer)
}


def prune(name: str, model: Path, folder: Path, rows: Rows | None = None, **options: Any) -> tuple[Path, list[str]]:
    plugin, target = optimizer(name), folder / f"{name}.onnx"
    notes = plugin.optimize(model, target, options_of(plugin, options), Material(calibration=rows))
    check_onnx_file(target)
    return target, notes


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "source.onnx"
    onnx.save(model, path)
    return path


def noise(shape: list[int], count: int = 64) -> Rows:
    matrix = np.random.default_rng(5).normal(size=(count, int(np.prod(shape)))).astype(np.float32)
    return Rows([f"x{i}" for i in range(matrix.shape[1])], matrix, None, None)
