"""The suite itself: a server that lies must not pass, and the description of the service must be read right."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from conformance import core, report, tensors
from conformance.__main__ import main
from conformance.target import Target

ROOT = Path(__file__).resolve().parents[2]
# What a server can do right by answering 200 and an empty object to everything.
VACUOUS = {
    "health.live",
    "health.ready",
    "http.close",
    "http.head.live",
    "http.head.metadata",
    "http.head.status",
    "http.keep-alive.404",
    "http.query",
    "model-ready",
    "model-ready.version",
}


class _YesMan(BaseHTTPRequestHandler):
    """Answers 200 and {} to everything."""

    protocol_version = "HTTP/1.1"
    timeout = 5

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0) % (1 << 30))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"{}")

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def yes_man() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _YesMan)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_required_checks_fail_when_a_server_says_yes_to_everything(yes_man: str) -> None:
    target = Target(yes_man)
    chosen = [c for c in core.all_checks() if c.level == core.REQUIRED and not c.name.startswith(("http.", "grpc."))]
    passed = {o.check.name for o in core.run_all(target, chosen) if o.result == core.PASS}
    target.close()
    assert passed <= VACUOUS, passed - VACUOUS


def test_exit_code_is_1_when_a_required_check_fails(yes_man: str, tmp_path: Path) -> None:
    out, table = tmp_path / "r.json", tmp_path / "r.md"
    assert main([yes_man, "--only", "server-metadata", "--json", str(out), "--markdown", str(table)]) == 1
    rows = json.loads(out.read_text())["checks"]
    assert {row["result"] for row in rows if row["level"] == "required"} == {"fail"}
    assert "| **fail** |" in table.read_text()


def test_exit_code_is_0_when_only_extensions_fail(yes_man: str) -> None:
    assert main([yes_man, "--only", "health.live"]) == 0


def test_exit_code_is_2_when_nobody_listens() -> None:
    assert main(["http://127.0.0.1:9", "--only", "health"]) == 2


def test_grpc_is_not_offered_when_no_address_is_given(yes_man: str) -> None:
    target = Target(yes_man)
    found = core.run_all(target, [c for c in core.all_checks() if c.name.startswith("grpc.")])
    target.close()
    assert {o.result for o in found} == {core.NOT_OFFERED}


def test_model_is_looked_for_under_the_name_the_server_gave_it(yes_man: str) -> None:
    target = Target(yes_man, names={"tiny": "other"})
    assert target.path("tiny", "infer", "3") == "/v2/models/other/versions/3/infer"
    target.close()


def test_suite_imports_nothing_of_the_product() -> None:
    code = (
        "import conformance.__main__, conformance.core, sys; conformance.core.all_checks();"
        "print(sorted(n for n in sys.modules if n.split('.')[0] in {'serving', 'django', 'engine', 'slipway'}))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("datatype", tensors.DTYPES)
def test_tensor_survives_when_it_is_packed_and_unpacked(datatype: str) -> None:
    array = tensors.sample(datatype)
    assert tensors.same(tensors.unpack(datatype, array.shape, tensors.pack(datatype, array)), array)


def test_same_tells_tensors_apart_when_one_value_or_the_shape_differs() -> None:
    array = tensors.sample("FP32")
    other = array.copy()
    other[1, 1] = 0
    assert not tensors.same(array, other)
    assert not tensors.same(array, array.ravel())
    assert tensors.same(np.array(["a"], object), np.array([b"a"], object))


def test_messages_agree_with_tritons_own_when_both_read_the_same_bytes() -> None:
    service_pb2 = pytest.importorskip("tritonclient.grpc.service_pb2")
    from conformance.rpc import client, schema

    request = client.infer_request("m", [("x", "FP32", np.ones((1, 2), np.float32))], False, ["y"], id="7")
    request.parameters["k"].int64_param = 5
    request.inputs[0].parameters["p"].string_param = "s"
    theirs = service_pb2.ModelInferRequest.FromString(request.SerializeToString())
    assert theirs.id == "7" and theirs.parameters["k"].int64_param == 5
    assert list(theirs.inputs[0].contents.fp32_contents) == [1, 1]
    assert theirs.inputs[0].parameters["p"].string_param == "s" and theirs.outputs[0].name == "y"
    for name in ("ModelInferResponse", "ModelStatisticsResponse", "RepositoryIndexResponse", "ServerMetadataResponse"):
        ours = schema.message(name).DESCRIPTOR.fields_by_name
        known = getattr(service_pb2, name).DESCRIPTOR.fields_by_name
        assert {key: field.number for key, field in ours.items()}.items() <= {
            key: field.number for key, field in known.items()
        }.items()


def test_evidence_is_one_line_when_a_server_answers_with_many() -> None:
    assert core.one_line("a\n\tb\0c") == "a b c"
    assert len(core.one_line("x" * 1000)) == core.EVIDENCE_LENGTH
    assert report.summary([]) == ""
