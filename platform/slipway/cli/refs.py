"""What people write instead of ids: `digits`, `digits/3`, `digits@champion`, `digits/3:int8`, a digest."""

from __future__ import annotations

import re

from slipway.cli.client import Api, Json
from slipway.cli.errors import CliError, ExitCode

_ID = re.compile(r"[0-9]{1,18}")
_DIGEST = re.compile(r"[0-9a-f]{64}")

MODEL = "Id or name of a model."
VERSION = "Id of a version, MODEL/NUMBER or MODEL@ALIAS."
ARTIFACT = "Id of an artifact, MODEL/NUMBER (its ONNX), MODEL/NUMBER:LABEL, or a SHA-256."
ENDPOINT = "Id or name of an endpoint."
ROLLOUT = "Id of a rollout, ENDPOINT/ID, or ENDPOINT for its newest one."
POLICY = "Id of a policy, or MODEL/NAME."


def _is_id(text: str) -> bool:
    return bool(_ID.fullmatch(text))


def _one(rows: list[Json], what: str) -> Json:
    if not rows:
        raise CliError(f"There is no {what}, or it is not yours to see.", ExitCode.MISSING)
    if len(rows) > 1:
        ids = ", ".join(str(row["id"]) for row in rows[:10])
        raise CliError(f"There is more than one {what}. Say which by its id: {ids}.", ExitCode.USAGE)
    return rows[0]


def _named(api: Api, path: str, text: str, what: str) -> int:
    """The id of a row by id, else by name (a name may look like an id)."""
    if _is_id(text):
        try:
            return int(api.get(f"{path}/{text}")["id"])
        except CliError as error:
            if error.code is not ExitCode.MISSING:
                raise
    return int(_one(api.find(path, name=text), f"{what} “{text}”")["id"])


def model_id(api: Api, text: str) -> int:
    """The id of a model."""
    return _named(api, "/models", text, "model")


def endpoint_id(api: Api, text: str) -> int:
    """The id of an endpoint."""
    return _named(api, "/endpoints", text, "endpoint")


def token_id(api: Api, text: str) -> int:
    """The id of one's own token."""
    return _named(api, "/tokens", text, "token")


def version_id(api: Api, text: str) -> int:
    """The id of a version."""
    if _is_id(text):
        return int(text)
    model, at, alias = text.partition("@")
    if at:
        return int(_one(api.find("/versions", model=model_id(api, model), alias=alias), f"version {text}")["id"])
    model, slash, number = text.rpartition("/")
    if not slash or not _is_id(number):
        raise CliError(f"“{text}” names no version. {VERSION}", ExitCode.USAGE)
    return int(_one(api.find("/versions", model=model_id(api, model), number=number), f"version {text}")["id"])


def artifact_id(api: Api, text: str) -> int:
    """The id of an artifact; of a version's artifacts the exported ONNX unless a label or format says more."""
    if _is_id(text):
        return int(text)
    if _DIGEST.fullmatch(text):
        return int(_one(api.find("/artifacts", sha256=text), f"artifact {text[:12]}…")["id"])
    version, _, label = text.partition(":")
    if "/" not in version and "@" not in version:
        raise CliError(f"“{text}” names no artifact. {ARTIFACT}", ExitCode.USAGE)
    rows = api.find("/artifacts", version=version_id(api, version))
    if label:
        wanted = label.lower()
        return int(_one([row for row in rows if wanted in (row["label"].lower(), row["format"])], text)["id"])
    exported = [row for row in rows if row["format"] == "onnx" and not row["recipe"].get("optimizer")]
    return int(_one(exported, f"exported ONNX artifact of {version}")["id"])


def rollout_id(api: Api, text: str) -> int:
    """The id of a rollout."""
    if _is_id(text):
        return int(text)
    name, slash, number = text.partition("/")
    endpoint = endpoint_id(api, name)
    if not slash:
        rows = api.get("/rollouts", endpoint=endpoint, limit=1)["results"]
        return int(_one(rows, f"rollout of {name}")["id"])
    if not _is_id(number):
        raise CliError(f"“{text}” names no rollout. {ROLLOUT}", ExitCode.USAGE)
    row = api.get(f"/rollouts/{number}")
    if row["endpoint"] != endpoint:
        raise CliError(f"Rollout {number} is not one of {name}.", ExitCode.MISSING)
    return int(row["id"])


def policy_id(api: Api, text: str) -> int:
    """The id of a policy."""
    if _is_id(text):
        return int(text)
    model, slash, name = text.partition("/")
    if not slash:
        raise CliError(f"“{text}” names no policy. {POLICY}", ExitCode.USAGE)
    rows = api.rows("/policies", 1000, model=model_id(api, model))["results"]
    return int(_one([row for row in rows if row["name"] == name], f"policy {text}")["id"])


def segment(text: str) -> str:
    """One part of a path, whatever is in it."""
    from urllib.parse import quote

    return quote(text, safe="") if text not in {".", ".."} else "%2E" * len(text)
