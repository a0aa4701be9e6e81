"""Paths of the V2 REST protocol, and of this server's own health and metrics."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

from serving.protocol.errors import ServingError

_GET = ("GET", "HEAD")
_POST = ("POST",)
_FIXED = {
    "/v2": ("server", _GET),
    "/v2/": ("server", _GET),
    "/v2/health/live": ("live", _GET),
    "/v2/health/ready": ("ready", _GET),
    "/v2/repository/index": ("index", _POST),
    "/healthz": ("live", _GET),
    "/v2/models/stats": ("all-stats", _GET),
    "/metrics": ("metrics", _GET),
}
_ACTIONS = {
    "": ("model", _GET),
    "ready": ("model-ready", _GET),
    "infer": ("infer", _POST),
    "stats": ("stats", _GET),
    "config": ("config", _GET),
}
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Route:
    """What a path asks for; `version` is None when it is left to the router."""

    kind: str
    methods: tuple[str, ...]
    model: str = ""
    version: str | None = None


class Router:
    """Paths to routes; paths seen before are remembered, up to a bound."""

    def __init__(self) -> None:
        self._seen: dict[bytes, Route] = {}

    def seen(self, raw_path: bytes) -> Route | None:
        """The route of a path that `find` found before."""
        return self._seen.get(raw_path)

    def find(self, raw_path: bytes) -> Route:
        """The route of a path as it came in (still percent-encoded). Raises ServingError 404."""
        route = self._seen.get(raw_path)
        if route is None:
            route = _parse(raw_path)
            if len(self._seen) >= _REMEMBERED:
                self._seen.clear()
            self._seen[raw_path] = route
        return route


def _parse(raw_path: bytes) -> Route:
    path = raw_path.decode("latin-1")
    fixed = _FIXED.get(path)
    if fixed is not None:
        return Route(*fixed)
    # Split before decoding, so that an encoded slash stays part of a name.
    parts = [unquote(part) for part in path.split("/")]
    if len(parts) >= 4 and parts[:3] == ["", "v2", "models"] and parts[3]:
        model, rest = parts[3], parts[4:]
        version: str | None = None
        if len(rest) >= 2 and rest[0] == "versions" and rest[1]:
            version, rest = rest[1], rest[2:]
        action = _ACTIONS.get("/".join(rest))
        if action is not None:
            return Route(*action, model=model, version=version)
    if len(parts) == 6 and parts[:4] == ["", "v2", "repository", "models"] and parts[5] in ("load", "unload"):
        return Route("read-only", _POST)
    raise ServingError(404, "there is nothing at this path")
