"""Health and metadata over REST."""

from __future__ import annotations

from typing import Any

from conformance.core import NotOffered, expect, extension, register, required
from conformance.target import Target, document, refused
from conformance.tensors import DTYPES

_KNOWN = ("binary_tensor_data", "classification", "model_configuration", "model_repository", "sequence", "statistics")


def _is_json(answer: Any) -> str:
    kind = answer.headers.get("content-type", "")
    expect(kind.split(";")[0].strip().lower() == "application/json", f"Content-Type is {kind!r}")
    return kind


@required("health.live", "GET v2/health/live answers 200")
def live(target: Target) -> str:
    answer = target.get("/v2/health/live")
    expect(answer.status_code == 200, f"{answer.status_code} {answer.text[:80]}")
    return f"200 {answer.text[:60]}"


@extension("health.live.body", 'the live response is {"live": true} (in the text; the OpenAPI file has no body)')
def live_body(target: Target) -> str:
    body = document(target.get("/v2/health/live"))
    expect(isinstance(body, dict) and body.get("live") is True, f"body {body}")
    return str(body)


@required("health.ready", "GET v2/health/ready answers 200 when the models are ready")
def ready(target: Target) -> str:
    answer = target.get("/v2/health/ready")
    expect(answer.status_code == 200, f"{answer.status_code} {answer.text[:80]}")
    return f"200 {answer.text[:60]}"


@extension("health.ready.body", 'the ready response has a true "live" (as the text prints it) or "ready"')
def ready_body(target: Target) -> str:
    body = document(target.get("/v2/health/ready"))
    expect(isinstance(body, dict) and (body.get("live") is True or body.get("ready") is True), f"body {body}")
    return str(body)


@required("model-ready", "GET v2/models/M/ready answers 200")
def model_ready(target: Target) -> str:
    answer = target.get(target.path("tiny", "ready"))
    expect(answer.status_code == 200, f"{answer.status_code}")
    return f"200 {answer.text[:60]}"


@extension("model-ready.body", "the model ready response has name and ready")
def model_ready_body(target: Target) -> str:
    body = document(target.get(target.path("tiny", "ready")))
    expect(isinstance(body, dict) and body.get("name") == target.model("tiny"), f"body {body}")
    expect(body.get("ready") is True, f"body {body}")
    return str(body)


@required("model-ready.version", "GET v2/models/M/versions/V/ready answers 200")
def version_ready(target: Target) -> str:
    answer = target.get(target.path("versions", "ready", "2"))
    expect(answer.status_code == 200, f"{answer.status_code} {answer.text[:80]}")
    return f"200 {answer.text[:60]}"


@required("server-metadata", "GET v2 has name, version and a list of extensions")
def server_metadata(target: Target) -> str:
    body = document(target.get("/v2"))
    for key in ("name", "version"):
        expect(isinstance(body.get(key), str) and body[key], f"{key} is {body.get(key)!r}")
    found = body.get("extensions")
    expect(isinstance(found, list) and all(isinstance(name, str) for name in found), f"extensions is {found!r}")
    return f"{body['name']} {body['version']}: {', '.join(found) or 'no extensions'}"


@extension("server-metadata.slash", "v2/ is served like v2 (the OpenAPI file spells it so)")
def server_slash(target: Target) -> str:
    body = document(target.get("/v2/"))
    expect("name" in body, f"body {body}")
    return f"200 {body['name']}"


@required("metadata.content-type", "metadata comes as application/json")
def metadata_type(target: Target) -> str:
    server, model = target.get("/v2"), target.get(target.path("tiny"))
    expect("name" in document(server) and "name" in document(model), "no metadata")
    _is_json(server)
    return _is_json(model)


def check_metadata(body: Any, name: str) -> str:
    """Evidence that a model's metadata is complete. Raises Failed."""
    expect(body.get("name") == name, f"name is {body.get('name')!r}")
    expect(isinstance(body.get("platform"), str), f"platform is {body.get('platform')!r}")
    for side in ("inputs", "outputs"):
        expect(isinstance(body.get(side), list) and body[side], f"{side} is {body.get(side)!r}")
        for tensor in body[side]:
            expect(isinstance(tensor.get("name"), str), f"tensor {tensor}")
            expect(isinstance(tensor.get("datatype"), str), f"tensor {tensor}")
            expect(isinstance(tensor.get("shape"), list), f"tensor {tensor}")
            expect(all(type(d) is int and d >= -1 for d in tensor["shape"]), f"tensor {tensor}")
    return f"platform {body['platform']}, versions {body.get('versions')}"


@required("model-metadata", "GET v2/models/M has name, platform, inputs and outputs")
def model_metadata(target: Target) -> str:
    return check_metadata(document(target.get(target.path("tiny"))), target.model("tiny"))


@required("model-metadata.free-dimension", "a dimension of any size is -1 in the metadata")
def free_dimension(target: Target) -> str:
    body = document(target.get(target.path("tiny")))
    shape = body["inputs"][0]["shape"]
    expect(shape == [-1, 4], f"shape of x is {shape}")
    return f"x {shape}"


@required("model-metadata.two-sides", "all inputs and outputs are listed with their own datatypes")
def two_sides(target: Target) -> str:
    body = document(target.get(target.path("add-sub")))
    found = {t["name"]: t["datatype"] for t in [*body["inputs"], *body["outputs"]]}
    expect(found == {"a": "INT32", "b": "FP32", "sum": "FP32", "diff": "INT32"}, f"{found}")
    return str(found)


@required("model-metadata.version", "GET v2/models/M/versions/V answers like the model's own path")
def version_metadata(target: Target) -> str:
    return check_metadata(document(target.get(target.path("versions", "", "2"))), target.model("versions"))


@required("model-metadata.versions", "versions, when there, is a list of strings with those that can be asked for")
def versions(target: Target) -> str:
    found = document(target.get(target.path("versions"))).get("versions")
    if not found:
        raise NotOffered("no versions in the metadata, which may leave them out")
    expect(isinstance(found, list) and all(isinstance(v, str) for v in found), f"versions is {found!r}")
    expect({"1", "2", "10"} <= set(found), f"versions is {found}")
    return str(found)


@extension("metadata.platform-name", "the platform is one of the names the text lists, or PROJECT_FORMAT")
def platform_name(target: Target) -> str:
    platform = document(target.get(target.path("tiny")))["platform"]
    expect(len(platform.split("_", 1)) == 2, f"platform {platform!r}")
    return str(platform)


def _datatype_check(datatype: str) -> None:
    def body(target: Target) -> str:
        found = document(target.get(target.path(f"id-{datatype.lower()}")))
        names = {t["datatype"] for t in [*found["inputs"], *found["outputs"]]}
        expect(names == {datatype}, f"datatype is {sorted(names)}")
        return f"x and y are {datatype}"

    level = extension if datatype == "BF16" else required
    level(f"model-metadata.datatype.{datatype}", f"the metadata of an identity names {datatype}")(body)


for _name in DTYPES:
    _datatype_check(_name)


def _unknown(name: str, path: str, fixture: str | None = None) -> None:
    def body(target: Target) -> str:
        whole = target.path(fixture) + path if fixture else path
        return refused(target.get(whole))

    register(f"unknown.{name}", "required", f"GET of {path if not fixture else 'M' + path} is refused with a 4xx", body)


_unknown("model", "/v2/models/no-such-model")
_unknown("version", "/versions/987654", "versions")


def _unknown_ready(name: str, path: str) -> None:
    def body(target: Target) -> str:
        answer = target.get(path if name == "model" else target.path("versions") + path)
        said = answer.text[:80]
        expect(400 <= answer.status_code < 600 or '"ready":false' in said.replace(" ", ""), f"200 {said}")
        return f"{answer.status_code} {said}"

    register(f"unknown.{name}.ready", "required", f"an unknown {name} is not ready", body)


_unknown_ready("model", "/v2/models/no-such-model/ready")
_unknown_ready("version", "/versions/987654/ready")


@extension("unknown.status-404", "unknown models and versions get 404 with the error object, for metadata and ready")
def unknown_status(target: Target) -> str:
    base = target.path("versions")
    for path in ("/v2/models/no-such-model", "/v2/models/no-such-model/ready", f"{base}/versions/987654"):
        refused(target.get(path), (404,))
    return refused(target.get(f"{base}/versions/987654/ready"), (404,))


@required("unknown.path", "a path outside the protocol gets 404")
def unknown_path(target: Target) -> str:
    answer = target.get("/v2/no/such/path")
    expect(answer.status_code == 404, f"{answer.status_code} {answer.text[:80]}")
    return f"404 {answer.text[:80]}"


@extension("unknown.path.body", "404 for a path outside the protocol has the error object too")
def unknown_path_body(target: Target) -> str:
    return refused(target.get("/v2/no/such/path"), (404,))


@extension("server-metadata.known-extensions", "extensions go by the names their documents give them")
def known_extensions(target: Target) -> str:
    found = target.extensions()
    known = [name for name in found if name.split("(")[0] in _KNOWN]
    if not found:
        raise NotOffered("no extensions are announced")
    expect(known, f"announced: {found}")
    return f"{', '.join(known)} of {len(found)} announced"
