"""ONNX models of the serving bench, made from numpy alone; the same seed gives the same bytes."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

FEATURES, CLASSES = 64, 10
PIXELS, IMAGE_CLASSES = (3, 224, 224), 1000
WIDE = 1024


def _pack(
    nodes: list[NodeProto],
    weights: dict[str, np.ndarray],
    shape: list[str | int],
    outputs: list[tuple[str, int, list[str | int]]],
    note: str,
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, kind, dims) for name, kind, dims in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, doc_string=note)
    return bytes(model.SerializeToString())


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Weights that keep the size of what passes through them."""
    fan_in = int(np.prod(shape[1:])) if len(shape) == 4 else shape[0]
    return (rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)


def tiny(note: str = "", seed: int = 0) -> bytes:
    """x FP32 [N,64] -> label INT64 [N], probabilities FP32 [N,10]. `note` changes the digest alone."""
    weights = {
        "w": _normal(np.random.default_rng(seed), FEATURES, CLASSES),
        "b": np.linspace(-0.5, 0.5, CLASSES, dtype=np.float32),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
    ]
    outputs: list[tuple[str, int, list[str | int]]] = [
        ("label", TensorProto.INT64, ["N"]),
        ("probabilities", TensorProto.FLOAT, ["N", CLASSES]),
    ]
    return _pack(nodes, weights, ["N", FEATURES], outputs, note)


def cnn(note: str = "", deeper: int = 0) -> bytes:
    """x FP32 [N,3,224,224] -> probabilities FP32 [N,1000]. With `deeper` layers more it costs the same call time
    on a faster machine; `requests.artifact` chooses them."""
    rng = np.random.default_rng(1)
    weights: dict[str, np.ndarray] = {}
    nodes: list[NodeProto] = []
    value, channels = "x", PIXELS[0]
    wide, narrow = ((20, 5, 2), (32, 3, 2), (32, 3, 1), (64, 3, 2)), ((128, 3, 2), (128, 3, 1), (256, 3, 2))
    for i, (width, size, stride) in enumerate((*wide, *[(64, 3, 1)] * (1 + deeper), *narrow)):
        weights[f"w{i}"] = _normal(rng, width, channels, size, size)
        weights[f"b{i}"] = np.zeros(width, np.float32)
        nodes += [
            helper.make_node("Conv", [value, f"w{i}", f"b{i}"], [f"c{i}"], strides=[stride] * 2, pads=[size // 2] * 4),
            helper.make_node("Relu", [f"c{i}"], [f"r{i}"]),
        ]
        value, channels = f"r{i}", width
    weights["w"] = _normal(rng, channels, IMAGE_CLASSES)
    nodes += [
        helper.make_node("GlobalAveragePool", [value], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    outputs: list[tuple[str, int, list[str | int]]] = [("probabilities", TensorProto.FLOAT, ["N", IMAGE_CLASSES])]
    return _pack(nodes, weights, ["N", *PIXELS], outputs, note)


def mlp(note: str = "", layers: int = 6) -> bytes:
    """x FP32 [N,1024] -> y FP32 [N,1024] through 4 MiB a layer: reading weights costs most, so batches help."""
    rng = np.random.default_rng(2)
    weights: dict[str, np.ndarray] = {}
    nodes: list[NodeProto] = []
    value = "x"
    for i in range(layers):
        weights[f"w{i}"] = _normal(rng, WIDE, WIDE)
        result = "y" if i == layers - 1 else f"r{i}"
        nodes += [
            helper.make_node("MatMul", [value, f"w{i}"], [f"m{i}"]),
            helper.make_node("Relu", [f"m{i}"], [result]),
        ]
        value = result
    return _pack(nodes, weights, ["N", WIDE], [("y", TensorProto.FLOAT, ["N", WIDE])], note)


def large(note: str = "") -> bytes:
    """About 100 MB: an MLP of 24 layers."""
    return mlp(note, layers=24)


def sample(model: str) -> np.ndarray:
    """One row for `tiny`, `cnn` or `mlp`: real numbers that seven digits write exactly as they are meant."""
    shape = {"tiny": (1, FEATURES), "cnn": (1, *PIXELS), "mlp": (1, WIDE)}[model]
    return np.random.default_rng(3).standard_normal(shape).round(7).astype(np.float32)
