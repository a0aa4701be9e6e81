"""Whatever was remembered of earlier requests, a request is answered as by a server that remembers nothing."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto as T

from serving.protocol.template import Templates
from tests.serving import models
from tests.serving.inside import answer, endpoint_of, model_of

KINDS = {
    "FP32": T.FLOAT, "FP64": T.DOUBLE, "FP16": T.FLOAT16, "BF16": T.BFLOAT16, "INT8": T.INT8, "UINT8": T.UINT8,
    "INT64": T.INT64, "UINT64": T.UINT64, "BOOL": T.BOOL, "BYTES": T.STRING,
}  # fmt: skip
ENDPOINTS = {name: endpoint_of(model_of(models.identity(kind, ["N", 2]))) for name, kind in KINDS.items()}
VALUES = {"BOOL": "true", "BYTES": '"a"'}

numbers = st.one_of(
    st.integers(-300, 300).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(2**70), 2**70).map(str),
)
oddities = st.sampled_from([
    "", " ", "NaN", "-Infinity", "1e400", "-1e400", "1e-400", "-0", "-0.0", "01", "+1", ".5", "1.", "0x1", "1_0",
    "true", "null", '"a"', '"]"', "[1]", "[1,2]", "[]", "{}", "1,", ",1", "1,,2", "1 2", "/**/1", "65504", "65520",
    "3.5e38", "127", "128", "256", "9223372036854775807", "9223372036854775808", "18446744073709551616",
    "1\n", "\t1\r\n", "\x00",
    "1\x0c", "é", "1]", "1],\"data\":[2", '1],"datatype":"FP64","data":[1',
])  # fmt: skip


@st.composite
def texts(draw: st.DrawFn, datatype: str) -> tuple[str, str]:
    """What stands before and behind the numbers of a request."""
    space = draw(st.sampled_from(["", " ", "\n  "]))
    rows = draw(st.integers(0, 3))
    keys = [f'"name":{space}"x"', f'"shape":[{rows},{space}2]', f'"datatype":{space}"{datatype}"', '"data"']
    keys = draw(st.permutations(keys))
    extra = draw(
        st.sampled_from(
            ["", '"parameters":{}', '"parameters":{"data":[1,2]}', '"other":[1]', '"data":[1,2]', '"d\\u0061ta":[5,6]']
        )
    )
    if extra:
        keys.insert(draw(st.integers(0, len(keys))), extra)
    at = keys.index('"data"')
    before = f",{space}".join([*keys[:at], f'"data"{space}:{space}['])
    behind = f",{space}".join(["]", *keys[at + 1 :]]).replace("],", "],", 1)
    outer = draw(
        st.sampled_from(["", '"id":"7",', '"outputs":[{"name":"y"}],', '"outputs":[],', '"parameters":{"a":1},'])
    )
    tail = draw(
        st.sampled_from(["", ',"outputs":[{"name":"y"}]', ',"id":"8"', ',"outputs":[{"name":"z"}]', ',"x":"data"'])
    )
    return f'{{{outer}{space}"inputs":[{{{before}', f"{behind}}}]{tail}}}"


@st.composite
def conversations(draw: st.DrawFn) -> tuple[str, list[bytes]]:
    """A datatype, and requests of which many have the same text around their numbers."""
    datatype = draw(st.sampled_from(sorted(KINDS)))
    around = draw(st.lists(texts(draw(st.sampled_from([datatype, datatype, "FP32", "INT8"]))), min_size=1, max_size=2))
    bodies = []
    for _ in range(draw(st.integers(2, 5))):
        before, behind = draw(st.sampled_from(around))
        usual = st.just(VALUES[datatype]) if datatype in VALUES else numbers
        values = draw(st.lists(usual, max_size=6))
        if draw(st.booleans()):
            values.insert(draw(st.integers(0, len(values))), draw(oddities))
        joint = draw(st.sampled_from([",", ", ", " ,\n"]))
        body = bytearray(f"{before}{joint.join(values)}{behind}".encode())
        change = draw(st.sampled_from(["none", "none", "drop", "put", "cut", "more"]))
        at = draw(st.integers(0, len(body) - 1))
        if change == "drop":
            del body[at : at + draw(st.integers(1, 3))]
        elif change == "put":
            body[at:at] = draw(
                st.sampled_from([b'"', b"]", b"[", b"}", b"{", b",", b"\\", b"1", b"\xff", b"\x00", b'"data":['])
            )
        elif change == "cut":
            del body[at:]
        elif change == "more":
            body += draw(st.sampled_from([b" ", b"\n", b"x", b"]", b"{}", b"\x00"]))
        bodies.append(bytes(body))
    return datatype, bodies


@settings(max_examples=400, deadline=None)
@given(conversations())
@example(("FP32", [b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}'] * 2))
def test_request_is_answered_as_if_nothing_were_remembered(conversation: tuple[str, list[bytes]]) -> None:
    datatype, bodies = conversation
    endpoint = ENDPOINTS[datatype]
    fresh = []
    for body in bodies:
        endpoint.templates = Templates()
        fresh.append(answer(endpoint, body))
    endpoint.templates = Templates()
    assert [answer(endpoint, body) for body in bodies] == fresh
    # And in any other order.
    assert [answer(endpoint, body) for body in reversed(bodies)] == fresh[::-1]


def body_of(values: str, shape: str = "[1,2]") -> bytes:
    return f'{{"inputs":[{{"name":"x","shape":{shape},"datatype":"FP32","data":[{values}]}}]}}'.encode()


def test_usual_request_is_read_by_what_is_remembered() -> None:
    endpoint = ENDPOINTS["FP32"]
    endpoint.templates = Templates()
    assert endpoint.templates.find(body_of("1,2")) is None
    assert answer(endpoint, body_of("1,2"))[0] == 200
    assert endpoint.templates.find(body_of("3,4")) is not None
    status, text = answer(endpoint, body_of("3,4"))
    assert status == 200 and json.loads(text)["outputs"][0]["data"] == [3, 4]


@pytest.mark.parametrize(
    "values", ["1,2,3", "1", "", "1,[2]", "1,null", '1,"2"', "1,1e400", "1,NaN", "1,3.5e38", "1 2"]
)
def test_refusal_is_the_same_when_the_text_is_known(values: str) -> None:
    endpoint = ENDPOINTS["FP32"]
    endpoint.templates = Templates()
    plain = answer(endpoint, body_of(values))
    assert plain[0] == 400
    answer(endpoint, body_of("1,2"))
    assert answer(endpoint, body_of(values)) == plain


def test_texts_remembered_are_bounded() -> None:
    endpoint = ENDPOINTS["FP32"]
    endpoint.templates = Templates()
    for number in range(1000):
        values = ",".join(["1,2"] * (number % 300))
        assert answer(endpoint, body_of(values, f"[{number % 300}, {' ' * number}2]"))[0] == 200
    assert len(endpoint.templates._held) <= 256
    long = body_of("1,2").replace(b'"inputs"', b" " * 5000 + b'"inputs"')
    assert answer(endpoint, long)[0] == 200
    assert all(len(before) + len(behind) < 5000 for before, behind in endpoint.templates._held)


def test_text_fits_one_model_and_not_its_sibling_when_their_signatures_differ() -> None:
    endpoint = endpoint_of(model_of(models.identity(T.FLOAT, ["N", 2])), model_of(models.identity(T.FLOAT, ["N", 3])))
    body = body_of("1,2")
    said = {}
    for _ in range(60):
        status, text = answer(endpoint, body)
        said.setdefault(status, set()).add(text)
    assert set(said) == {200, 400} and len(said[200]) == len(said[400]) == 1
    assert "does not fit the model's [-1, 3]" in next(iter(said[400]))
