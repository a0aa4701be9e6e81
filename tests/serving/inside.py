"""One request through the dataplane's own parts, without processes or sockets."""

from __future__ import annotations

import re
from typing import Any

from serving.document import Batching, EndpointSpec, Placement
from serving.model import Model, load_model
from serving.protocol.errors import ServingError
from serving.rest import Asked, RestCall
from serving.routes import Route
from serving.table import Deployment, Endpoint


def model_of(data: bytes) -> Model:
    return load_model(data)


def endpoint_of(*models: Model, **spec: Any) -> Endpoint:
    """An endpoint "m" whose deployments 1, 2 … share the weight."""
    placements = [
        Placement(str(i), str(i), 100 / len(models), "live", f"{i:064}", "onnx", 0) for i in range(1, len(models) + 1)
    ]
    wish = EndpointSpec("m", "open", frozenset(), tuple(placements), {}, batching=Batching(256, 1e9), **spec)
    return Endpoint(wish, [Deployment("m", p, m) for p, m in zip(placements, models, strict=True)])


class _Door:
    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def admit(self, name: str, authorization: bytes | None) -> Endpoint:
        return self._endpoint


def request(endpoint: Endpoint, body: bytes, finish: Any = None, **headers: str) -> RestCall:
    told = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    asked = Asked(Route("infer", ("POST",), "m", None), told, len(body))
    return RestCall(_Door(endpoint), asked, body, b"r", finish or (lambda _: None))  # type: ignore[arg-type]


def answer(endpoint: Endpoint, body: bytes, **headers: str) -> tuple[int, bytes | str]:
    """Status and body, or the error's text without its reference."""
    call = request(endpoint, body, **headers)
    try:
        call.decode()
        call.run()
    except ServingError as error:
        return error.status, re.sub(r"reference [0-9a-f]+", "reference", error.text)
    return 200, call.answer.body
