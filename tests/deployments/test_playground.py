"""The playground: which inputs a signature asks for, answers as tables, snippets that run, who may send."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.test import Client

from deployments.answers import answer_table
from deployments.inputs import class_names, inputs_of
from deployments.models import Endpoint
from registry import examples, snippets, storage
from registry.models import Artifact, Dataset, Version

Browser = Callable[[str], Client]


def signature(*inputs: tuple[str, str, list[int]]) -> dict[str, Any]:
    return {"inputs": [{"name": name, "datatype": kind, "shape": shape} for name, kind, shape in inputs]}


@pytest.mark.parametrize(
    ("inputs", "kinds", "first"),
    [
        ([("x", "FP32", [-1, 64])], ["table", "json"], "table"),
        ([("x", "FP32", [-1, -1])], ["json"], "json"),
        ([("x", "FP32", [-1, 100_000])], ["json"], "json"),
        ([("age", "INT64", [-1, 1]), ("town", "BYTES", [-1, 1])], ["table", "json"], "table"),
        ([("x", "FP32", [-1, 3, 32, 32])], ["image", "json"], "image"),
        ([("x", "UINT8", [1, -1, -1, 3])], ["image", "json"], "image"),
        ([("x", "FP32", [-1, 28, 28])], ["image", "json"], "image"),
        ([("x", "FP32", [-1, 7, 32, 32])], ["json"], "json"),
        ([("x", "FP32", [8, 3, 32, 32])], ["json"], "json"),
        ([("x", "BYTES", [-1])], ["text", "json"], "text"),
        ([("x", "BYTES", [-1, 1])], ["text", "json"], "text"),
        ([("x", "FP32", [-1, 3, 32, 32]), ("y", "FP32", [-1, 3])], ["json"], "json"),
        ([], ["json"], "json"),
    ],
)
def test_inputs_are_told_from_the_signature(inputs: Any, kinds: list[str], first: str) -> None:
    found = inputs_of(signature(*inputs), None)
    assert (found["kinds"], found["first"]) == (kinds, first)


@pytest.mark.parametrize(
    ("shape", "layouts"),
    [
        ([-1, 3, 32, 32], [("NCHW", 3, 32, 32)]),
        ([-1, 224, 224, 3], [("NHWC", 3, 224, 224)]),
        ([-1, -1, -1, 3], [("NHWC", 3, None, None)]),
        ([-1, 1, 28, 28], [("NCHW", 1, 28, 28)]),
        ([3, 32, 32], [("CHW", 3, 32, 32)]),
        ([1, 28, 28], [("CHW", 1, 28, 28), ("NHW", 1, 28, 28)]),
        ([-1, -1, -1, -1], [("NCHW", 3, None, None), ("NHWC", 3, None, None)]),
    ],
)
def test_layouts_are_guessed_from_the_shape(shape: list[int], layouts: list[Any]) -> None:
    found = inputs_of(signature(("x", "FP32", shape)), None)["image"]["layouts"]
    assert [(one["name"], one["channels"], one["height"], one["width"]) for one in found] == layouts


def test_columns_are_named_by_the_version_when_it_tells_their_order() -> None:
    tensor = signature(("x", "FP32", [-1, 3]))
    recorded = signature(("age", "FP64", [-1]), ("height", "FP64", [-1]), ("a", "FP64", [-1]))
    named = inputs_of(tensor, Version(signature=recorded))["table"]
    assert [column["name"] for column in named["columns"]] == ["age", "height", "a"] and named["named"]
    numbered = Version(signature={}, baseline={"features": {"p_10": {}, "p_2": {}, "p_1": {}}})
    assert [one["name"] for one in inputs_of(tensor, numbered)["table"]["columns"]] == ["p_1", "p_2", "p_10"]
    lost = inputs_of(tensor, Version(signature={}, baseline={"features": {"b": {}, "a": {}, "c": {}}}))["table"]
    assert [one["name"] for one in lost["columns"]] == ["x0", "x1", "x2"] and not lost["named"]


def output(name: str, kind: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": kind, "shape": shape, "data": data}


def test_answer_shows_the_label_first_and_named_chances() -> None:
    document = {
        "outputs": [output("scores", "FP32", [2, 3], [0.1, 0.7, 0.2, 1, 0, 0]), output("label", "INT64", [2], [1, 0])]
    }
    table = answer_table(document, ["ant", "bee", "cat"])
    assert table is not None and table["outputs"] == ["label", "scores"]
    first, second = table["rows"]
    assert first[0] == {"value": "1", "name": "bee"} and second[0]["name"] == "ant"
    assert [bar["name"] for bar in first[1]["bars"]] == ["bee", "cat", "ant"]
    assert first[1]["bars"][0]["percent"] == 70


@pytest.mark.parametrize(
    ("one", "cell"),
    [
        (output("y", "FP32", [1, 1], [2.5]), {"value": "2.5", "name": ""}),
        (output("y", "FP32", [1], [None]), {"value": "–", "name": ""}),
        (output("y", "BYTES", [1], ["spam"]), {"value": "spam", "name": ""}),
        (output("y", "FP32", [1, 8], list(range(8))), {"list": ["0", "1", "2", "3", "4", "5"], "more": 2}),
    ],
)
def test_answer_shows_other_outputs_as_values(one: dict[str, Any], cell: dict[str, Any]) -> None:
    table = answer_table({"outputs": [one]}, [])
    assert table is not None and table["rows"] == [[cell]]


@pytest.mark.parametrize(
    "document",
    [None, [], {}, {"outputs": []}, {"outputs": [3]}, {"outputs": [output("y", "FP32", [2], [1])]},
     {"outputs": [{"name": "y", "shape": ["a"], "data": []}]}, {"outputs": [{"name": "y", "shape": [1]}]}],
)  # fmt: skip
def test_no_table_when_the_answer_is_of_another_shape(document: Any) -> None:
    assert answer_table(document, []) is None


def test_long_answers_are_cut_and_wide_outputs_named() -> None:
    many = [output("label", "INT64", [80], [0] * 80), output("map", "FP32", [80, 2, 2], [0.0] * 320)]
    table = answer_table({"outputs": many}, [])
    assert table is not None
    assert (
        len(table["rows"]) == 50 and table["more"] == 30 and table["others"] == [{"name": "map", "shape": [80, 2, 2]}]
    )


def test_classes_are_those_of_the_exporter_or_numbered(artifacts: list[Artifact]) -> None:
    artifact, version = artifacts[0], artifacts[0].version
    version.baseline = {"target": {"10": 1, "2": 1}}
    assert class_names(artifact, version) == ["2", "10"]
    artifact.recipe = {"labels": ["no", "yes"]}
    assert class_names(artifact, version) == ["no", "yes"]
    derived = Artifact(version=version, parent=artifact, recipe={"optimizer": "int8"})
    assert class_names(derived, version) == ["no", "yes"]


@pytest.mark.parametrize("token", [True, False])
@pytest.mark.parametrize("count", [4, 4000])
def test_snippets_are_whole_programs(token: bool, count: int) -> None:
    body = json.dumps({"inputs": [output("it's", "BYTES", [count], ["a'b"] * count)]})
    for code in (snippets.python("http://x/infer", body, token), snippets.tritonclient("digits", body, token)):
        ast.parse(code)
        assert ("SLIPWAY_TOKEN" in code) is token and ("request.json" in code) is (count == 4000)
    assert ("@request.json" in snippets.curl("http://x/infer", body, token)) is (count == 4000)


@pytest.mark.parametrize("body", ["", "[]", "{", '{"inputs": []}', '{"inputs": [{"name": "x"}]}', '{"inputs": 3}'])
def test_tritonclient_is_left_out_when_the_body_is_no_request(body: str) -> None:
    assert snippets.tritonclient("digits", body, False) == ""


# Pages


@pytest.fixture
def served(endpoint: Endpoint) -> Endpoint:
    artifact = endpoint.deployments.get().artifact
    artifact.signature = signature(("x", "FP32", [-1, 2])) | {"outputs": []}
    artifact.recipe = {"labels": ["cat", "dog"]}
    artifact.save()
    return endpoint


def answers(monkeypatch: pytest.MonkeyPatch, endpoint: Endpoint, status: int = 200, **document: Any) -> None:
    headers = {"x-request-id": "ab-1", "x-slipway-deployment": str(endpoint.deployments.get().pk)}
    monkeypatch.setattr(httpx, "post", lambda url, **_: httpx.Response(status, json=document, headers=headers))


def test_answer_names_who_answered_and_the_request(
    browser_as: Browser, served: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = [output("label", "INT64", [1], [1]), output("p", "FP32", [1, 2], [0.25, 0.75])]
    answers(monkeypatch, served, model_version="1", outputs=outputs)
    body = json.dumps({"inputs": [output("x", "FP32", [1, 2], [1, 2])]})
    web = browser_as("developer")
    part = web.post("/endpoints/digits/playground/", {"body": body}, headers={"HX-Request": "true"}).content.decode()
    assert "<html" not in part and "version 1 ONNX" in part and "ab-1" in part
    assert "75.0 %" in part and "dog" in part and "tritonclient" in part
    whole = web.post("/endpoints/digits/playground/", {"body": body}).content.decode()
    assert "<html" in whole and "75.0 %" in whole


@pytest.mark.parametrize(
    ("status", "words"),
    [(400, "does not fit the model"), (401, "wants a token"), (404, "No server serves"), (413, "too large"),
     (429, "as many requests"), (500, "failed"), (503, "not ready")],
)  # fmt: skip
def test_refusals_are_said_in_words(
    browser_as: Browser, served: Endpoint, monkeypatch: pytest.MonkeyPatch, status: int, words: str
) -> None:
    answers(monkeypatch, served, status, error="<because>")
    text = browser_as("developer").post("/endpoints/digits/playground/", {"body": "{}"}).content.decode()
    assert words in text and "&lt;because&gt;" in text


def test_empty_and_endless_bodies_are_refused_in_words(browser_as: Browser, served: Endpoint) -> None:
    web, address = browser_as("developer"), "/endpoints/digits/playground/"
    for body in ("", "1" * 4_000_001):
        answer = web.post(address, {"body": body}, headers={"HX-Request": "true"})
        assert answer.status_code == 422 and 'class="wrong"' in answer.content.decode()


@pytest.mark.parametrize(("name", "status"), [("viewer", 403), ("stranger", 404), ("anonymous", 302)])
def test_sending_is_refused_when_not_allowed(browser_as: Browser, served: Endpoint, name: str, status: int) -> None:
    assert browser_as(name).post("/endpoints/digits/playground/", {"body": "{}"}).status_code == status


@pytest.fixture
def rows(served: Endpoint, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The version's held-out rows, as if they were in this node's cache."""
    file = tmp_path / "rows.csv"
    file.write_text("a,b,target\n1,2,cat\n3,4,dog\n")
    version = served.deployments.get().artifact.version
    data = Dataset.objects.create(
        project=served.project, name="held out", role="evaluation", sha256="a" * 64, size=30, file_name="rows.csv",
        uri="mlflow-artifacts:/0/x/rows.csv",
    )  # fmt: skip
    data.versions.add(version)
    monkeypatch.setattr(storage, "fetch_file", lambda uri, **_: file)
    return file


def test_example_rows_come_without_their_target(browser_as: Browser, rows: Path) -> None:
    address = "/endpoints/digits/playground/rows.json"
    answer = browser_as("viewer").get(address)
    assert answer.json() == {
        "columns": ["a", "b"], "rows": [["1", "2"], ["3", "4"]], "target": ["cat", "dog"], "name": "held out"
    }  # fmt: skip
    assert browser_as("stranger").get(address).status_code == 404
    assert address in browser_as("viewer").get("/endpoints/digits/playground/").content.decode()


@pytest.mark.parametrize("content", [b"", b"a,b\n1\n", b"\xff\xfe,b\n1,2\n"])
def test_example_rows_say_so_when_they_cannot_be_read(browser_as: Browser, rows: Path, content: bytes) -> None:
    rows.write_bytes(content)
    answer = browser_as("viewer").get("/endpoints/digits/playground/rows.json")
    assert answer.status_code == 422 and "CSV" in answer.json()["error"]


def test_example_rows_are_not_there_when_the_version_has_none(browser_as: Browser, served: Endpoint) -> None:
    answer = browser_as("viewer").get("/endpoints/digits/playground/rows.json")
    assert answer.status_code == 404 and answer.json()["error"]
    assert examples.dataset_of(served.deployments.get().artifact.version) is None
    assert "rows.json" not in browser_as("viewer").get("/endpoints/digits/playground/").content.decode()
