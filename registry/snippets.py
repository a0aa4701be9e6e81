"""Code that calls a model, with the real addresses: curl and Python."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from typing import Any

from registry.models import Version
from slipway.environment import environment


def example_value(datatype: str) -> Any:
    """A harmless value of a V2 datatype; JSON knows one kind of number, so 0 serves floats too."""
    return {"BOOL": True, "BYTES": "text"}.get(datatype, 0)


def served_signature(artifact: Any, artifacts: Iterable[Any] = ()) -> dict[str, Any]:
    """What a request must look like: exporters rename inputs, so the served file's own names come first.

    Then those of the newest of the other ONNX artifacts, then those of the training run.
    """
    others = sorted((one for one in artifacts if one.format == "onnx"), key=lambda one: -one.pk)
    candidates = [one.signature for one in (artifact, *others)]
    return next((found for found in candidates if found and found.get("inputs")), artifact.version.signature or {})


def example_request(signature: dict[str, Any]) -> dict[str, Any]:
    """A V2 request of one row that fits a signature; free dimensions become 1."""
    inputs = []
    for tensor in signature.get("inputs") or []:
        shape = [1 if dim is None or dim < 1 else dim for dim in tensor.get("shape") or [1]]
        count = 1
        for dim in shape:
            count *= dim
        value = example_value(tensor["datatype"])
        inputs.append(
            {
                "name": tensor["name"],
                "shape": shape,
                "datatype": tensor["datatype"],
                "data": [value] * min(count, 4096),
            }
        )
    return {"inputs": inputs}


def curl(url: str, body: str, token: bool) -> str:
    """One curl command."""
    auth = ' \\\n  -H "Authorization: Bearer $SLIPWAY_TOKEN"' if token else ""
    quoted = body.replace("'", "'\\''")
    return f"curl {url}{auth} \\\n  -H 'Content-Type: application/json' \\\n  -d '{quoted}'"


def python(url: str, body: str, token: bool) -> str:
    """The same request with httpx."""
    auth = ', headers={"Authorization": f"Bearer {os.environ[\'SLIPWAY_TOKEN\']}"}' if token else ""
    first = "import os\n\nimport httpx\n" if token else "import httpx\n"
    with contextlib.suppress(ValueError, RecursionError):
        body = repr(json.loads(body))  # true, false and null are spelled differently in Python
    return f'{first}\nbody = {body}\nanswer = httpx.post("{url}", json=body{auth})\nprint(answer.json())'


def infer_url(endpoint: str) -> str:
    """Where an endpoint answers V2 requests."""
    return f"{environment.serving_base}/v2/models/{endpoint}/infer"


def shortened(body: dict[str, Any]) -> str:
    """The request as one line of JSON."""
    return json.dumps(body, ensure_ascii=False)


def for_version(version: Version, artifacts: list[Any]) -> dict[str, str]:
    """How to call the version where it is deployed, and how to read it over the API."""
    api = f"{environment.public_base}/api/v1/versions/{version.pk}"
    found = {
        "api": f'curl {api} \\\n  -H "Authorization: Bearer $SLIPWAY_TOKEN"',
    }
    live = [(artifact, row) for artifact in artifacts for row in artifact.deployments.all() if row.state == "live"]
    if live:
        artifact, endpoint = live[0][0], live[0][1].endpoint
        body = shortened(example_request(served_signature(artifact, artifacts)))
        token = endpoint.access == "token"
        found |= {
            "curl": curl(infer_url(endpoint.name), body, token),
            "python": python(infer_url(endpoint.name), body, token),
        }
    return found
