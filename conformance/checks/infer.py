"""Inference over REST with JSON data."""

from __future__ import annotations

import httpx
import numpy as np

from conformance.core import Failed, NotOffered, expect, extension, required
from conformance.target import Target, document, outputs, refused
from conformance.tensors import DTYPES, as_input, fp32, from_json, same, sample

ROW = [[1.0, 3.0, 2.0, 0.0]]
PARAMETERS = {"text": "a", "number": 1, "fraction": 0.5, "flag": True}


def _label(answer: httpx.Response) -> None:
    found = outputs(answer)["label"].tolist()
    expect(found == [1], f"label is {found}, not [1]")


def _datatype_checks(datatype: str) -> None:
    fixture = f"id-{datatype.lower()}"

    def flat(target: Target) -> str:
        return _round_trip(target, fixture, datatype, nested=False)

    def nested(target: Target) -> str:
        return _round_trip(target, fixture, datatype, nested=True)

    level = extension if datatype == "FP16" else required
    level(f"infer.json.{datatype}", f"{datatype} as flat JSON goes in and comes back exactly, extremes included")(flat)
    level(f"infer.json.{datatype}.nested", f"{datatype} as nested JSON goes in and comes back exactly")(nested)


def _round_trip(target: Target, fixture: str, datatype: str, nested: bool) -> str:
    array = sample(datatype)
    item = document(target.infer(fixture, as_input("x", datatype, array, nested)))["outputs"][0]
    expect(item["datatype"] == datatype, f"output datatype is {item['datatype']}")
    found = from_json(item)
    expect(same(found, array), f"sent {array.ravel().tolist()}, got {found.ravel().tolist()}")
    return f"{array.size} values of shape {item['shape']} as sent"


for _name in DTYPES:
    if _name != "BF16":
        _datatype_checks(_name)


@required("infer.response", "the response has model_name and outputs with name, shape, datatype and data")
def response(target: Target) -> str:
    body = document(target.infer("tiny", fp32("x", ROW)))
    expect(body.get("model_name") == target.model("tiny"), f"model_name is {body.get('model_name')!r}")
    expect(isinstance(body.get("model_version", ""), str), f"model_version is {body.get('model_version')!r}")
    for item in body["outputs"]:
        expect({"name", "shape", "datatype", "data"} <= set(item), f"output {item}")
    found = {item["name"]: from_json(item) for item in body["outputs"]}
    expect(set(found) == {"label", "scores"}, f"outputs {sorted(found)}")
    expect(found["label"].tolist() == [1] and found["scores"].tolist() == [[1, 3, 2]], f"{found}")
    return f"label [1], scores [[1,3,2]], version {body.get('model_version')}"


@required("infer.content-type", "an answer with JSON data comes as application/json")
def content_type(target: Target) -> str:
    answer = target.infer("tiny", fp32("x", ROW))
    _label(answer)
    kind = answer.headers.get("content-type", "")
    expect(kind.split(";")[0].strip() == "application/json", f"Content-Type is {kind!r}")
    return str(kind)


@required("infer.id", "the request's id is in the response")
def request_id(target: Target) -> str:
    body = document(target.infer("tiny", fp32("x", ROW), id="request/42 ü"))
    expect(body.get("id") == "request/42 ü", f"id is {body.get('id')!r}")
    return f"id {body['id']!r}"


@extension("infer.id.absent", "a response to a request without an id has none, or an empty one")
def no_id(target: Target) -> str:
    found = document(target.infer("tiny", fp32("x", ROW))).get("id")
    expect(found in (None, ""), f"id is {found!r}")
    return f"id {found!r}"


@required("infer.batch", "several rows in one request come back as several")
def batch(target: Target) -> str:
    found = outputs(target.infer("tiny", fp32("x", ROW * 5)))
    expect(found["label"].shape == (5,) and found["scores"].shape == (5, 3), f"{found['label'].shape}")
    return "5 rows: label [5], scores [5,3]"


@required("infer.two-inputs", "two inputs of different types give two outputs of different types")
def two_inputs(target: Target) -> str:
    return _add_sub(target, swap=False)


@required("infer.input-order", "inputs are told apart by name and not by place")
def input_order(target: Target) -> str:
    return _add_sub(target, swap=True)


def _add_sub(target: Target, swap: bool) -> str:
    inputs = [as_input("a", "INT32", np.array([[5, 7]], np.int32)), fp32("b", [[1.0, 2.0]])]
    found = outputs(target.infer("add-sub", *(reversed(inputs) if swap else inputs)))
    expect(found["sum"].tolist() == [[6, 9]] and found["diff"].tolist() == [[4, 5]], f"{found}")
    return "sum [[6,9]], diff [[4,5]]"


@required("infer.outputs.subset", "only the requested outputs are returned")
def subset(target: Target) -> str:
    body = document(target.infer("tiny", fp32("x", ROW), outputs=[{"name": "scores"}]))
    names = [item["name"] for item in body["outputs"]]
    expect(names == ["scores"], f"outputs {names}")
    return str(names)


@extension("infer.outputs.order", "outputs come in the order they were requested in")
def order(target: Target) -> str:
    wanted = ["scores", "label"]
    body = document(target.infer("tiny", fp32("x", ROW), outputs=[{"name": name} for name in wanted]))
    names = [item["name"] for item in body["outputs"]]
    expect(names == wanted, f"outputs {names}")
    return str(names)


@extension("infer.outputs.empty", "an empty list of requested outputs asks for all")
def no_outputs(target: Target) -> str:
    found = outputs(target.infer("tiny", fp32("x", ROW), outputs=[]))
    expect(set(found) == {"label", "scores"}, f"outputs {sorted(found)}")
    return "label, scores"


@required("infer.outputs.unknown", "a requested output that the model does not have is refused with a 4xx")
def unknown_output(target: Target) -> str:
    return refused(target.infer("tiny", fp32("x", ROW), outputs=[{"name": "no-such-output"}]))


@required("infer.parameters", "parameters are accepted on the request")
def parameters(target: Target) -> str:
    _label(target.infer("tiny", fp32("x", ROW), parameters=PARAMETERS))
    return f"200 with {PARAMETERS}"


@required("infer.parameters.input", "parameters are accepted on an input")
def input_parameters(target: Target) -> str:
    _label(target.infer("tiny", {**fp32("x", ROW), "parameters": PARAMETERS}))
    return f"200 with {PARAMETERS}"


@required("infer.parameters.output", "parameters are accepted on a requested output")
def output_parameters(target: Target) -> str:
    _label(target.infer("tiny", fp32("x", ROW), outputs=[{"name": "label", "parameters": PARAMETERS}]))
    return f"200 with {PARAMETERS}"


@required("infer.parameters.empty", "empty parameters are accepted everywhere")
def empty_parameters(target: Target) -> str:
    tensor = {**fp32("x", ROW), "parameters": {}}
    _label(target.infer("tiny", tensor, parameters={}, outputs=[{"name": "label", "parameters": {}}]))
    return "200"


@extension("infer.unknown-members", "members that the protocol does not know are passed over")
def unknown_members(target: Target) -> str:
    _label(target.infer("tiny", {**fp32("x", ROW), "comment": "a"}, comment={"b": [1]}))
    return "200"


@required("infer.version", "each version answers under its own path")
def each_version(target: Target) -> str:
    for version in ("1", "2", "10"):
        answer = target.infer("versions", fp32("x", [0.0]), version=version)
        value = outputs(answer)["y"].tolist()
        expect(value == [float(version)], f"version {version} answered {value}")
    return "1, 2 and 10 answer 1, 2 and 10"


@required("infer.version.reported", "model_version, when there, is the version that answered")
def version_reported(target: Target) -> str:
    body = document(target.infer("versions", fp32("x", [0.0]), version="2"))
    if "model_version" not in body:
        raise NotOffered("no model_version in the response, which may leave it out")
    expect(body["model_version"] == "2", f"model_version is {body['model_version']!r}")
    return "model_version '2'"


@required("infer.version.default", "without a version the server picks one, or refuses")
def default_version(target: Target) -> str:
    answer = target.infer("versions", fp32("x", [0.0]))
    if answer.status_code != 200:
        return refused(answer)
    value = outputs(answer)["y"].tolist()
    expect(value in ([1.0], [2.0], [10.0]), f"y is {value}")
    return f"version {value[0]:g} answers"


@required("infer.unknown-model", "inference on an unknown model is refused with a 4xx")
def unknown_model(target: Target) -> str:
    return refused(target.client.post("/v2/models/no-such-model/infer", json={"inputs": [fp32("x", ROW)]}))


@required("infer.unknown-version", "inference on an unknown version is refused with a 4xx")
def unknown_version(target: Target) -> str:
    return refused(target.infer("versions", fp32("x", [0.0]), version="987654"))


@extension("infer.status-404", "inference on an unknown model or version gets 404")
def unknown_404(target: Target) -> str:
    refused(target.client.post("/v2/models/no-such-model/infer", json={"inputs": [fp32("x", ROW)]}), (404,))
    return refused(target.infer("versions", fp32("x", [0.0]), version="987654"), (404,))


@extension("infer.without-content-type", "JSON is taken as JSON without a Content-Type")
def without_type(target: Target) -> str:
    body = target.client.build_request("POST", target.path("vector", "infer"), json={"inputs": [fp32("x", [1.0])]})
    del body.headers["content-type"]
    found = outputs(target.client.send(body))["y"].tolist()
    if found != [1.0]:
        raise Failed(f"y is {found}")
    return "200"
