"""Sends one real V2 request to the inference server and reports what came back."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
from django.utils.translation import gettext as _

from registry.snippets import infer_url

TIMEOUT = httpx.Timeout(15.0, connect=2.0)
SHOWN = 20_000


@dataclass(frozen=True)
class Answer:
    """Status 0: the server could not be reached; `text` says why. `error` is the server's refusal in its words."""

    status: int
    text: str
    millis: float
    version: str = ""
    deployment: str = ""
    request_id: str = ""
    error: str = ""
    cut: bool = False
    document: Any = field(default=None, repr=False)

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300


def send(endpoint: str, body: str, token: str = "") -> Answer:
    """Posts the body as it is, so that wrong requests show the server's own answer."""
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    began = time.perf_counter()
    try:
        answer = httpx.post(infer_url(endpoint), content=body.encode(), headers=headers, timeout=TIMEOUT)
    except (httpx.HTTPError, UnicodeEncodeError, ValueError) as error:
        reason = str(error) or type(error).__name__
        text = _("The inference server could not be reached: %(why)s") % {"why": reason}
        return Answer(0, text, (time.perf_counter() - began) * 1000, error=text)
    return _read(answer, (time.perf_counter() - began) * 1000)


def _read(answer: httpx.Response, millis: float) -> Answer:
    """What an answer of any shape says."""
    try:
        document = answer.json()
        text = json.dumps(document, ensure_ascii=False)
        if len(text) <= SHOWN:
            text = json.dumps(document, indent=2, ensure_ascii=False)
    except ValueError:
        document, text = None, answer.text
    found = document if isinstance(document, dict) else {}
    return Answer(
        answer.status_code,
        text[:SHOWN],
        millis,
        version=str(found.get("model_version", "")),
        deployment=answer.headers.get("x-slipway-deployment", ""),
        request_id=answer.headers.get("x-request-id", ""),
        error="" if answer.is_success else str(found.get("error") or text)[:2000],
        cut=len(text) > SHOWN,
        document=document,
    )
