"""Another V2 server that answers for a deployment: pooled connections, one retry, a circuit breaker.

That is how every target gets canaries: the weights are ours, whoever computes.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import orjson

from serving.call import ModelFailure
from serving.document import UpstreamSpec
from serving.protocol.encode import Encoded
from serving.protocol.errors import ServingError, bad_request, shown

CONNECT_S = 2.0
MAX_ANSWER = 64 << 20
# After so many failures in a row an upstream is left alone for a while; then one request tries it.
BREAK_AFTER = 5
BREAK_S = 5.0


class UpstreamError(Exception):
    """The upstream cannot be used; the text is for the person who deployed it."""


class Breaker:
    """Closed until BREAK_AFTER failures in a row; open for BREAK_S; then one trial decides."""

    def __init__(self) -> None:
        self._failures = 0
        self._open_until = 0.0
        self._trying = False

    @property
    def open(self) -> bool:
        """Whether requests are refused just now."""
        return self._failures >= BREAK_AFTER and (self._trying or time.monotonic() < self._open_until)

    def enter(self) -> None:
        """Raises ModelFailure 503 while open."""
        if self.open:
            raise ModelFailure(503, "the server behind this model does not answer", ((b"retry-after", b"5"),))
        self._trying = self._failures >= BREAK_AFTER

    def leave(self, failed: bool) -> None:
        """Tell how it went."""
        self._trying = False
        self._failures = self._failures + 1 if failed else 0
        if failed:
            self._open_until = time.monotonic() + BREAK_S


def address_of(url: str) -> None:
    """Refuse an address that must never be asked: link-local, where clouds keep their credentials. Raises
    UpstreamError. Names are resolved here, as the control plane's check cannot know what they mean to us."""
    parts = urlsplit(url)
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
    except OSError as error:
        raise UpstreamError(f"the upstream's name cannot be resolved: {error.strerror}") from error
    for entry in found:
        address = ipaddress.ip_address(str(entry[4][0]).partition("%")[0])
        if address.is_link_local or address.is_multicast or address.is_unspecified:
            raise UpstreamError(f"the upstream's address {address} must not be asked")


class Upstream:
    """One upstream as one process knows it; used in the event loop, but for `check`."""

    def __init__(self, spec: UpstreamSpec) -> None:
        self.spec = spec
        self.breaker = Breaker()
        version = f"/versions/{quote(spec.version, safe='')}" if spec.version is not None else ""
        self.path = f"/v2/models/{quote(spec.model, safe='')}{version}"
        self._client = httpx.AsyncClient(
            base_url=spec.url,
            timeout=httpx.Timeout(spec.timeout_s, connect=min(CONNECT_S, spec.timeout_s)),
            limits=httpx.Limits(max_connections=256, max_keepalive_connections=64, keepalive_expiry=30),
            trust_env=False,
            follow_redirects=False,
        )

    def check(self) -> None:
        """Ask whether the model is ready there; blocking. Raises UpstreamError saying what is wrong."""
        address_of(self.spec.url)
        try:
            answer = httpx.get(f"{self.spec.url}{self.path}/ready", timeout=5, trust_env=False)
        except httpx.HTTPError as error:
            raise UpstreamError(f"the upstream does not answer ({type(error).__name__})") from error
        if answer.status_code != 200:
            raise UpstreamError(f"the upstream says its model is not ready ({answer.status_code})")

    async def rest(self, name: str, version: str, body: Any, headers: dict[str, str]) -> Encoded:
        """Send a request on; its answer under our model's name and version. Raises ServingError."""
        self.breaker.enter()
        failed = True
        try:
            answer = await self._send(bytes(body), headers)
            failed = answer.status_code >= 500
        finally:
            self.breaker.leave(failed)
        if answer.status_code == 200:
            return _renamed(answer, name, version)
        if answer.status_code in (400, 413, 415, 422):
            raise bad_request(f"the server behind this model refused the request: {_text(answer)}")
        if answer.status_code == 429:
            raise ServingError(503, "the server behind this model is busy", ((b"retry-after", b"1"),))
        raise ModelFailure(502, f"the server behind this model answered {answer.status_code}")

    async def _send(self, body: bytes, headers: dict[str, str]) -> httpx.Response:
        path = f"{self.path}/infer"
        try:
            try:
                return await self._client.post(path, content=body, headers=headers)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                # Nothing was sent: a second try cannot compute anything twice.
                return await self._client.post(path, content=body, headers=headers)
        except httpx.TimeoutException:
            raise ModelFailure(504, "the server behind this model did not answer in time") from None
        except httpx.HTTPError as error:
            raise ModelFailure(502, f"the server behind this model failed ({type(error).__name__})") from None

    async def close(self) -> None:
        """Drop the connections."""
        await self._client.aclose()


def _text(answer: httpx.Response) -> str:
    try:
        return shown(orjson.loads(answer.content)["error"], 300)
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return f"status {answer.status_code}"


def _renamed(answer: httpx.Response, name: str, version: str) -> Encoded:
    content = answer.content
    if len(content) > MAX_ANSWER:
        raise ModelFailure(502, "the server behind this model gave too long an answer")
    size = answer.headers.get("inference-header-content-length")
    head = content if size is None else content[: int(size)] if size.isdigit() else b""
    try:
        document = orjson.loads(head)
        document["model_name"], document["model_version"] = name, version
    except (orjson.JSONDecodeError, TypeError):
        raise ModelFailure(502, "the server behind this model gave no V2 answer") from None
    renamed = orjson.dumps(document)
    if size is None:
        return Encoded(renamed, None)
    return Encoded(renamed + content[int(size) :], len(renamed))
