"""A small client of Slipway's REST API and of the V2 protocol: HTTP and nothing else."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np


class Slipway:
    """`url` is the dashboard's address, `serving` the inference server's."""

    def __init__(self, url: str, token: str, serving: str) -> None:
        self.url = url
        self.api = httpx.Client(base_url=f"{url}/api/v1", headers={"Authorization": f"Bearer {token}"}, timeout=60)
        self.serving = httpx.Client(base_url=serving, headers={"Authorization": f"Bearer {token}"}, timeout=30)
        self.input_names: dict[str, str] = {}

    def get(self, path: str, **params: Any) -> Any:
        return self._answer(self.api.get(path, params=params))

    def post(self, path: str, body: Any = None, **headers: str) -> Any:
        # The key makes a repetition after a lost answer harmless.
        headers.setdefault("Idempotency-Key", uuid.uuid4().hex)
        return self._answer(self.api.post(path, json=body if body is not None else {}, headers=headers))

    @staticmethod
    def _answer(response: httpx.Response) -> Any:
        if response.is_error:
            problem = response.json()
            raise SystemExit(f"{response.request.method} {response.request.url}: {problem['detail']}")
        return response.json()

    def first(self, path: str, **params: Any) -> Any | None:
        rows = self.get(path, **params)["results"]
        return rows[0] if rows else None

    def wait_for(self, what: str, find: Callable[[], Any], seconds: float = 300) -> Any:
        """Asks again until `find` answers something."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = find()
            if found:
                return found
            time.sleep(0.5)
        raise SystemExit(f"{what} did not happen within {seconds:.0f} s.")

    def job(self, job_id: int) -> Any:
        """Waits until the job has ended; its failure ends the script with the job's reason."""
        while True:
            job = self.get(f"/jobs/{job_id}", wait=20)
            if job["state"] in {"succeeded", "failed", "cancelled"}:
                break
        if job["state"] != "succeeded":
            raise SystemExit(f"Job {job_id} ({job['kind']}) {job['state']}: {job['reason']}")
        return job

    def infer(self, endpoint: str, rows: np.ndarray) -> tuple[np.ndarray, str]:
        """(predicted labels, version that answered) for float32 rows [n, features]."""
        response = self.serving.post(f"/v2/models/{endpoint}/infer", json=self.request_body(endpoint, rows))
        response.raise_for_status()
        body = response.json()
        labels = next(output for output in body["outputs"] if output["datatype"] == "INT64")
        return np.array(labels["data"]), body["model_version"]

    def request_body(self, endpoint: str, rows: np.ndarray) -> dict[str, Any]:
        """A V2 request; the endpoint's metadata says what its input is called."""
        if endpoint not in self.input_names:
            metadata = self.serving.get(f"/v2/models/{endpoint}").raise_for_status().json()
            self.input_names[endpoint] = metadata["inputs"][0]["name"]
        data = [int(value) if value == int(value) else value for value in rows.ravel().tolist()]
        tensor = {"name": self.input_names[endpoint], "shape": list(rows.shape), "datatype": "FP32", "data": data}
        return {"inputs": [tensor]}

    def call_hook(self, path: str, secret: str, body: dict[str, Any]) -> Any:
        """Calls a retraining hook, signed as Standard Webhooks describes."""
        content = json.dumps(body)
        message, now = f"msg_{uuid.uuid4().hex}", str(int(time.time()))
        key = base64.b64decode(secret.removeprefix("whsec_"))
        digest = hmac.new(key, f"{message}.{now}.{content}".encode(), hashlib.sha256).digest()
        headers = {
            "content-type": "application/json",
            "webhook-id": message,
            "webhook-timestamp": now,
            "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
        }
        return self._answer(httpx.post(f"{self.url}{path}", content=content, headers=headers, timeout=30))
