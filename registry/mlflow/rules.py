"""What a request to MLflow's HTTP API means: reading, changing, or nothing that we let through. Pure.

Paths here are those below the proxy's prefix (`/api/2.0/mlflow/runs/search`), decoded once, as MLflow
itself will read them.
"""

from __future__ import annotations

import json
import re
from enum import Enum
from urllib.parse import unquote


class Access(Enum):
    """What the caller must be allowed to do."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"
    CLOSED = "closed"


_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

# MLflow posts searches too. Exactly one word between `mlflow/` and the verb: an artifact or a dataset
# whose own name ends in `/search` is not a search.
_READING_POST = re.compile(
    r"/(?:ajax-)?api/\d\.\d/mlflow/(?:"
    r"[a-z-]+/(?:search|search-datasets|get-latest-versions|get-history(?:-bulk)?|batchGetInfos|metrics"
    r"|calculate-filter-correlation|presigned-download-url)"
    r"|prompt-optimization/jobs/search|ui-telemetry)"
    r"|/(?:ajax-)?api/\d\.\d/?mlflow/experiments/search-datasets"
    r"|/graphql"
)
# The assistant runs shell commands for callers on loopback, and behind a proxy everybody is on loopback.
# The others start work inside MLflow's own process.
_CLOSED = re.compile(
    r"/(?:ajax-)?api/\d\.\d/(?:jobs|mlflow/(?:assistant|jobs|genai|scorer/invoke|issues/invoke|demo"
    r"|runs/create-promptlab-run))(?:/|$)"
)
# Web hooks and the gateway make MLflow call other hosts and hold secrets; workspaces move artifact roots.
_ADMIN = re.compile(r"(?:/(?:ajax-)?api/\d\.\d/mlflow/(?:webhooks|gateway|gateway-proxy|workspaces)|/gateway)(?:/|$)")
_ARTIFACT = re.compile(r"/(?:ajax-)?api/2\.0/mlflow-artifacts/artifacts/.+", re.DOTALL)
_BYTES_OF_STRANGERS = re.compile(r"get-artifact$|get-trace-artifact$|/artifacts/files$|/mlflow-artifacts/artifacts/")
_PLACES_FILES = re.compile(r"/(?:ajax-)?api/\d\.\d/mlflow/(?:experiments/(?:create|update)|traces(?:/.*)?)")


def access_of(method: str, path: str) -> Access:
    """What `method path` needs."""
    path = re.sub(r"/{2,}", "/", path)
    if _CLOSED.match(path):
        return Access.CLOSED
    if _ADMIN.match(path):
        return Access.ADMIN
    if method in _SAFE or (method == "POST" and _READING_POST.fullmatch(path)):
        return Access.READ
    return Access.WRITE


def is_artifact(method: str, path: str) -> bool:
    """Whether MLflow streams this request at the unprefixed path (the prefixed one it holds in memory)."""
    return method in {"GET", "PUT"} and _ARTIFACT.fullmatch(path) is not None


def holds_strangers_bytes(path: str) -> bool:
    """Whether the answer is a file that somebody uploaded: it must not run as a page of ours."""
    return _BYTES_OF_STRANGERS.search(path) is not None


def path_fault(raw: str) -> str | None:
    """Why a still encoded path is refused, or None.

    Decoding goes on until nothing changes, because MLflow decodes artifact paths a second time.
    """
    text = raw
    for _ in range(5):
        if "\\" in text:
            return "The path contains a backslash."
        if any(ord(character) < 32 or ord(character) == 127 for character in text):
            return "The path contains a control character."
        if ".." in re.split(r"[/;]", text):
            return "The path leads upwards (`..`)."
        decoded = unquote(text)
        if decoded == text:
            return None
        text = decoded
    return "The path is encoded too many times."


def places_files(method: str, path: str) -> bool:
    """Whether the body may say where MLflow reads and writes files, so that it has to be looked at."""
    return method not in _SAFE and _PLACES_FILES.fullmatch(re.sub(r"/{2,}", "/", path)) is not None


def location_fault(body: bytes) -> str | None:
    """Why a body is refused that would make MLflow read or write outside its artifact store, or None.

    MLflow opens whatever an experiment's `artifact_location` (or a trace's tag of that name) says, also
    `file:///etc`: with it, every account that may log a run could read the server's files.
    """
    try:
        found: list[str] = []
        value = json.loads(body or b"{}", object_pairs_hook=lambda pairs: _collect(pairs, found))
        if isinstance(value, str):  # MLflow takes twice encoded JSON of old clients
            json.loads(value, object_pairs_hook=lambda pairs: _collect(pairs, found))
    except (ValueError, RecursionError):
        return "The body is not valid JSON."
    for value in found:
        if not re.match(r"mlflow-artifacts:/(?!/)", value) or path_fault(value) is not None:
            return (
                f"The artifact location {value[:200]!r} is outside of MLflow's artifact store. "
                "Leave it out, or begin it with mlflow-artifacts:/ ."
            )
    return None


def _collect(pairs: list[tuple[str, object]], found: list[str]) -> dict[str, object]:
    """Notes every artifact location in one JSON object, whichever way it is spelt or repeated."""
    keys = [value for name, value in pairs if name == "key"]
    for name, value in pairs:
        named = _is_location(name) or (name == "value" and any(_is_location(key) for key in keys))
        if named and isinstance(value, str) and value:
            found.append(value)
    return dict(pairs)


def _is_location(name: object) -> bool:
    text = re.sub(r"[^a-z]", "", str(name).lower())
    return text.endswith("artifactlocation")
