"""Inference over REST: from a request's headers and body to the bytes of its answer."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from serving.call import Call
from serving.dataplane import Dataplane
from serving.protocol.encode import BINARY_TYPE, JSON_TYPE, Encoded, encode, wanted_outputs
from serving.protocol.envelope import Envelope, parse
from serving.protocol.errors import ServingError, bad_request
from serving.protocol.tensors import build_feeds, raw_feeds
from serving.routes import Route

if TYPE_CHECKING:
    from serving.upstream import Upstream

_PLAIN_ID = re.compile(rb"[\x21-\x7e]{1,128}")
Headers = tuple[tuple[bytes, bytes], ...]


class Asked:
    """What a request's head says: where it goes, who asks, how its body is to be read."""

    __slots__ = (
        "authorization", "content_type", "encoding", "given_id", "headers", "json_size", "keep_alive", "length",
        "route",
    )  # fmt: skip

    def __init__(self, route: Route, headers: dict[bytes, bytes], length: int = 0, keep_alive: bool = True) -> None:
        self.route = route
        self.headers = headers
        self.length = length
        self.keep_alive = keep_alive
        self.authorization = headers.get(b"authorization")
        self.given_id = headers.get(b"x-request-id")
        self.json_size = headers.get(b"inference-header-content-length")
        self.content_type = headers.get(b"content-type", b"application/json")
        self.encoding = headers.get(b"content-encoding", b"identity")

    def check(self) -> None:
        """Raises ServingError for a body that cannot be read at all: 415 compressed, 400 for a size that is none."""
        if self.encoding != b"identity":
            raise ServingError(415, "compressed bodies are not supported")
        if self.json_size is not None and (not self.json_size.isdigit() or len(self.json_size) > 12):
            raise bad_request("Inference-Header-Content-Length must be a whole number")


class RestCall(Call):
    """A call with a V2 JSON or binary body."""

    envelope: Envelope | None = None

    def __init__(
        self,
        dataplane: Dataplane,
        asked: Asked,
        body: bytes | bytearray,
        request_id: bytes,
        finish: Callable[[Any], None],
    ) -> None:
        # Looked up now that the body is there: the table may have changed while it came in.
        endpoint = dataplane.admit(asked.route.model, asked.authorization)
        self.endpoint = endpoint
        self.version = asked.route.version
        self.key = asked.headers.get(endpoint.sticky_header) or asked.given_id
        self.finish = finish
        self.asking = asked
        self.body: bytes | bytearray = body
        self.request_id = request_id

    def size(self) -> int:
        return len(self.body)

    def read(self) -> None:
        body, json_size = self.body, self.asking.json_size
        if json_size is None:
            templates = self.endpoint.templates
            found = templates.find(body)
            if found is not None:
                known, start, end = found
                deployment = self.route(None)
                if deployment.model is None:
                    return
                feeds = known.feeds(deployment.model, body, start, end)
                if feeds is not None:
                    self._take(known.envelope, feeds)
                    return
            self._read_json(body, len(body))
            if found is None and self.envelope is not None:
                templates.learn(body, self.envelope)
        elif int(json_size) == 0 and body:
            # A raw body has no JSON: its one tensor is all of it, and the answer is binary as well.
            deployment = self.route(None)
            if deployment.model is not None:
                self._take(Envelope(None, [], {}, binary_output=True), raw_feeds(deployment.model, body))
        else:
            if int(json_size) > len(body):
                raise bad_request("Inference-Header-Content-Length goes beyond the body")
            self._read_json(body, int(json_size))
        envelope = self.envelope
        if envelope is not None:
            # Let go of the parser's memory: the tensors are copies.
            envelope.inputs = []
            envelope.document = None

    def _read_json(self, body: bytes | bytearray, json_size: int) -> None:
        text = body if json_size == len(body) else memoryview(body)[:json_size]
        envelope = parse(text, self.endpoint.max_inputs)
        # A known text that had to be read again was routed already.
        deployment = self.deployment or self.route(envelope.id)
        if deployment.model is not None:
            self._take(envelope, build_feeds(deployment.model, envelope, body, json_size))

    def _take(self, envelope: Envelope, feeds: dict[str, Any]) -> None:
        self.envelope = envelope
        self.feeds = feeds
        self.names = wanted_outputs(self.model(), envelope)

    def encode(self, arrays: list[Any]) -> Encoded:
        deployment, envelope = self.deployment, self.envelope
        assert deployment is not None and envelope is not None
        return encode(deployment.opening, envelope, self.model(), self.names, arrays)

    async def forward(self, upstream: Upstream) -> Encoded:
        deployment, json_size = self.deployment, self.asking.json_size
        assert deployment is not None
        headers = {"content-type": "application/json", "x-request-id": self.request_id.decode()}
        if json_size is not None:
            headers["content-type"] = "application/octet-stream"
            headers["inference-header-content-length"] = json_size.decode()
        return await upstream.rest(deployment.endpoint, deployment.version, self.body, headers)

    def forget(self) -> None:
        self.body = b""
        self.envelope = None
        self.feeds = {}

    def headers(self) -> Headers:
        """Headers of the answer, without its length."""
        mine = (b"x-request-id", self.request_id)
        error = self.error
        if error is not None:
            return (JSON_TYPE, mine, *error.headers)
        deployment, encoded = self.deployment, self.answer
        assert deployment is not None
        if encoded.json_size is None:
            return (JSON_TYPE, deployment.header, mine)
        size = (b"inference-header-content-length", b"%d" % encoded.json_size)
        return (BINARY_TYPE, size, deployment.header, mine)


class RequestIds:
    """The client's id where it is plain and short (cut at 128 characters), else a new one."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._prefix = secrets.token_hex(5).encode() + b"-"

    def of(self, given: bytes | None) -> bytes:
        if given and _PLAIN_ID.fullmatch(given[:128]):
            return given[:128]
        return self._prefix + b"%x" % next(self._numbers)
