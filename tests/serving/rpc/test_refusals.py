"""gRPC: every refusal with its status, and what a refused client may still do."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from serving.protocol import protobuf
from tests.serving.conftest import Server, wait_until
from tests.serving.grpc_client import Client, request, rows, typed


def changed(**fields: object) -> object:
    made = rows()
    for name, value in fields.items():
        setattr(made.inputs[0], name, value)
    return made


def both_ways() -> object:
    made = rows()
    made.inputs[0].contents.fp32_contents.extend([1, 2, 3, 4])
    return made


def shaped(*dims: int) -> object:
    made = rows()
    made.inputs[0].shape[:] = dims
    return made


def twice(large: bool = False) -> object:
    made = rows()
    made.inputs.append(made.inputs[0])
    made.raw_input_contents.append(made.raw_input_contents[0])
    if large:
        made.raw_input_contents.append(bytes(1 << 20))
    return made


def shared() -> object:
    made = rows()
    made.inputs[0].parameters["shared_memory_region"].string_param = "r"
    return made


def extra_raw() -> object:
    made = rows()
    made.raw_input_contents.append(b"")
    return made


REFUSALS = {
    "name": (lambda: changed(name="z"), "no input 'z'"),
    "datatype": (lambda: changed(datatype="FP64"), "does not fit the model's FP32"),
    "unknown datatype": (lambda: changed(datatype="FP99"), "is unknown"),
    "shape": (lambda: shaped(2, 2), "does not fit the model's [-1, 4]"),
    "negative": (lambda: shaped(-1, 4), "is negative"),
    "bytes": (lambda: shaped(2, 4), "needs 32 bytes, 16 were given"),
    "overflowing": (lambda: shaped(1 << 62, 4), "needs"),
    "both ways": (both_ways, "beside the request's raw_input_contents"),
    "twice": (twice, "given twice"),
    "twice, large": (lambda: twice(True), "for 2 inputs"),
    "raw count": (extra_raw, "2 tensors for 1 inputs"),
    "missing": (lambda: protobuf.message("ModelInferRequest")(model_name="tiny"), "'x' is missing"),
    "shared memory": (shared, "shared memory is not offered"),
    "output": (lambda: rows(outputs=[{"name": "z"}]), "no output 'z'"),
    "output twice": (lambda: rows(outputs=[{"name": "label"}] * 2), "requested twice"),
    "long id": (lambda: rows(id="x" * 1025), "at most 1024"),
    "count": (lambda: typed("tiny", "FP32", [1, 4], fp32_contents=[1]), "needs 4 values, 1 were given"),
    "no contents": (lambda: typed("tiny", "FP32", [1, 4]), "needs 4 values, 0 were given"),
    "other field": (lambda: typed("tiny", "FP32", [1, 4], fp64_contents=[1] * 4), "belong in fp32_contents"),
    "int8 range": (lambda: typed("id-int8", "INT8", [1, 2], int_contents=[1, 128]), "128 does not fit INT8"),
    "uint16 range": (
        lambda: typed("id-uint16", "UINT16", [1, 1], uint_contents=[65536]), "65536 does not fit UINT16",
    ),
    "fp16 typed": (lambda: typed("id-fp16", "FP16", [1, 1], fp32_contents=[1]), "send it in raw_input_contents"),
    "not utf-8": (lambda: typed("id-bytes", "BYTES", [1, 1], bytes_contents=[b"\xff"]), "not valid UTF-8"),
    "bool": (lambda: request("id-bool", ("x", "BOOL", np.array([[2]], np.uint8))), "must be 0 or 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_bad_requests_are_invalid_arguments_with_a_reason(client: Client, case: str) -> None:
    make, reason = REFUSALS[case]
    status, text = client.refused(make())
    assert status == "INVALID_ARGUMENT" and reason in text, text
    assert client.infer(rows()).outputs


def test_failures_have_their_statuses(client: Client) -> None:
    assert client.refused(rows("none")) == ("NOT_FOUND", "there is no such model")
    assert client.refused(rows("broken"))[0] == "UNAVAILABLE"
    status, text = client.refused(request("lookup", ("i", "INT64", np.array([7]))))
    assert status == "INTERNAL" and "reference" in text
    with pytest.raises(grpc.RpcError) as caught:
        client.channel.unary_unary(f"/{protobuf.SERVICE}/Nothing", bytes, bytes)(b"", timeout=10)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    "body",
    [b"\xff" * 10, b"\x0a\x04ti", b"\x0a\x02\xff\xff", b"\xff" * 100_000, b"\x0b" * 100_000, b"\x3a\xff\xff\xff\xff\x0f"
     + b"\0" * 100_000, b"\x10\x01" * 100_000],
)  # fmt: skip
def test_broken_messages_are_refused_and_the_connection_lives(client: Client, body: bytes) -> None:
    call = client.channel.unary_unary(f"/{protobuf.SERVICE}/ModelInfer", bytes, bytes)
    with pytest.raises(grpc.RpcError) as caught:
        call(body, timeout=10)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT, caught.value.details()
    assert client.infer(rows()).outputs


def test_two_names_in_a_large_message_are_refused(client: Client) -> None:
    one = request("id-fp32", ("x", "FP32", np.zeros((100, 1000), np.float32))).SerializeToString()
    call = client.channel.unary_unary(f"/{protobuf.SERVICE}/ModelInfer", bytes, bytes)
    # The last one counts, by the rules of the format: what is surveyed is what is read.
    with pytest.raises(grpc.RpcError) as caught:
        call(one + b"\x0a\x04none", timeout=10)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_messages_beyond_the_limit_or_compressed_are_refused(server: Server, client: Client) -> None:
    over = request("id-fp32", ("x", "FP32", np.zeros((1100, 1000), np.float32)))
    assert client.refused(over)[0] == "RESOURCE_EXHAUSTED"
    bomb = request("id-fp32", ("x", "FP32", np.zeros((1000, 1000), np.float32)))
    with pytest.raises(grpc.RpcError) as caught:
        client.infer(bomb, compression=grpc.Compression.Gzip)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert server.client.get("/healthz").status_code == 200


def test_deadlines_end_calls_and_the_server_lives_on(server: Server, client: Client) -> None:
    assert client.refused(rows("slow", 1), timeout=0.05)[0] == "DEADLINE_EXCEEDED"
    call = client.start(rows("slow"))
    call.cancel()
    assert call.code() == grpc.StatusCode.CANCELLED
    gone = Client(server.grpc)
    gone.start(rows("slow"))
    gone.close()
    wait_until(lambda: 'status="499"' in server.client.get("/metrics").text)
    assert client.infer(rows()).outputs
    wait_until(lambda: "slipway_inflight_requests 0" in _plain(server.client.get("/metrics").text), what="idle")


def _plain(text: str) -> str:
    """Samples without their labels."""
    lines = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return "\n".join(f"{first.split('{')[0]} {float(last):g}" for first, *_, last in lines)
