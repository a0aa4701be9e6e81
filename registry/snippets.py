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


LONG = 6_000  # characters of a request beyond which snippets read it from a file


def _standard(body: str, token: bool) -> str:
    """Imports of the standard library that a snippet needs."""
    names = ["json"] * (len(body) > LONG) + ["os"] * token
    return "".join(f"import {name}\n" for name in names) + "\n" * bool(names)


def curl(url: str, body: str, token: bool) -> str:
    """One curl command."""
    auth = ' \\\n  -H "Authorization: Bearer $SLIPWAY_TOKEN"' if token else ""
    quoted = "'" + body.replace("'", "'\\''") + "'" if len(body) <= LONG else "@request.json"
    return f"curl {url}{auth} \\\n  -H 'Content-Type: application/json' \\\n  -d {quoted}"


def python(url: str, body: str, token: bool) -> str:
    """The same request with httpx."""
    auth = ', headers={"Authorization": f"Bearer {os.environ[\'SLIPWAY_TOKEN\']}"}' if token else ""
    first = _standard(body, token) + "import httpx\n"
    if len(body) > LONG:
        body = 'json.load(open("request.json"))'
    else:
        with contextlib.suppress(ValueError, RecursionError):
            body = repr(json.loads(body))  # true, false and null are spelled differently in Python
    return f'{first}\nbody = {body}\nanswer = httpx.post("{url}", json=body{auth})\nprint(answer.json())'


_NUMPY = {
    "BOOL": "np.bool_", "BYTES": "object", "FP16": "np.float16", "FP32": "np.float32", "FP64": "np.float64",
    **{f"{sign}INT{bits}": f"np.{sign.lower()}int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)},
}  # fmt: skip


def tritonclient(endpoint: str, body: str, token: bool) -> str:
    """The same request with NVIDIA's client, whose tensors are binary; "" when the body is no V2 request."""
    try:
        inputs = json.loads(body)["inputs"]
        rows = [(str(one["name"]), list(one["shape"]), str(one["datatype"]), one["data"]) for one in inputs]
    except (ValueError, RecursionError, KeyError, TypeError):
        return ""
    if not rows or any(kind not in _NUMPY for _, _, kind, _ in rows):
        return ""
    scheme, _, address = environment.serving_base.partition("://")
    secure = ", ssl=True" if scheme == "https" else ""
    lines = [_standard(body, token), "import numpy as np\n", "import tritonclient.http as triton\n", "\n"]
    lines.append(f'client = triton.InferenceServerClient("{address}"{secure})\n')
    if len(body) > LONG:
        lines.append('sent = json.load(open("request.json"))["inputs"]\n')
    lines.append("inputs = []\n")
    for place, (name, shape, kind, data) in enumerate(rows):
        values = f'sent[{place}]["data"]' if len(body) > LONG else repr(data)
        lines.append(f"data = np.array({values}, dtype={_NUMPY[kind]}).reshape({shape})\n")
        lines.append(f"inputs.append(triton.InferInput({name!r}, {shape}, {kind!r}))\n")
        lines.append("inputs[-1].set_data_from_numpy(data)\n")
    auth = ', headers={"Authorization": f"Bearer {os.environ[\'SLIPWAY_TOKEN\']}"}' if token else ""
    lines.append(f"answer = client.infer({endpoint!r}, inputs{auth})\nprint(answer.get_response())")
    return "".join(lines)


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
