"""Runs every operator's small graph in ONNX Runtime and in torch: prints {case: largest difference or error} as JSON.

Called as a script by the Python of the torch environment, with the repository as its folder.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

sys.path.insert(0, ".")

from engine.optimize.torch_graph import table
from engine.optimize.torch_graph.graph import TorchGraph

RANDOM = np.random.default_rng(0)
Case = tuple[str, onnx.ModelProto, dict[str, Any]]


def some(*shape: int) -> Any:
    return RANDOM.normal(size=shape).astype(np.float32)


def positive(*shape: int) -> Any:
    return np.abs(some(*shape)) + 0.1


def whole(*values: int) -> Any:
    return np.array(values, dtype=np.int64)


def case(
    kind: str, x: Any, *stored: Any, opset: int = 20, domain: str = "", outputs: int = 1, **attributes: Any
) -> Case:
    """The operator on one input and stored tensors (None: left out)."""
    names = ["" if each is None else f"w{i}" for i, each in enumerate(stored)]
    initializers = [numpy_helper.from_array(each, f"w{i}") for i, each in enumerate(stored) if each is not None]
    results = [f"y{i}" for i in range(outputs)]
    nodes = [helper.make_node(kind, ["x", *names], results, domain=domain, **attributes)]
    kind_of_x = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind_of_x, x.shape)],
        [helper.make_empty_tensor_value_info(name) for name in results],
        initializers,
    )
    imports = [helper.make_opsetid("", opset)]
    if domain:
        imports.append(helper.make_opsetid(domain, 1))
    name = f"{kind} {opset} {[None if s is None else s.shape for s in stored]} {attributes}"
    return name, helper.make_model(graph, opset_imports=imports, ir_version=10), {"x": x}


def convolutions() -> Iterator[Case]:
    image, row = some(2, 4, 9, 8), some(2, 4, 11)
    yield case("Conv", image, some(6, 4, 3, 3), some(6), pads=[1, 1, 1, 1])
    yield case("Conv", image, some(6, 2, 3, 2), group=2, strides=[2, 1], pads=[0, 1, 2, 0], dilations=[1, 2])
    yield case("Conv", image, some(4, 1, 3, 3), group=4)
    yield case("Conv", row, some(5, 4, 4), some(5), strides=[2], pads=[2, 1])
    for mode in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        yield case("Conv", image, some(6, 4, 2, 4), auto_pad=mode, strides=[2, 2])
        yield case("MaxPool", image, kernel_shape=[3, 2], strides=[2, 2], auto_pad=mode)
        yield case("AveragePool", image, kernel_shape=[3, 2], strides=[2, 2], auto_pad=mode)
        yield case("ConvTranspose", image, some(4, 3, 3, 2), auto_pad=mode, strides=[2, 2])
    yield case("ConvTranspose", image, some(4, 3, 3, 3), some(3), strides=[2, 2], pads=[1, 0, 1, 2])
    yield case("ConvTranspose", image, some(4, 3, 3, 3), strides=[2, 2], output_padding=[1, 1], group=2)
    yield case("ConvTranspose", row, some(4, 3, 3), strides=[2], output_shape=[22])
    yield case("ConvTranspose", row, some(4, 3, 3), dilations=[2])
    yield case("MaxPool", image, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    yield case("MaxPool", image, kernel_shape=[3, 3], pads=[1, 1, 1, 1], dilations=[2, 1])
    yield case("MaxPool", image, kernel_shape=[3, 3], pads=[0, 1, 2, 0])
    yield case("MaxPool", row, kernel_shape=[3], strides=[3])
    for count in (0, 1):
        yield case("AveragePool", image, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=count)
        yield case("AveragePool", image, kernel_shape=[3, 3], pads=[0, 1, 2, 0], count_include_pad=count)
    yield case("AveragePool", row, kernel_shape=[2], strides=[2])
    yield case("GlobalAveragePool", image)
    yield case("GlobalMaxPool", image)


def normalizations() -> Iterator[Case]:
    image, sequence = some(2, 4, 5, 3), some(2, 5, 6)
    yield case("BatchNormalization", image, some(4), some(4), some(4), positive(4), epsilon=1e-3)
    yield case("BatchNormalization", some(3, 4), some(4), some(4), some(4), positive(4))
    yield case("LayerNormalization", sequence, some(6), some(6))
    yield case("LayerNormalization", sequence, some(5, 6), axis=1, epsilon=1e-3)
    yield case("InstanceNormalization", image, some(4), some(4))
    yield case("LpNormalization", sequence, axis=1, p=1)


def numbers() -> Iterator[Case]:
    x = some(3, 4)
    for kind in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum"):
        yield case(kind, x, some(3, 4))
        yield case(kind, x, some(4))
    yield case("Div", whole(7, -7, 9), whole(2, 2, -4))
    yield case("Pow", positive(3, 4), np.float32(2.5) * np.ones((), np.float32))
    yield case("Pow", x, whole(2))
    for kind in ("Sqrt", "Log", "Reciprocal"):
        yield case(kind, positive(3, 4))
    for kind in ("Exp", "Neg", "Abs", "Erf", "Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "HardSwish", "Floor",
                 "Ceil", "Round", "Sign", "Sin", "Cos", "Mish", "Identity", "Elu", "Celu", "Selu", "LeakyRelu",
                 "HardSigmoid", "Softmax", "LogSoftmax", "Gelu", "Dropout"):  # fmt: skip
        yield case(kind, 2 * some(3, 4))
    for kind in ("Elu", "Celu", "LeakyRelu"):
        yield case(kind, x, alpha=0.3)
    yield case("HardSigmoid", x, alpha=0.3, beta=0.4)
    yield case("Selu", x, alpha=1.5, gamma=1.1)
    yield case("Gelu", x, approximate="tanh")
    yield case("Gelu", x, domain="com.microsoft")
    yield case("PRelu", some(2, 4, 3, 3), some(4, 1, 1))
    for kind in ("Softmax", "LogSoftmax"):
        yield case(kind, some(2, 3, 4), axis=1)
        yield case(kind, some(2, 3, 4), opset=11)
    yield case("Clip", 3 * x, np.array(-1, np.float32), np.array(1, np.float32))
    yield case("Clip", 3 * x, None, np.array(1, np.float32))
    yield case("Clip", 3 * x, opset=9, min=-0.5, max=0.5)
    yield case("MatMul", some(2, 3, 4), some(4, 5))
    yield case("Gemm", x, some(4, 5), some(5))
    yield case("Gemm", x, some(5, 3), some(1, 5), alpha=0.5, beta=2.0, transA=1, transB=1)
    yield case("Einsum", some(2, 3, 4), some(2, 5, 4), equation="bij,bkj->bik")
    for kind in ("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual"):
        yield case(kind, whole(1, 2, 3), whole(1, 3, 2))
    for kind in ("And", "Or"):
        yield case(kind, np.array([True, False, True]), np.array([True, True, False]))
    yield case("Not", np.array([True, False]))
    yield case("Where", np.array([[True], [False]]), some(2, 3), some(3))
    yield case("ArgMax", x, axis=1, keepdims=0)
    yield case("Cast", 3 * x, to=onnx.TensorProto.INT64)
    yield case("CastLike", whole(1, 2), some(1))
    yield case("Scaler", x, domain="ai.onnx.ml", offset=[1.0, 2.0, 3.0, 4.0], scale=[0.5, 1.0, 2.0, 3.0])
    for norm in ("MAX", "L1", "L2"):
        yield case("Normalizer", positive(3, 4), domain="ai.onnx.ml", norm=norm)
    for kind in ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp"):
        yield case(kind, some(2, 3, 4), whole(1, -1), keepdims=0)
        yield case(kind, some(2, 3, 4), opset=11, axes=[1])
    yield case("ReduceSum", some(2, 3, 4), whole(-1))
    yield case("ReduceSum", some(2, 3, 4), noop_with_empty_axes=1)
    yield case("ReduceMean", some(2, 3, 4))


def shapes() -> Iterator[Case]:
    x = some(2, 3, 4)
    for axis in (0, 1, 2, -1):
        yield case("Flatten", x, axis=axis)
    yield case("Reshape", x, whole(0, -1))
    yield case("Transpose", x, perm=[2, 0, 1])
    yield case("Transpose", x)
    yield case("Squeeze", some(2, 1, 3, 1), whole(1, -1))
    yield case("Squeeze", some(2, 1, 3, 1))
    yield case("Squeeze", some(2, 1, 3, 1), opset=11, axes=[3])
    yield case("Unsqueeze", x, whole(0, -1))
    yield case("Unsqueeze", x, opset=11, axes=[1])
    yield case("Concat", x, some(2, 5, 4), axis=1)
    yield case("Split", some(2, 7), whole(3, 4), axis=1, outputs=2)
    yield case("Split", some(2, 7), axis=1, num_outputs=3, outputs=3)
    yield case("Split", some(2, 6), opset=11, axis=1, split=[2, 4], outputs=2)
    yield case("Slice", x, whole(1), whole(2**63 - 1), whole(-1), whole(2))
    yield case("Slice", x, whole(-1, 0), whole(-(2**63) + 1, 1), whole(2, 1), whole(-1, 1))
    yield case("Slice", x, opset=9, starts=[0, 1], ends=[1, -1], axes=[0, 2])
    yield case("Gather", x, np.array([[0, -1]], np.int64), axis=1)
    yield case("Gather", x, np.array(1, np.int64), axis=2)
    yield case("Expand", some(3, 1), whole(2, 1, 4))
    yield case("Tile", some(2, 3), whole(2, 1))
    yield case("Pad", x, whole(0, 1, 2, 0, 0, 1), np.array(0.5, np.float32))
    yield case("Pad", x, whole(1, 2), None, whole(1), mode="constant")
    yield case("Pad", some(1, 2, 4, 4), whole(0, 0, 1, 2, 0, 0, 0, 1), mode="reflect")
    yield case("Pad", some(1, 2, 4, 4), whole(0, 0, 1, 2, 0, 0, 0, 1), mode="edge")
    yield case("Pad", x, opset=9, pads=[0, 0, 1, 0, 0, 1], value=0.25)
    yield case("Shape", x, start=1)
    yield case("ConstantOfShape", whole(2, 3), value=numpy_helper.from_array(np.array([1.5], np.float32)))


def without_input() -> Iterator[Case]:
    for name, value in (("value_float", 0.5), ("value_floats", [1.0, 2.0]), ("value_int", 3), ("value_ints", [3, 4])):
        made = case("Add" if "float" in name else "Gather", some(5, 2) if "float" in name else some(9, 2))
        node = made[1].graph.node[0]
        node.input.append("c")
        made[1].graph.node.insert(0, helper.make_node("Constant", [], ["c"], **{name: value}))
        yield f"Constant {name}", made[1], made[2]


def difference(model: onnx.ModelProto, feeds: dict[str, Any]) -> float:
    import onnxruntime
    import torch

    wanted = [output.name for output in model.graph.output]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = session.run(None, feeds)
    graph = TorchGraph(model, wanted)
    with torch.no_grad():
        found = graph.run({name: torch.tensor(value) for name, value in feeds.items()})
    for ours, theirs in zip(found, expected, strict=True):
        assert tuple(ours.shape) == theirs.shape, f"shape {tuple(ours.shape)} is not {theirs.shape}"
        assert ours.numpy().dtype == theirs.dtype, f"type {ours.dtype} is not {theirs.dtype}"
    return max(float(np.abs(a.numpy().astype(float) - b).max()) for a, b in zip(found, expected, strict=True))


def main() -> None:
    said: dict[str, Any] = {}
    tried = set()
    for room in (convolutions, normalizations, numbers, shapes, without_input):
        for name, model, feeds in room():
            tried |= {(node.domain, node.op_type) for node in model.graph.node}
            try:
                said[name] = difference(model, feeds)
            except Exception as error:
                said[name] = f"{type(error).__name__}: {error}"[:300]
    untried = sorted(" ".join(each).strip() for each in set(table.OPERATORS) - tried)
    print(json.dumps({"cases": said, "untried": untried}))


if __name__ == "__main__":
    main()
