"""Everything but inference: server and model metadata, health, the repository index, metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from serving import VERSION
from serving.extensions import configuration, statistics
from serving.metrics import CONTENT_TYPE, Snapshots, render
from serving.protocol.encode import JSON_TYPE
from serving.protocol.errors import ServingError, bad_request
from serving.routes import Route
from serving.runtime import Runtime
from serving.table import Deployment, Endpoint

METRICS_TYPE = (b"content-type", CONTENT_TYPE)
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "statistics",
)
Answer = tuple[int, bytes, tuple[tuple[bytes, bytes], ...]]


def dump(value: Any) -> bytes:
    """JSON bytes."""
    return orjson.dumps(value)


def _json(value: Any, status: int = 200) -> Answer:
    return status, dump(value), (JSON_TYPE,)


def answer_server(route: Route, runtime: Runtime) -> Answer:
    """Server metadata, liveness and readiness."""
    if route.kind == "server":
        return _json({"name": "slipway", "version": VERSION, "extensions": list(EXTENSIONS)})
    if route.kind == "ready":
        ready = runtime.loaded and not runtime.draining
        return _json({"ready": ready}, 200 if ready else 503)
    return _json({"live": True})


def answer_model(route: Route, endpoint: Endpoint) -> Answer:
    """Metadata or readiness of a model or one version of it."""
    if route.kind == "model-ready":
        ready = endpoint.ready(route.version)
        return _json(
            {"name": endpoint.name, "ready": ready} if ready else {"error": "the model is not ready"},
            200 if ready else 503,
        )
    deployment = speaker(endpoint, route.version)
    if route.kind == "config":
        return _json(configuration(endpoint, deployment))
    model, upstream = deployment.model, deployment.upstream
    if model is not None:
        tensors = {
            "inputs": [tensor.metadata() for tensor in model.inputs],
            "outputs": [tensor.metadata() for tensor in model.outputs],
        }
    elif upstream is not None and upstream.tensors is not None:
        tensors = upstream.tensors
    else:
        raise ServingError(503, "the model is not ready")
    return _json(
        {
            "name": endpoint.name,
            "versions": sorted({d.version for d in endpoint.deployments}),
            "platform": model.platform if model is not None else "forwarded",
            **tensors,
        }
    )


def speaker(endpoint: Endpoint, version: str | None) -> Deployment:
    """The deployment whose model speaks for an endpoint: of the version asked for, else the one most callers
    get. Raises ServingError 404 or 503."""
    if version is None and endpoint.live:
        return max(endpoint.live, key=lambda d: d.placement.weight)
    return endpoint.pick(version, b"")


def answer_statistics(route: Route, runtime: Runtime, authorization: bytes | None, mine: dict[str, Any]) -> Answer:
    """Statistics over all processes, of one endpoint or of all that this caller may use; reads files, so off
    the event loop. Raises ServingError."""
    asked = list(usable(runtime, authorization))
    if route.kind == "stats":
        asked = [endpoint for endpoint in asked if endpoint.name == route.model]
    return _json(statistics(asked, route.version, [mine, *runtime.snapshots.others()]))


def usable(runtime: Runtime, authorization: bytes | None) -> Iterator[Endpoint]:
    """The endpoints that this caller may use."""
    for endpoint in runtime.table.endpoints.values():
        try:
            endpoint.authorize(authorization)
        except ServingError:
            continue  # not this caller's to see
        yield endpoint


def answer_index(runtime: Runtime, authorization: bytes | None, body: bytes | bytearray) -> Answer:
    """The repository index, of the models this caller may use. Raises ServingError 400."""
    only_ready = False
    if body.strip():
        try:
            asked = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise bad_request("the body must be a JSON object") from None
        if not isinstance(asked, dict) or not isinstance(asked.get("ready", False), bool):
            raise bad_request("the body must be a JSON object whose ready is true or false")
        only_ready = asked.get("ready", False)
    entries = []
    for endpoint in usable(runtime, authorization):
        for deployment in endpoint.deployments:
            ready = deployment.well
            if only_ready and not ready:
                continue
            entries.append(
                {
                    "name": endpoint.name,
                    "version": deployment.version,
                    "state": "READY" if ready else "UNAVAILABLE",
                    "reason": "" if ready else "not ready" if deployment.answers else "not loaded",
                }
            )
    return _json(entries)


def metrics_text(snapshots: Snapshots, mine: dict[str, Any]) -> bytes:
    """Prometheus text of all processes; reads files, so off the event loop."""
    return render([mine, *snapshots.others()])
