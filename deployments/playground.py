"""Sends one real V2 request to the inference server and reports what came back."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

import httpx
from django.utils.translation import gettext as _

from registry.snippets import infer_url

TIMEOUT = httpx.Timeout(15.0, connect=2.0)
SHOWN = 20_000


@dataclass(frozen=True)
class Answer:
    """Status 0: the server could not be reached; `text` says why."""

    status: int
    text: str
    millis: float
    version: str = ""

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
        return Answer(0, text, (time.perf_counter() - began) * 1000)
    millis = (time.perf_counter() - began) * 1000
    try:
        parsed = answer.json()
        text, version = json.dumps(parsed, indent=2, ensure_ascii=False), str(parsed.get("model_version", ""))
    except (ValueError, AttributeError):
        text, version = answer.text, ""
    return Answer(answer.status_code, text[:SHOWN], millis, version)
