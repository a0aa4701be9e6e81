"""One inference call: decode, route, run, encode. Pure of HTTP; may run in the loop or in the pool."""

from __future__ import annotations

import logging
import secrets
from typing import Any

import numpy as np
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from serving.protocol.encode import Encoded, encode, wanted_outputs
from serving.protocol.envelope import Envelope, parse
from serving.protocol.errors import BadInput, ServingError, bad_request
from serving.protocol.tensors import build_feeds, raw_feeds
from serving.table import Deployment, Endpoint

log = logging.getLogger("serving.infer")


class ModelFailure(ServingError):
    """The model itself failed (500): counts as an error of its deployment."""


class Call:
    """A request on its way. `deployment` is set once it is routed, `feeds` once it is decoded."""

    __slots__ = ("body", "deployment", "endpoint", "envelope", "feeds", "head", "key", "label", "version")

    def __init__(
        self, endpoint: Endpoint, version: str | None, key: bytes | None, body: bytes | bytearray, head: int | None
    ) -> None:
        self.endpoint = endpoint
        self.version = version
        self.key = key
        self.body = body
        self.head = head  # value of Inference-Header-Content-Length, None without one
        self.deployment: Deployment | None = None
        self.envelope: Envelope | None = None
        self.feeds: dict[str, np.ndarray] = {}
        self.label: np.ndarray | None = None

    def decode(self) -> bool:
        """Parse, route and build the tensors; whether the run is cheap enough for the event loop.

        Raises ServingError."""
        body, head = self.body, self.head
        if head == 0 and body:
            # A raw body has no JSON: its one tensor is all of it, and the answer is binary as well.
            self.envelope = Envelope(None, [], {}, binary_output=True)
            deployment = self.deployment = self.endpoint.pick(self.version, self.key)
            model = deployment.model
            assert model is not None
            self.feeds = raw_feeds(model, body)
        else:
            json_size = len(body) if head is None else head
            if json_size > len(body):
                raise bad_request("Inference-Header-Content-Length goes beyond the body")
            text = body if json_size == len(body) else memoryview(body)[:json_size]
            envelope = self.envelope = parse(text, self.endpoint.max_inputs)
            deployment = self.deployment = self.endpoint.pick(self.version, self.key or envelope.id)
            model = deployment.model
            assert model is not None
            self.feeds = build_feeds(model, envelope, body, json_size)
            # Let go of the parser's memory: the tensors are copies.
            envelope.inputs = []
            envelope.document = None
        limit = model.inline_elements
        return limit > 0 and sum(array.size for array in self.feeds.values()) <= limit

    def run(self) -> Encoded:
        """Run the model and encode its answer. Raises BadInput or ModelFailure."""
        deployment, envelope = self.deployment, self.envelope
        assert deployment is not None and envelope is not None
        model = deployment.model
        assert model is not None
        names = wanted_outputs(model, envelope)
        label = model.label
        asked = names if label is None or label in names else [*names, label]
        try:
            arrays: list[Any] = model.run(asked, self.feeds)
            if label is not None:
                self.label = arrays[asked.index(label)]
            return encode(deployment.endpoint, deployment.version, envelope, model, names, arrays)
        except Exception as error:
            # Each tensor fitted the signature. Several may still not fit together, which is the caller's fault;
            # a single one that the model cannot take is the model's, and has to count against a canary.
            if isinstance(error, InvalidArgument) and len(self.feeds) > 1:
                log.info("deployment %s refused its inputs: %s", deployment.id, error)
                raise BadInput("the model refuses these inputs: their shapes do not fit together") from None
            reference = secrets.token_hex(4)
            log.warning("deployment %s failed (reference %s): %s", deployment.id, reference, error)
            raise ModelFailure(500, f"the model failed on these inputs (reference {reference})") from None

    def whole(self) -> Encoded | ServingError:
        """Decode and run in one go, for a pool thread. A refusal is returned, without its traceback: raised
        across threads it would keep the parsed document, of any size, until the collector comes by."""
        try:
            self.decode()
            return self.run()
        except ServingError as error:
            self.envelope = None
            return error.with_traceback(None)
