"""HTTP to the MLflow server: one pool per process, short timeouts, errors in our own two kinds.

MLflow's own client is left out on purpose: importing it costs seconds and more than 100 MB in every process,
and it retries for minutes where the job kernel already knows when to come again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import orjson

from engine.errors import EngineError
from registry.mlflow.rules import path_fault
from slipway.api.problems import Unavailable
from slipway.environment import environment

SCHEME = "mlflow-artifacts:/"
_TIMEOUT = httpx.Timeout(20.0, connect=3.0)
TRANSFER_TIMEOUT = httpx.Timeout(60.0, connect=3.0)
# MLflow's server drops idle connections after five seconds.
_LIMITS = httpx.Limits(max_connections=32, max_keepalive_connections=8, keepalive_expiry=3.0)
_clients: dict[int, httpx.Client] = {}


def http() -> httpx.Client:
    """This process's client; a forked worker makes its own."""
    pid = os.getpid()
    if pid not in _clients:
        _clients.clear()
        _clients[pid] = httpx.Client(timeout=_TIMEOUT, limits=_LIMITS, trust_env=False)
    return _clients[pid]


@contextmanager
def talking(doing: str) -> Iterator[None]:
    """Turns failures of the connection into `Unavailable`."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise Unavailable(f"MLflow did not answer in time while {doing}. Try again later.") from error
    except httpx.TransportError as error:
        raise Unavailable(f"MLflow does not answer ({doing}). Try again in a few seconds.") from error


def check(response: httpx.Response, doing: str) -> None:
    """Raises for an error status: what may pass by itself as Unavailable, the rest with MLflow's words."""
    if response.is_success:
        return
    response.read()
    if response.status_code >= 500 or response.status_code in {408, 429}:
        raise Unavailable(f"MLflow failed while {doing} (status {response.status_code}). Try again later.")
    try:
        given = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        given = {}
    facts = given if isinstance(given, dict) else {}
    code = str(facts.get("error_code") or "")
    text = str(facts.get("message") or facts.get("detail") or f"status {response.status_code}")[:500]
    if code == "RESOURCE_DOES_NOT_EXIST" or response.status_code == 404:
        raise EngineError(f"MLflow does not have it ({doing}): {text}", code="not_found")
    raise EngineError(f"MLflow refused {doing}: {text}", code=code.lower() or "mlflow")


def call(
    method: str,
    path: str,
    *,
    doing: str,
    params: dict[str, Any] | None = None,
    body: dict[str, Any] | None = None,
    api: str = "2.0/mlflow",
) -> dict[str, Any]:
    """One call of MLflow's REST API. `doing` completes "MLflow failed while …"."""
    content = orjson.dumps(body) if body is not None else None
    headers = {"content-type": "application/json"} if content is not None else None
    with talking(doing):
        response = http().request(
            method,
            f"{environment.mlflow_base}/api/{api}/{path}",
            params=params,
            content=content,
            headers=headers,
        )
    check(response, doing)
    answer = orjson.loads(response.content or b"{}")
    return answer if isinstance(answer, dict) else {}


def artifact_url(path: str) -> str:
    """Where the bytes of `mlflow-artifacts:/<path>` are.

    Under its prefix MLflow 3 holds whole files in memory; the same routes without it stream.
    """
    parts = urlsplit(environment.mlflow_base)
    prefix = "" if parts.path == "/mlflow" else parts.path
    return f"{parts.scheme}://{parts.netloc}{prefix}/api/2.0/mlflow-artifacts/artifacts/{quote(path, safe='/')}"


def store_path(uri: str) -> str:
    """The path inside MLflow's artifact store of a `mlflow-artifacts:/…` address; others are refused."""
    if not uri.startswith(SCHEME) or uri.startswith(SCHEME + "/"):
        raise EngineError(
            f"The files are at {uri[:200]!r}, but Slipway only reads from MLflow's own artifact store "
            "(mlflow-artifacts:/…). Log the model to this server and register it again.",
            code="source",
        )
    path = uri.removeprefix(SCHEME).strip("/")
    if fault := path_fault(path):
        raise EngineError(f"The address {uri[:200]!r} is refused. {fault}", code="source")
    if not path or "?" in path or "#" in path:
        raise EngineError(f"The address {uri[:200]!r} names no file of MLflow's artifact store.", code="source")
    return path


def quoted(text: str) -> str:
    """A value in MLflow's filter language, which has no escapes."""
    for quote_sign in ("'", '"'):
        if quote_sign not in text:
            return f"{quote_sign}{text}{quote_sign}"
    raise EngineError(f"MLflow cannot look for {text[:100]!r}: it holds both kinds of quotation marks.")
