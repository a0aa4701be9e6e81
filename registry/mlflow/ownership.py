"""Whose a registered model is: MLflow knows no projects, our registry does.

A version registered in MLflow appears in a project of ours: that of the model with this MLflow name, else the one
its tag `slipway.project` names, else the first. So whoever changes a registered model, or names a project, must
be allowed to write there; and a version without a tag, by somebody who may not write in the first project, is
given the tag of one in which they may.
"""

from __future__ import annotations

import json
import re
from typing import Any

from registry.mlflow.access import Verdict

TAG = "slipway.project"
_REGISTERED = re.compile(r"/(?:ajax-)?api/\d\.\d/mlflow/((?:registered-models|model-versions)(?:/[^/]+)?)(?:/.*)?")
# With any other, MLflow would read a bucket or a host with its own rights, for whoever asks.
_SOURCE = re.compile(r"(?:runs:/|models:/|mlflow-artifacts:/)(?!/).*", re.DOTALL)


class Denied(Exception):
    """Why a change of a registered model is refused; `status` is 400 or 403."""

    def __init__(self, text: str, status: int = 403) -> None:
        super().__init__(text)
        self.status = status


def concerns(method: str, path: str) -> bool:
    """Whether a changing request is about registered models, so that its body has to be looked at."""
    return method not in {"GET", "HEAD", "OPTIONS"} and _call(path) is not None


def _call(path: str) -> str | None:
    found = _REGISTERED.fullmatch(re.sub(r"/{2,}", "/", path))
    return found[1] if found else None


def names_in(body: bytes) -> list[str]:
    """The registered models that a body names. Raises Denied when it is no JSON object."""
    value = _read(body)
    return [name for key in ("name", "new_name", "newName") if isinstance(name := value.get(key), str)]


def judged(path: str, body: bytes, verdict: Verdict, owners: dict[str, str]) -> bytes:
    """The body to pass on. `owners`: {MLflow name: slug of its project}. Raises Denied."""
    value, call = _read(body), _call(path)
    for name in names_in(body):
        if name in owners and not verdict.may_write_in(owners[name]):
            raise Denied(f"The registered model {name[:100]!r} belongs to a project in which you may not write.")
    if call in {"registered-models/set-tag", "model-versions/set-tag"} and value.get("key") == TAG:
        _named(value.get("value"), verdict)
    if call == "model-versions/delete-tag" and value.get("key") == TAG and verdict.home:
        raise Denied("Without this tag the version would belong to a project in which you may not write.")
    tags = value.get("tags")
    rows = [row for row in tags if isinstance(row, dict)] if isinstance(tags, list) else []
    named = [row.get("value") for row in rows if row.get("key") == TAG]
    for slug in named:
        _named(slug, verdict)
    if call != "model-versions/create":
        return body
    source = value.get("source")
    if isinstance(source, str) and _SOURCE.fullmatch(source) is None:
        raise Denied("The source must lie in MLflow's own store (runs:/, models:/, mlflow-artifacts:/).", 400)
    if named or not verdict.home or value.get("name") in owners:
        return body
    value["tags"] = [*rows, {"key": TAG, "value": verdict.home}]
    return json.dumps(value).encode()


def _named(slug: Any, verdict: Verdict) -> None:
    if slug and not verdict.may_write_in(str(slug)):
        raise Denied(f"You may not write in a project {str(slug)[:63]!r} ({TAG}).")


def _read(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body or b"{}", object_pairs_hook=_once)
        if isinstance(value, str):  # MLflow takes twice encoded JSON of old clients
            value = json.loads(value, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise Denied("The body is not a JSON object with every name once.", 400)
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Two readers may differ in which of two equal names they believe."""
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name twice")
    return dict(pairs)
