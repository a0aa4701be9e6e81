"""Whose a registered model is: MLflow knows no projects, our registry does.

A version registered in MLflow appears in a project of ours: that of the model with this MLflow name, else the one
its tag `slipway.project` names, else the first. So whoever changes a registered model, or names a project, must
be allowed to write there; and a version without a tag, by somebody who may not write in the first project, is
given the tag of one in which they may.

The files of a run or of a logged model belong, once a version came out of it, to that version's project: its
digests, its exports and its retraining depend on them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote

from registry.mlflow.access import Verdict

TAG = "slipway.project"
_REGISTERED = re.compile(r"/(?:ajax-)?api/\d\.\d/mlflow/((?:registered-models|model-versions)(?:/[^/]+)?)(?:/.*)?")
# With any other, MLflow would read a bucket or a host with its own rights, for whoever asks.
_SOURCE = re.compile(r"(?:runs:/|models:/|mlflow-artifacts:/)(?!/).*", re.DOTALL)


_PLACED = re.compile(r"/(?:ajax-)?api/\d\.\d/mlflow-artifacts/(?:artifacts|mpu/[a-z]+)(?:/(.*))?", re.DOTALL)
_UPLOADED = re.compile(r"/(?:ajax-)?api/\d\.\d/mlflow/upload-artifact")


@dataclass(frozen=True)
class Place:
    """Whose files a request changes: a run's, or a logged model's (then `model` is its id)."""

    run: str = ""
    model: str = ""
    experiment: str = ""


def place_of(method: str, path: str, query: bytes) -> Place | None:
    """Where a request writes or deletes files; None when it does neither. Raises Denied for whole experiments."""
    if method in {"GET", "HEAD", "OPTIONS"}:
        return None
    path = re.sub(r"/{2,}", "/", path)
    if _UPLOADED.fullmatch(path):
        values = parse_qs(query.decode("latin-1"))
        return Place(run=next(iter(values.get("run_uuid") or values.get("run_id") or [""])))
    found = _PLACED.fullmatch(path)
    if found is None:
        return None
    text = found[1] or ""
    while (decoded := unquote(text)) != text:  # MLflow decodes once more
        text = decoded
    parts = [part for part in text.split("/") if part not in {"", "."}]
    if len(parts) < 3:
        raise Denied("Files can only be changed below a run or a logged model.")
    if parts[1] == "models":
        return Place(model=parts[2], experiment=parts[0])
    return Place(run=parts[1])


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
