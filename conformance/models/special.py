"""Models with what runtimes and protocols stumble over: branches, loops, state, optional inputs, sequences."""

from __future__ import annotations

import numpy as np
from onnx import helper

from conformance.models.build import T, constant, floats, graph, info, model, node, proto


def branches() -> bytes:
    """flag BOOL [1], x FP32 [N] -> y FP32 [N]: x + 1 when the flag is set, x - 1 when not (If)."""
    then = graph([node("Add", ["x", "one"], ["up"])], [], [info("up", T.FLOAT, ["N"])], name="then")
    other = graph([node("Sub", ["x", "one"], ["down"])], [], [info("down", T.FLOAT, ["N"])], name="else")
    return model(
        [node("If", ["flag"], ["y"], then_branch=then, else_branch=other)],
        [info("flag", T.BOOL, [1]), info("x", T.FLOAT, ["N"])],
        [info("y", T.FLOAT, ["N"])],
        [floats("one", 1)],
    )


def loop() -> bytes:
    """n INT64 [], x FP32 [N] -> y FP32 [N] = x · 2^n, steps INT64 [S] = 0 … n-1 (Loop with a scan output)."""
    body = graph(
        [
            node("Add", ["v_in", "v_in"], ["v_out"]),
            node("Identity", ["go_in"], ["go_out"]),
            node("Identity", ["i"], ["step"]),
        ],
        [info("i", T.INT64, []), info("go_in", T.BOOL, []), info("v_in", T.FLOAT, ["N"])],
        [info("go_out", T.BOOL, []), info("v_out", T.FLOAT, ["N"]), info("step", T.INT64, [])],
    )
    return model(
        [node("Loop", ["n", "", "x"], ["y", "steps"], body=body)],
        [info("n", T.INT64, []), info("x", T.FLOAT, ["N"])],
        [info("y", T.FLOAT, ["N"]), info("steps", T.INT64, ["S"])],
    )


def state() -> bytes:
    """x FP32 [1], state_in FP32 [1] -> y FP32 [1], state_out FP32 [1]: a running sum kept by the caller."""
    return model(
        [node("Add", ["x", "state_in"], ["state_out"]), node("Identity", ["state_out"], ["y"])],
        [info("x", T.FLOAT, [1]), info("state_in", T.FLOAT, [1])],
        [info("y", T.FLOAT, [1]), info("state_out", T.FLOAT, [1])],
    )


def default() -> bytes:
    """x FP32 [N], scale FP32 [1] (2 unless given: an initializer of the same name) -> y FP32 [N] = x · scale."""
    return model(
        [node("Mul", ["x", "scale"], ["y"])],
        [info("x", T.FLOAT, ["N"]), info("scale", T.FLOAT, [1])],
        [info("y", T.FLOAT, ["N"])],
        [floats("scale", 2)],
    )


def optional() -> bytes:
    """x FP32 [N], extra optional FP32 [N] -> y FP32 [N] = x + extra, or x without it."""
    kind = helper.make_optional_type_proto(helper.make_tensor_type_proto(T.FLOAT, ["N"]))
    extra = helper.make_value_info("extra", kind)
    there = graph(
        [node("OptionalGetElement", ["extra"], ["e"]), node("Add", ["x", "e"], ["both"])],
        [],
        [info("both", T.FLOAT, ["N"])],
        name="there",
    )
    absent = graph([node("Identity", ["x"], ["alone"])], [], [info("alone", T.FLOAT, ["N"])], name="absent")
    return model(
        [
            node("OptionalHasElement", ["extra"], ["has"]),
            node("If", ["has"], ["y"], then_branch=there, else_branch=absent),
        ],
        [info("x", T.FLOAT, ["N"]), extra],
        [info("y", T.FLOAT, ["N"])],
    )


def zipmap() -> bytes:
    """x FP32 [N,3] -> label INT64 [N], probabilities sequence of map INT64 to FP32, as classifiers are exported."""
    classes = [7, 8, 9]
    kind = helper.make_sequence_type_proto(
        helper.make_map_type_proto(T.INT64, helper.make_tensor_type_proto(T.FLOAT, []))
    )
    return model(
        [
            node(
                "LinearClassifier",
                ["x"],
                ["label", "scores"],
                domain="ai.onnx.ml",
                coefficients=np.eye(3, dtype=np.float32).ravel().tolist(),
                intercepts=[0.0, 0.0, 0.0],
                classlabels_ints=classes,
                multi_class=0,
                post_transform="SOFTMAX",
            ),
            node("ZipMap", ["scores"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=classes),
        ],
        [info("x", T.FLOAT, ["N", 3])],
        [info("label", T.INT64, ["N"]), helper.make_value_info("probabilities", kind)],
    )


def sequence() -> bytes:
    """x FP32 [N] -> count INT64 [], parts sequence of FP32: the elements of x one by one, and how many."""
    parts = helper.make_tensor_sequence_value_info("parts", T.FLOAT, None)
    return model(
        [node("SplitToSequence", ["x", "one"], ["parts"], axis=0), node("SequenceLength", ["parts"], ["count"])],
        [info("x", T.FLOAT, ["N"])],
        [info("count", T.INT64, []), parts],
        [constant("one", np.array(1, np.int64))],
    )


def external(location: str) -> tuple[bytes, bytes]:
    """x FP32 [N] -> y FP32 [N] = x + 5, with the 5 in a file of its own beside the model: (model, that file)."""
    made = proto(
        [node("Add", ["x", "offset"], ["y"])],
        [info("x", T.FLOAT, ["N"])],
        [info("y", T.FLOAT, ["N"])],
        [floats("offset", 5)],
    )
    tensor = made.graph.initializer[0]
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = T.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(len(data)))):
        tensor.external_data.add(key=key, value=value)
    return made.SerializeToString(), data
