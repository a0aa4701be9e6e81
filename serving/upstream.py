"""Another V2 server that answers for a deployment: pooled connections, one retry, a circuit breaker.

That is how every target gets canaries: the weights are ours, whoever computes.
"""

from __future__ import annotations

import asyncio
import http.cookiejar
import itertools
import logging
import socket
from collections import Counter
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import orjson

from serving.breaker import Breaker
from serving.call import ModelFailure
from serving.destination import UpstreamError, checked
from serving.document import UpstreamSpec
from serving.protocol.encode import Encoded
from serving.protocol.errors import BadInput, ServingError, shown

log = logging.getLogger("serving.upstream")

CONNECT_S = 2.0
LOOK_S = 5.0  # for the question whether its model is ready
MAX_ANSWER = 64 << 20
# All answers of one upstream that are coming in may hold this much together.
MAX_HELD = 4 * MAX_ANSWER
# Of an answer that is no success only the beginning is read, for its text.
_MAX_ERROR = 64 << 10
# Reading and writing the JSON of a larger answer would hold up the event loop.
_POOL_JSON = 64 << 10
_SOON = ((b"retry-after", b"1"),)


class Upstream:
    """One upstream as one process knows it. Used in the event loop alone; may be made in any thread.

    The name is resolved, and every address checked, when readiness is asked for; connections go to what was
    checked, so that a name which changes its mind later leads nowhere."""

    def __init__(self, spec: UpstreamSpec, counts: Counter[str] | None = None) -> None:
        self.spec = spec
        self.breaker = Breaker()
        self.counts = Counter() if counts is None else counts
        self.problem = ""  # why it is not ready, as far as we know
        # What it says of the model's tensors, and the inputs to compare with another's; None: not known.
        self.tensors: dict[str, list[dict[str, Any]]] | None = None
        self.signature: frozenset[tuple[str, str, tuple[int, ...]]] | None = None
        self._held = 0
        self._heard, self._silent = False, 0  # it answered once; so many questions in a row it did not
        parts = urlsplit(spec.url)
        self._host, self._secure = parts.hostname or "", parts.scheme == "https"
        self._port = parts.port or (443 if self._secure else 80)
        self._prefix = parts.path
        self._addresses: list[str] = []
        self._turn = itertools.count()
        version = f"/versions/{quote(spec.version, safe='')}" if spec.version is not None else ""
        self.path = f"/v2/models/{quote(spec.model, safe='')}{version}"
        self._client = httpx.AsyncClient(
            headers={"host": parts.netloc, "accept": "*/*", "accept-encoding": "identity", "user-agent": "slipway"},
            timeout=httpx.Timeout(spec.timeout_s, connect=min(CONNECT_S, spec.timeout_s)),
            # Many servers close what rested for five seconds: a request must not meet them doing it.
            limits=httpx.Limits(max_connections=256, max_keepalive_connections=64, keepalive_expiry=4),
            trust_env=False,
            follow_redirects=False,
            # One caller's cookie must not go out with another's request.
            cookies=http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[])),
        )

    @property
    def ready(self) -> bool:
        """Whether it said so when it was asked last; believed before that."""
        return not self.problem

    # -- readiness ---------------------------------------------------------------------------------

    async def look(self) -> None:
        """Ask whether the model is ready there, and set `problem`. Never raises."""
        try:
            await self._resolve()
            status, _, _ = await self._try("GET", "/ready", b"", {}, LOOK_S)
            problem = "" if status == 200 else f"the upstream says its model is not ready ({status})"
            if not problem and self.tensors is None:
                await self._describe()
        except UpstreamError as error:
            problem = str(error)
        except httpx.PoolTimeout:
            return  # all connections are at work
        except (httpx.ReadTimeout, TimeoutError):
            self._silent += 1
            if self._silent == 1 and self._heard:
                return  # it may be busy
            problem = "the upstream does not answer in time"
        except httpx.HTTPError as error:
            problem = f"the upstream does not answer ({type(error).__name__})"
        except ServingError as error:
            problem = f"the upstream cannot be asked: {error.text}"
        except Exception as error:
            log.exception("an upstream could not be asked")
            problem = f"the upstream cannot be asked ({type(error).__name__})"
        else:
            self._silent, self._heard = 0, True
        if problem and not self.problem:
            log.warning("%s%s: %s", self.spec.url, self.path, problem)
        self.problem = problem

    async def _resolve(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(LOOK_S):
                found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # a TimeoutError is an OSError
            if self._addresses:
                return  # a name server that is down for a moment changes nothing
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise UpstreamError(f"the upstream's name cannot be resolved ({reason})") from error
        self._addresses = []  # nothing that was believed before
        self._addresses = [checked(str(entry[4][0])) for entry in found]

    async def _describe(self) -> None:
        """Learn its inputs and outputs, where it tells them as V2 has it."""
        status, _, content = await self._try("GET", "", b"", {}, LOOK_S)
        try:
            document = orjson.loads(content) if status == 200 else {}
            tensors = {
                part: [
                    {"name": t["name"], "datatype": t["datatype"], "shape": list(t["shape"])} for t in document[part]
                ]
                for part in ("inputs", "outputs")
            }
            signature = frozenset((t["name"], t["datatype"], tuple(t["shape"])) for t in tensors["inputs"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return
        if signature:
            self.tensors, self.signature = tensors, signature

    # -- inference ---------------------------------------------------------------------------------

    async def rest(self, name: str, version: str, body: Any, headers: dict[str, str]) -> Encoded:
        """Send a request on; its answer under our model's name and version. Raises ServingError."""
        try:
            trial = self.breaker.enter()
        except ServingError:
            self.counts["upstream_requests_refused"] += 1
            raise
        self.counts["upstream_requests"] += 1
        failed = True
        try:
            status, told, content = await self._send(bytes(body), headers)
            failed = status >= 500
        except ServingError as error:
            failed = isinstance(error, ModelFailure)
            raise
        finally:
            self.breaker.leave(failed, trial)
            self.counts["upstream_failures"] += failed
        if status == 200:
            if len(content) > _POOL_JSON:
                return await asyncio.to_thread(_renamed, told, content, name, version)
            return _renamed(told, content, name, version)
        if status in (400, 413, 415, 422):
            # Counted against the deployment where another live one takes other inputs.
            raise BadInput(f"the server behind this model refused the request: {_text(status, content)}")
        if status == 429:
            raise ServingError(503, "the server behind this model is busy", _SOON)
        # Among them 401, 403 and 404: what we may ask of it, and whether it has the model, is no caller's fault.
        raise ModelFailure(502, f"the server behind this model answered {status}")

    async def _send(self, body: bytes, headers: dict[str, str]) -> tuple[int, httpx.Headers, bytes]:
        try:
            if not self._addresses:
                await self._resolve()
            for last in (False, True):
                try:
                    return await self._try("POST", "/infer", body, headers, self.spec.timeout_s)
                except (httpx.ConnectError, httpx.ConnectTimeout):
                    # Nothing was sent: a second try, at the next address, cannot compute anything twice.
                    if last:
                        raise
        except httpx.PoolTimeout:
            raise ServingError(503, "the server behind this model is busy", _SOON) from None
        except (UpstreamError, httpx.ConnectError, httpx.ConnectTimeout):
            raise ModelFailure(503, "the server behind this model cannot be reached", _SOON) from None
        except (TimeoutError, httpx.TimeoutException):
            raise ModelFailure(504, "the server behind this model did not answer in time") from None
        except httpx.HTTPError as error:
            raise ModelFailure(502, f"the server behind this model failed ({type(error).__name__})") from None
        raise AssertionError

    async def _try(
        self, method: str, path: str, body: bytes, headers: dict[str, str], seconds: float
    ) -> tuple[int, httpx.Headers, bytes]:
        """One exchange, over within so many seconds whatever the other side does: status, headers, body."""
        if not self._addresses:
            raise UpstreamError("the upstream has no address")
        address = self._addresses[next(self._turn) % len(self._addresses)]
        request = self._client.build_request(
            method,
            httpx.URL(
                scheme="https" if self._secure else "http",
                host=address.partition("%")[0],
                port=self._port,
                raw_path=f"{self._prefix}{self.path}{path}".encode(),
            ),
            content=body,
            headers=headers,
            extensions={"sni_hostname": self._host},
        )
        async with asyncio.timeout(seconds):
            answer = await self._client.send(request, stream=True)
            try:
                return answer.status_code, answer.headers, await self._read(answer)
            finally:
                await answer.aclose()

    async def _read(self, answer: httpx.Response) -> bytes:
        parts: list[bytes] = []
        size, success = 0, answer.status_code == 200
        if success and answer.headers.get("content-encoding", "identity") != "identity":
            raise ModelFailure(502, "the server behind this model gave a compressed answer")
        try:
            async for part in answer.aiter_raw():
                parts.append(part)
                size += len(part)
                self._held += len(part)
                if not success and size > _MAX_ERROR:
                    break
                if size > MAX_ANSWER:
                    raise ModelFailure(502, "the server behind this model gave too long an answer")
                if self._held > MAX_HELD:
                    raise ServingError(503, "too many large answers at once", _SOON)
        finally:
            self._held -= size
        return b"".join(parts)

    async def close(self) -> None:
        """Drop the connections."""
        await self._client.aclose()


def _text(status: int, content: bytes) -> str:
    """The other server's own word on an error, shortened: Triton and MLServer say error, TorchServe message,
    KServe either or detail."""
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError:
        return f"status {status}"
    found = document if isinstance(document, dict) else {}
    word = next((found[key] for key in ("error", "message", "detail") if isinstance(found.get(key), str)), "")
    return shown(word, 300) or f"status {status}"


def _renamed(told: httpx.Headers, content: bytes, name: str, version: str) -> Encoded:
    """An answer under our names. Only its JSON is written anew: binary tensors behind it stay as they are.
    Raises ModelFailure for what is no V2 answer."""
    told_size = told.get("inference-header-content-length")
    size = len(content)
    if told_size is not None:
        size = int(told_size) if told_size.isdigit() and len(told_size) < 12 else -1
    try:
        document = orjson.loads(memoryview(content)[:size]) if 0 < size <= len(content) else None
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict) or not isinstance(document.get("outputs"), list):
        raise ModelFailure(502, "the server behind this model gave no V2 answer")
    renamed = orjson.dumps({**document, "model_name": name, "model_version": version})
    if told_size is None:
        return Encoded(renamed, None)
    return Encoded(renamed + content[size:], len(renamed))
