"""The desired state: parsed and checked as a whole before anything of it is believed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from serving.protocol.errors import shown

MODES = ("live", "shadow", "warm")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_ID = re.compile(r"[A-Za-z0-9._:-]{1,200}")


class DocumentError(ValueError):
    """The document is refused whole; the text says why and where."""


@dataclass(frozen=True)
class Placement:
    """One deployment as desired. `weight` is in percent; `size` in bytes (0: not said)."""

    id: str
    version: str
    weight: float
    mode: str
    sha256: str
    format: str
    size: int


@dataclass(frozen=True)
class EndpointSpec:
    """One endpoint as desired; `tokens` are SHA-256 hex digests of tokens that may call it."""

    name: str
    access: str
    tokens: frozenset[str]
    deployments: tuple[Placement, ...]
    raw: dict[str, Any]


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
    tokens = item.get("tokens", [])
    if not isinstance(tokens, list) or not all(isinstance(t, str) and _DIGEST.fullmatch(t) for t in tokens):
        raise DocumentError(f"{where}: tokens must be SHA-256 digests in hex")
    placements = tuple(_placement(d, where) for d in _need(item, "deployments", (list,), where))
    for placement in placements:
        if placement.id in ids:
            raise DocumentError(f"{where}: deployment {placement.id} is there twice")
        ids.add(placement.id)
    live = [p for p in placements if p.mode == "live"]
    total = sum(p.weight for p in live)
    if live and abs(total - 100) > 1e-6:
        raise DocumentError(f"{where}: the weights of its live deployments sum to {total:g}, not 100")
    return EndpointSpec(name, access, frozenset(tokens), placements, item)


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
    return Placement(
        id=ident,
        version=str(_need(item, "version", (str, int), where)),
        weight=float(weight),
        mode=mode,
        sha256=digest,
        format=_need(artifact, "format", (str,), where),
        size=size,
    )
