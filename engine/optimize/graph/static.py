"""Static int8: the graph made ready, ONNX Runtime's quantizer over it, and what it leaves tidied."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.optimize.graph.calibration import Calibration, describe
from engine.optimize.graph.model import no_gain, open_model, refuse_control_flow, save, unsupported

LEAST_OPSET = 13  # scales for each channel
CONVOLUTIONS = ("Conv", "ConvTranspose")
MATRICES = ("Gemm", "MatMul")
# What may stay in integers between two of the above. Softmax, normalizations and sigmoids lose more than they gain.
_BETWEEN = (
    "Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "LeakyRelu", "MaxPool", "Pad", "Relu",
    "Reshape", "Resize", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Static:
    """types: "U8S8" is unsigned activations and signed weights. method: "MinMax", "Entropy" or "Percentile".
    form: "QDQ" or "QOperator". operators: those with weights that are quantized. excluded: nodes left in float."""

    types: str = "U8S8"
    method: str = "MinMax"
    form: str = "QDQ"
    per_channel: bool = False
    reduce_range: bool = False
    operators: tuple[str, ...] = CONVOLUTIONS + MATRICES
    excluded: Collection[str] = ()


def prepare(path: Path, target: Path, feed: dict[str, Any], method: str) -> tuple[Any, list[str]]:
    """The model as it is opened (its nodes named as everywhere in this room) and, in `target`, the same with constants
    folded, batch normalizations and additions in the convolutions and Gemms before them, and types written down.

    feed: one input of the model."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = open_model(path, LEAST_OPSET)
    refuse_control_flow(model, method)
    described = onnx.ModelProto.FromString(model.SerializeToString())
    describe(described, feed)
    raw = target.with_suffix(".raw.onnx")
    onnx.save(described, str(raw))
    notes = []
    try:
        quant_pre_process(str(raw), str(target), skip_symbolic_shape=True)
        prepared = open_model(target)
    except Exception as error:
        # Preparation helps and is not needed.
        print(f"preparation failed: {type(error).__name__}")
        notes.append("The graph could not be prepared, so fewer parts may be quantized.")
        prepared = described
    describe(prepared, feed)
    _flatten_biases(prepared.graph)
    save(prepared, target)
    return model, notes


def _flatten_biases(graph: Any) -> None:
    """A Gemm's bias of (1, n) is as good as (n,), and the quantizer fails on it with a scale for each channel."""
    readers: dict[str, set[tuple[str, int]]] = {}
    for node in graph.node:
        for index, name in enumerate(node.input):
            readers.setdefault(name, set()).add((node.op_type, index))
    for tensor in graph.initializer:
        if readers.get(tensor.name) == {("Gemm", 2)} and len(tensor.dims) == 2 and tensor.dims[0] == 1:
            del tensor.dims[0]


def quantize(path: Path, target: Path, calibration: Calibration, static: Static, method: str) -> list[str]:
    """Writes the int8 form of `path` to `target`; notes.

    Asymmetric activations: scale = (max - min) / 255, zero point = round(-min / scale), the range widened to hold 0.
    Symmetric weights: scale = max|w| / 127, zero point 0. q = clip(round(x / scale) + zero point): Jacob et al.,
    "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference" (2018), section 2.1.

    EngineError(code="no-gain") when nothing is quantized, "calibration" for ranges that are not finite.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepared, made = Path(folder, "prepared.onnx"), Path(folder, "made.onnx")
        original, notes = prepare(path, prepared, calibration.smallest(), method)
        excluded = renamed(original, open_model(prepared), static.excluded)
        _run(prepared, made, calibration, static, excluded, method)
        variant = open_model(made)
    _check_scales(variant)
    count = _count(variant)
    if not count:
        raise no_gain("no convolutions or matrix multiplications by stored weights that could be quantized")
    if static.form == "QDQ":
        _leave_results_in_float(variant)
    _keep_in_float(variant.graph)
    save(variant, target)
    kept = f", {len(excluded)} left in float" if excluded else ""
    return [*notes, f"{count} operators quantized to int8{kept}; calibrated with {calibration.count} rows."]


def _run(prepared: Path, made: Path, calibration: Any, static: Static, excluded: list[str], method: str) -> None:
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    kinds = {"U": QuantType.QUInt8, "S": QuantType.QInt8}
    calibration.set_range(0, len(calibration))
    try:
        quantize_static(
            str(prepared),
            str(made),
            calibration,
            quant_format=QuantFormat[static.form],
            calibrate_method=CalibrationMethod[static.method],
            activation_type=kinds[static.types[0]],
            weight_type=kinds[static.types[2]],
            per_channel=static.per_channel,
            reduce_range=static.reduce_range,
            op_types_to_quantize=[*static.operators, *_BETWEEN],
            nodes_to_exclude=excluded,
            extra_options={
                "ActivationSymmetric": static.types == "S8S8",
                # Products of two activations (attention) stay in float.
                "MatMulConstBOnly": True,
                "DefaultTensorType": onnx.TensorProto.FLOAT,
                # One batch of intermediate results in memory at a time.
                "CalibStridedMinMax": 1,
            },
        )
    except Exception as error:
        calibration.refuse_infinite(open_model(prepared))
        raise unsupported(method, error) from error


def renamed(original: Any, prepared: Any, names: Collection[str]) -> list[str]:
    """The nodes of the prepared graph that compute what these of the original did: fusion renames them, and what it
    fuses ends where the last of the fused nodes did. EngineError(field="options.excluded") for an unknown name."""
    nodes = {node.name: node for node in original.graph.node}
    readers: dict[str, list[Any]] = {}
    for node in original.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    producer = {name: node.name for node in prepared.graph.node for name in node.output}
    found = set()
    for name in names:
        if name not in nodes:
            raise EngineError(f"The model has no node '{name[:60]}'.", field="options.excluded", code="options")
        tensor = nodes[name].output[0]
        while tensor not in producer and len(readers.get(tensor, [])) == 1:
            tensor = readers[tensor][0].output[0]
        if tensor in producer:
            found.add(producer[tensor])
    return sorted(found)


def _check_scales(model: Any) -> None:
    import numpy as np
    from onnx import numpy_helper

    stored = {each.name: each for each in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.input[1] in stored:
            scale = numpy_helper.to_array(stored[node.input[1]])
            if not np.isfinite(scale).all() or (scale <= 0).any():
                raise EngineError(
                    f"With the calibration rows the values at '{node.input[0][:60]}' have no finite range.",
                    field="calibration",
                    code="calibration",
                )


def _count(model: Any) -> int:
    """Operators that multiply 8-bit values by 8-bit weights; with weights alone in 8 bits nothing is faster."""
    back = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return sum(
        node.op_type in ("QLinearConv", "QLinearMatMul", "QGemm")
        or (node.op_type in CONVOLUTIONS + MATRICES and {*node.input[:2]} <= back)
        for node in model.graph.node
    )


def _leave_results_in_float(model: Any) -> None:
    """A matrix product whose 8-bit result is only turned back to float gives the float result: the kernel has it
    anyway, and the model's outputs keep their precision."""
    graph = model.graph
    outputs = {each.name for each in graph.output}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    producer = {name: node for node in graph.node for name in node.output}
    gone = []
    for quantizer in graph.node:
        product = producer.get(quantizer.input[0]) if quantizer.op_type == "QuantizeLinear" else None
        if product is None or product.op_type not in MATRICES or quantizer.input[0] in outputs:
            continue
        back = readers.get(quantizer.output[0], [])
        if len(readers[quantizer.input[0]]) != 1 or len(back) != 1 or back[0].op_type != "DequantizeLinear":
            continue
        after = readers.get(back[0].output[0], [])
        if any(node.op_type in (*CONVOLUTIONS, *MATRICES, *_BETWEEN) for node in after):
            continue
        product.output[0] = back[0].output[0]
        gone += [quantizer.name, back[0].name]
    kept = [node for node in graph.node if node.name not in gone]
    del graph.node[:]
    graph.node.extend(kept)


def _keep_in_float(graph: Any) -> None:
    """A Clip without bounds in front of each layer whose weights stayed float32.

    ONNX Runtime quantizes such weights by itself when it finds a layer between DequantizeLinear and QuantizeLinear
    (its WeightBiasQuantization), and what was to stay in float would not. It leaves this Clip where it is.
    """
    from onnx import helper

    back = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    nodes = []
    for node in graph.node:
        if node.op_type in (*CONVOLUTIONS, "Gemm") and node.input[0] in back and node.input[1] not in back:
            name = f"{node.name}/in_float"
            nodes.append(helper.make_node("Clip", [node.input[0]], [name], name=name))
            node.input[0] = name
        nodes.append(node)
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
