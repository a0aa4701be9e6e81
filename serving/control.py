"""The control plane over HTTP: desired state, artifacts, reports. Blocking; used off the event loop."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx

MAX_DOCUMENT = 64 << 20
_PIECE = 1 << 20


class ControlError(Exception):
    """The control plane could not be reached or did not answer as agreed. `permanent`: it refused what
    was sent, and would refuse it again."""

    def __init__(self, text: str, permanent: bool = False) -> None:
        super().__init__(text)
        self.permanent = permanent


@dataclass(frozen=True)
class StateAnswer:
    """A new document with its ETag; `document` is None when nothing changed (304)."""

    etag: str | None
    document: Any


class Control:
    """One client per thread: it keeps its connection open between calls."""

    def __init__(self, url: str, read_token: Callable[[], str | None]) -> None:
        self._url = url
        self._read_token = read_token
        # Proxies of the environment are not for us, and a redirect would carry the token elsewhere.
        self._client = httpx.Client(
            base_url=url, trust_env=False, follow_redirects=False, timeout=httpx.Timeout(10, connect=5)
        )

    def _headers(self) -> dict[str, str]:
        try:
            token = self._read_token()
        except OSError as error:
            raise ControlError(f"the token file cannot be read: {error.strerror}") from error
        return {"Authorization": f"Bearer {token}"} if token else {}

    def state(self, etag: str | None, wait: float) -> StateAnswer:
        """Ask for the desired state, waiting up to `wait` seconds for a change. Raises ControlError."""
        headers = self._headers()
        if etag:
            headers["If-None-Match"] = etag
        try:
            answer = self._client.get(
                "/api/v1/serving/state",
                params={"wait": f"{wait:g}"},
                headers=headers,
                timeout=httpx.Timeout(wait + 10, connect=5),
            )
        except httpx.HTTPError as error:
            raise ControlError(f"the control plane cannot be reached: {type(error).__name__}") from error
        if answer.status_code == 304:
            return StateAnswer(etag, None)
        if answer.status_code != 200:
            raise ControlError(f"the control plane answered {answer.status_code} for the desired state")
        if len(answer.content) > MAX_DOCUMENT:
            raise ControlError("the desired state is too large")
        try:
            return StateAnswer(answer.headers.get("etag"), json.loads(answer.content))
        except (ValueError, RecursionError) as error:
            raise ControlError("the desired state is not JSON") from error

    def artifact(self, sha256: str) -> Iterator[memoryview]:
        """Bytes of an artifact in chunks, each valid until the next. Raises ControlError.

        Read in large pieces into one buffer: a client that hands on small ones would hold the interpreter's
        lock, and with it the event loop's answers, for all of a large download."""
        scheme, _, host = self._url.partition("://")
        kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
        host, slash, prefix = host.partition("/")
        connection = kind(host, timeout=30)
        try:
            connection.request("GET", f"{slash}{prefix}/api/v1/serving/artifacts/{sha256}", headers=self._headers())
            answer = connection.getresponse()
            if answer.status != 200:
                raise ControlError(f"the control plane answered {answer.status} for artifact {sha256[:12]}")
            whole = memoryview(bytearray(_PIECE))
            while count := answer.readinto(whole):
                yield whole[:count]
            if answer.length:
                raise ControlError(f"artifact {sha256[:12]}: the download ended early")
        except (OSError, http.client.HTTPException) as error:
            raise ControlError(f"artifact {sha256[:12]}: download failed: {type(error).__name__}") from error
        finally:
            connection.close()

    def report(self, payload: bytes) -> None:
        """Post one report. Raises ControlError; its `permanent` says that sending it again is useless."""
        headers = {**self._headers(), "Content-Type": "application/json"}
        try:
            answer = self._client.post("/api/v1/serving/report", content=payload, headers=headers)
        except httpx.HTTPError as error:
            raise ControlError(f"report not delivered: {type(error).__name__}") from error
        if answer.status_code >= 300:
            raise ControlError(
                f"the control plane answered {answer.status_code} to a report",
                permanent=answer.status_code in (400, 413, 415, 422),
            )

    def close(self) -> None:
        """Drop the connections."""
        self._client.close()
