"""The desired state: parsed and checked as a whole before anything of it is believed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from serving.protocol.errors import shown

MODES = ("live", "shadow", "warm")
PROVIDERS = ("cpu", "cuda", "openvino")
STICKY_HEADER = "x-slipway-key"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_HEADER = re.compile(r"[a-z0-9-]{1,64}")
_URL = re.compile(r"https?://[^\s/?#@\\]+(/[^\s?#\\]*)?")
_UPSTREAM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_ID = re.compile(r"[A-Za-z0-9._:-]{1,200}")


class DocumentError(ValueError):
    """The document is refused whole; the text says why and where."""


@dataclass(frozen=True)
class Placement:
    """One deployment as desired. `weight` is in percent; `size` in bytes (0: not said); `signature` is the
    artifact's envelope as JSON text ("": not signed), which `serving.trust` judges."""

    id: str
    version: str
    weight: float
    mode: str
    sha256: str
    format: str
    size: int
    signature: str = ""
    provider: str = "cpu"
    upstream: UpstreamSpec | None = None
    raw: dict[str, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class UpstreamSpec:
    """Another V2 server that answers for a deployment. `timeout_s` covers one try."""

    url: str
    model: str
    version: str | None
    timeout_s: float


@dataclass(frozen=True)
class Batching:
    """`most` rows may share a run (1: never); `budget_ms` is how long a shared run may take."""

    most: int = 256
    budget_ms: float = 50.0


@dataclass(frozen=True)
class EndpointSpec:
    """One endpoint as desired; `tokens` are SHA-256 hex digests of tokens that may call it, `quotas` maps
    some of them to (requests per second, burst)."""

    name: str
    access: str
    tokens: frozenset[str]
    deployments: tuple[Placement, ...]
    raw: dict[str, Any]
    quotas: Mapping[str, tuple[float, int]] = field(default_factory=dict)
    sticky_header: str = STICKY_HEADER
    limits: tuple[int, int] | None = None  # concurrency, queue
    cache: tuple[int, float] | None = None  # bytes, seconds
    batching: Batching = Batching()


@dataclass(frozen=True)
class Document:
    """The whole desired state at one generation."""

    generation: int
    endpoints: tuple[EndpointSpec, ...]

    def digests(self) -> set[str]:
        """Every artifact the document names."""
        return {d.sha256 for e in self.endpoints for d in e.deployments}


def _need(holder: Any, key: str, kinds: tuple[type, ...], where: str) -> Any:
    if not isinstance(holder, dict):
        raise DocumentError(f"{where} must be an object")
    value = holder.get(key)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise DocumentError(f"{where}: {key} is missing or of the wrong type")
    return value


def parse_document(data: Any) -> Document:
    """Check a desired-state document (parsed JSON). Raises DocumentError."""
    generation = _need(data, "generation", (int,), "the document")
    endpoints: list[EndpointSpec] = []
    names: set[str] = set()
    ids: set[str] = set()
    for item in _need(data, "endpoints", (list,), "the document"):
        endpoint = _endpoint(item, ids)
        if endpoint.name in names:
            raise DocumentError(f"endpoint {shown(endpoint.name)!r} is there twice")
        names.add(endpoint.name)
        endpoints.append(endpoint)
    return Document(generation, tuple(endpoints))


def _endpoint(item: Any, ids: set[str]) -> EndpointSpec:
    name = _need(item, "name", (str,), "an endpoint")
    where = f"endpoint {shown(name)!r}"
    if not _NAME.fullmatch(name):
        raise DocumentError(f"{where}: the name must be letters, digits, '.', '_' and '-'")
    access = _need(item, "access", (str,), where)
    if access not in ("open", "token"):
        raise DocumentError(f"{where}: access must be open or token, not {shown(access)!r}")
    tokens, quotas = _tokens(item.get("tokens", []), where)
    placements = tuple(_placement(d, where) for d in _need(item, "deployments", (list,), where))
    for placement in placements:
        if placement.id in ids:
            raise DocumentError(f"{where}: deployment {placement.id} is there twice")
        ids.add(placement.id)
    live = [p for p in placements if p.mode == "live"]
    total = sum(p.weight for p in live)
    if live and abs(total - 100) > 1e-6:
        raise DocumentError(f"{where}: the weights of its live deployments sum to {total:g}, not 100")
    return EndpointSpec(name, access, tokens, placements, item, quotas, **_settings(item, where))


def _tokens(found: Any, where: str) -> tuple[frozenset[str], dict[str, tuple[float, int]]]:
    tokens: set[str] = set()
    quotas: dict[str, tuple[float, int]] = {}
    if not isinstance(found, list):
        raise DocumentError(f"{where}: tokens must be a list")
    for entry in found:
        digest = entry.get("sha256") if isinstance(entry, dict) else entry
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            raise DocumentError(f"{where}: tokens must be SHA-256 digests in hex")
        tokens.add(digest)
        if isinstance(entry, dict) and entry.get("rate") is not None:
            rate = _within(entry, "rate", (int, float), 1e-6, 1e6, f"{where}: a token")
            quotas[digest] = (float(rate), int(_within(entry, "burst", (int,), 1, 1e9, f"{where}: a token", 1)))
    return frozenset(tokens), quotas


def _within(
    holder: Any, key: str, kinds: tuple[type, ...], low: float, high: float, where: str, default: Any = None
) -> Any:
    if default is not None and isinstance(holder, dict) and holder.get(key) is None:
        return default
    value = _need(holder, key, kinds, where)
    if not low <= value <= high:
        raise DocumentError(f"{where}: {key} must be from {low:g} to {high:g}")
    return value


def _settings(item: dict[str, Any], where: str) -> dict[str, Any]:
    """What an endpoint may say of limits, cache, batching and stickiness."""
    settings: dict[str, Any] = {}
    if item.get("sticky_header") is not None:
        header = _need(item, "sticky_header", (str,), where)
        if not _HEADER.fullmatch(header):
            raise DocumentError(f"{where}: sticky_header must be a header's name in lower case")
        settings["sticky_header"] = header
    if item.get("limits") is not None:
        spec, what = item["limits"], f"{where}, limits"
        settings["limits"] = (
            _within(spec, "concurrency", (int,), 1, 1e6, what),
            _within(spec, "queue", (int,), 0, 1e6, what),
        )
    if item.get("cache") is not None:
        spec, what = item["cache"], f"{where}, cache"
        settings["cache"] = (
            _within(spec, "mb", (int,), 1, 4096, what) << 20,
            float(_within(spec, "ttl_s", (int, float), 1, 86400, what)),
        )
    if item.get("batching") is not None:
        spec, what = item["batching"], f"{where}, batching"
        if _need(spec, "mode", (str,), what) not in ("auto", "off"):
            raise DocumentError(f"{what}: mode must be auto or off")
        most = _within(spec, "max", (int,), 1, 4096, what, Batching.most) if spec["mode"] == "auto" else 1
        budget = float(_within(spec, "budget_ms", (int, float), 0.01, 60_000, what, Batching.budget_ms))
        settings["batching"] = Batching(most, budget)
    return settings


def _placement(item: Any, where: str) -> Placement:
    ident = _need(item, "id", (str, int), f"{where}: a deployment")
    ident = str(ident)
    if not _ID.fullmatch(ident):
        raise DocumentError(f"{where}: the deployment id {shown(ident)!r} is not a plain word")
    where = f"{where}, deployment {ident}"
    mode = _need(item, "mode", (str,), where)
    if mode not in MODES:
        raise DocumentError(f"{where}: mode must be live, shadow or warm, not {shown(mode)!r}")
    weight = _need(item, "weight", (int, float), where)
    # Written so that NaN fails too.
    if not 0 <= weight <= 100:
        raise DocumentError(f"{where}: weight must be from 0 to 100")
    artifact = _need(item, "artifact", (dict,), where)
    digest = _need(artifact, "sha256", (str,), where)
    if not _DIGEST.fullmatch(digest):
        raise DocumentError(f"{where}: sha256 must be 64 lower-case hex digits")
    size = artifact.get("size") or 0
    if not isinstance(size, int) or size < 0:
        raise DocumentError(f"{where}: size must be a number of bytes")
    provider = item.get("provider") or "cpu"
    if provider not in PROVIDERS:
        raise DocumentError(f"{where}: provider must be one of {', '.join(PROVIDERS)}")
    return Placement(
        id=ident,
        version=str(_need(item, "version", (str, int), where)),
        weight=float(weight),
        mode=mode,
        sha256=digest,
        format=_need(artifact, "format", (str,), where),
        size=size,
        signature=json.dumps(artifact["signature"], sort_keys=True) if artifact.get("signature") else "",
        provider=provider,
        upstream=_upstream(item["upstream"], where) if item.get("upstream") is not None else None,
        raw=item,
    )


def _upstream(item: Any, where: str) -> UpstreamSpec:
    where = f"{where}, upstream"
    url = _need(item, "url", (str,), where)
    try:
        whole = _URL.fullmatch(url) and url.isascii() and url.isprintable()
        parts = urlsplit(url)
        whole = whole and parts.hostname and parts.port != 0
    except ValueError:
        whole = False
    if not whole:
        raise DocumentError(f"{where}: url must be http:// or https:// with a host, an optional port and path")
    version = item.get("version")
    model = _need(item, "model", (str,), where)
    for name in (model, *(() if version is None else (str(version),))):
        if not _UPSTREAM_NAME.fullmatch(name):
            raise DocumentError(f"{where}: {shown(name)!r} is not a plain name")
    return UpstreamSpec(
        url=url.rstrip("/"),
        model=model,
        version=None if version is None else str(version),
        timeout_s=float(_within(item, "timeout_s", (int, float), 0.01, 3600, where, 10.0)),
    )
