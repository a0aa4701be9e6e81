"""PMML that has no exact ONNX, served by the real Java: what comes out is what jpmml-evaluator says."""

from __future__ import annotations

import json
import os
import signal
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from engine.errors import EngineError
from engine.evaluate.rows import Rows
from engine.export.to_onnx.pmml import convert
from tests.engine.conftest import environments_root, java_python  # noqa: F401 - fixtures
from tests.serving import models
from tests.serving.conftest import Server, alive, wait_until
from tests.serving.control_plane import ControlPlane, deployment, endpoint
from tests.serving.grpc_client import Client, ModelInferRequest
from tests.serving.pmml_documents import DOCUMENTS, HANGS, ROWS, told_by_java

BAD = {
    "unknown word": ("bayes", {"fur": ["green"], "weight": [1.0]}, 'Field "fur" cannot accept invalid value'),
    "second row": ("bayes", {"fur": ["long", "x"], "weight": [1.0, 2.0]}, "row 1: "),
    "half a number": ("clusters", {"x": [1.5], "y": [0.0]}, 'Field "x" cannot accept invalid value 1.5'),
    "unequal rows": ("bayes", {"fur": ["long"], "weight": [1.0, 2.0]}, "same number of rows"),
    "no such input": ("bayes", {"size": [1.0]}, "no input 'size'"),
}


@pytest.fixture(scope="module")
def java(java_python: Path) -> dict[str, dict[str, list[Any]]]:  # noqa: F811
    return told_by_java(java_python)


@pytest.fixture
def served(control: ControlPlane, serve: Callable[..., Server], java_python: Path, tmp_path: Path) -> Iterator[Server]:  # noqa: F811
    """All documents and an ONNX model behind a real control plane's stub, two processes."""
    documents = {**DOCUMENTS, "hangs": HANGS}
    found = [
        endpoint(name, deployment(name, control.add(text.encode()), form="pmml")) for name, text in documents.items()
    ]
    control.publish(*found, endpoint("onnx", deployment("onnx", control.add(models.classifier()))))
    server = serve(
        *("--home", str(tmp_path / "home"), "--control-url", control.url, "--grpc-port", "0"),
        env={"SLIPWAY_PMML_PYTHON": str(java_python), "SLIPWAY_PMML_HEAP_MB": "128", "SLIPWAY_PMML_RUN_S": "3"},
        processes=2,
    )
    for name in documents:
        server.wait_ready(name)
    yield server


def tensors(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Columns as V2's JSON has them; "" is a missing text, and a missing number has no word in JSON."""
    return [
        {"name": name, "shape": [len(values)], "datatype": kind(values), "data": [v or "" for v in values]}
        if kind(values) == "BYTES"
        else {"name": name, "shape": [len(values)], "datatype": "FP64", "data": values}
        for name, values in columns.items()
    ]


def kind(values: list[Any]) -> str:
    return "BYTES" if any(isinstance(value, str) for value in values) else "FP64"


def raw(values: list[Any]) -> bytes:
    if kind(values) == "FP64":
        return np.array([np.nan if value is None else value for value in values], np.float64).tobytes()
    texts = [(value or "").encode() for value in values]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def whole(columns: dict[str, list[Any]], row: int) -> dict[str, list[Any]]:
    """One row, without what is missing."""
    return {name: [values[row]] for name, values in columns.items() if values[row] is not None}


def scorers(server: Server) -> list[int]:
    """Every process of the scorer: those below the supervisor that run the sandbox's child."""
    return [
        pid for pid in below(server.process.pid) if b"sandbox/child.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def below(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [each for child in text.split() for each in (int(child), *below(int(child)))]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_converter_refuses_when_the_document_is_one_of_ours(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pmml"
    path.write_text(DOCUMENTS[name])
    with pytest.raises(EngineError, match="no way to ONNX"):
        convert(path, Rows([], None, {}, None), None)


def test_every_transport_says_what_java_says_when_pmml_is_served(
    served: Server, java: dict[str, dict[str, list[Any]]]
) -> None:
    grpc = Client(served.grpc)
    for name, columns in ROWS.items():
        expected = java[name]
        rows = len(next(iter(columns.values())))
        for row in range(rows):  # JSON, where an input that is missing is left out
            given = whole(columns, row)
            if given:
                answer = served.infer(name, *tensors(given)).json()
                assert {o["name"]: o["data"] for o in answer["outputs"]} == {o: [v[row]] for o, v in expected.items()}
        blobs = {column: raw(values) for column, values in columns.items()}
        head = {
            "inputs": [
                {"name": column, "shape": [rows], "datatype": kind(columns[column]),
                 "parameters": {"binary_data_size": len(blob)}}
                for column, blob in blobs.items()
            ],
            "parameters": {"binary_data_output": True},
        }  # fmt: skip
        text = json.dumps(head).encode()
        body = b"".join((text, *blobs.values()))
        sized = {"inference-header-content-length": str(len(text))}
        answer = served.client.post(f"/v2/models/{name}/infer", content=body, headers=sized)
        size = int(answer.headers["inference-header-content-length"])
        outputs = json.loads(answer.content[:size])["outputs"]
        assert answer.content[size:] == b"".join(raw(expected[output["name"]]) for output in outputs)
        request = ModelInferRequest(model_name=name)
        for column, blob in blobs.items():
            request.inputs.add(name=column, datatype=kind(columns[column]), shape=[rows])
            request.raw_input_contents.append(blob)
        told = grpc.infer(request)
        assert list(told.raw_output_contents) == [raw(expected[output.name]) for output in told.outputs]
        assert [output.name for output in told.outputs] == list(expected)


def test_metadata_names_columns_when_pmml_is_served(served: Server) -> None:
    told = served.client.get("/v2/models/scorecard").json()
    assert told["platform"] == "pmml"
    assert [(t["name"], t["datatype"], t["shape"]) for t in told["inputs"]] == [
        ("colour", "BYTES", [-1]),
        ("age", "FP64", [-1]),
    ]
    assert [(t["name"], t["datatype"]) for t in told["outputs"]] == [
        ("score", "FP64"),
        ("points", "FP64"),
        ("first reason", "BYTES"),
        ("second reason", "BYTES"),
    ]
    config = served.client.get("/v2/models/bayes/config").json()
    assert config["backend"] == "jpmml-evaluator" and all(entry["optional"] for entry in config["input"])
    assert len([pid for pid in scorers(served) if pid in served.children()]) == 1  # for both processes


def test_inputs_are_refused_with_400_when_the_document_does_not_allow_them(served: Server) -> None:
    for name, columns, words in BAD.values():
        answer = served.infer(name, *tensors(columns))
        assert answer.status_code == 400 and words in answer.json()["error"], answer.text
        assert "org.jpmml" not in answer.text
        assert served.infer(name, *tensors(whole(ROWS[name], 0))).status_code == 200


def test_requests_get_503_then_answers_when_the_scorer_is_killed(served: Server) -> None:
    given, seen, stop = tensors(whole(ROWS["bayes"], 0)), [], threading.Event()

    def ask() -> None:
        while not stop.is_set():
            seen.append((served.infer("bayes", *given), served.infer("onnx", models.rows())))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        wait_until(lambda: served.infer("bayes", *given).status_code == 200)
        before = scorers(served)
        os.kill(before[-1], signal.SIGKILL)
        wait_until(lambda: served.infer("bayes", *given).status_code == 503)
        wait_until(lambda: served.client.get("/v2/models/bayes/ready").status_code == 503)
    wait_until(lambda: served.infer("bayes", *given).status_code == 200, what="the scorer's return")
    time.sleep(0.5)
    stop.set()
    for thread in threads:
        thread.join()
    told = [answer for answer, _ in seen]
    assert {answer.status_code for answer in told} == {200, 503}
    assert all(answer.headers["retry-after"] == "1" for answer in told if answer.status_code == 503)
    assert {answer.text for answer in told if answer.status_code == 503} == {
        '{"error":"the JVM scorer of this model is starting again"}'
    }
    assert {other.status_code for _, other in seen} == {200}
    for name in DOCUMENTS:
        wait_until(lambda name=name: served.infer(name, *tensors(whole(ROWS[name], 0))).status_code == 200)


def test_hanging_run_gets_504_and_a_new_scorer_and_others_are_answered_all_along(served: Server) -> None:
    text = {"name": "text", "shape": [1], "datatype": "BYTES"}
    assert served.infer("hangs", {**text, "data": ["aaab"]}).json()["outputs"][0]["data"] == [1.0]
    given, stop, before = tensors(whole(ROWS["bayes"], 0)), threading.Event(), scorers(served)
    expected = served.infer("bayes", *given).json()["outputs"]
    seen: list[Any] = []

    def ask() -> None:
        with httpx.Client(base_url=served.url, timeout=20) as client:
            while not stop.is_set():
                seen.append(client.post("/v2/models/bayes/infer", json={"inputs": given}))
                seen.append(client.post("/v2/models/onnx/infer", json={"inputs": [models.rows()]}))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    hung = served.infer("hangs", {**text, "data": ["a" * 60]})
    assert hung.status_code == 504 and 3 <= time.monotonic() - began < 6, hung.text
    assert hung.json() == {"error": "the JVM scorer of this model did not answer in time"}
    wait_until(lambda: scorers(served) and not set(scorers(served)) & set(before), what="the next scorer")
    assert served.infer("hangs", {**text, "data": ["b"]}).json()["outputs"][0]["data"] == [2.0]
    time.sleep(1)
    stop.set()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in seen} == {200}, [a.text for a in seen if a.status_code != 200][:3]
    assert all(a.json()["outputs"] == expected for a in seen if a.json()["model_name"] == "bayes")
    assert not any(alive(pid) for pid in before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_java_is_left_when_the_server_ends(served: Server, number: signal.Signals) -> None:
    pids = scorers(served)
    assert len(pids) >= 2
    served.process.send_signal(number)
    served.process.wait(20)
    wait_until(lambda: not any(alive(pid) for pid in pids), 5)


def test_scorer_goes_when_no_model_wants_it_and_comes_back_for_one(served: Server, control: ControlPlane) -> None:
    pids = scorers(served)
    control.publish(endpoint("onnx", deployment("onnx", models.classifier())))
    wait_until(lambda: not any(alive(pid) for pid in pids), what="the end of the scorer")
    control.publish(endpoint("bayes", deployment("b2", DOCUMENTS["bayes"].encode(), form="pmml")))
    served.wait_ready("bayes")
    assert served.infer("bayes", *tensors(whole(ROWS["bayes"], 1))).status_code == 200


def test_deployment_says_why_when_pmml_cannot_be_served(
    control: ControlPlane,
    serve: Callable[..., Server],
    java_python: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    bayes = endpoint("bayes", deployment("1", control.add(DOCUMENTS["bayes"].encode()), form="pmml"))
    broken = endpoint("broken", deployment("2", control.add(b"<PMML/>"), form="pmml"))
    control.publish(bayes, broken)
    reasons = {
        "": "set SLIPWAY_PMML_PYTHON",
        str(tmp_path / "none" / "bin" / "python"): "`pmml` is not prepared on this machine",
        str(java_python): "jpmml-evaluator refuses the document",
    }
    for python, words in reasons.items():
        ident = "2" if python == str(java_python) else "1"
        control.received.clear()
        server = serve(
            *("--home", str(tmp_path / "home"), "--control-url", control.url), env={"SLIPWAY_PMML_PYTHON": python}
        )
        wait_until(lambda ident=ident: control.state(ident).get("state") == "failed")
        assert words in control.state(ident)["reason"]
        server.stop()
