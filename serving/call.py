"""One inference call on its way: decoded, routed, run, encoded. Pure of transport; REST and gRPC subclass it."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from serving.limits import Gate
from serving.model import Model
from serving.protocol.errors import BadInput, ServingError

if TYPE_CHECKING:
    from serving.table import Deployment, Endpoint, Table
    from serving.upstream import Upstream

log = logging.getLogger("serving.call")


class ModelFailure(ServingError):
    """The model itself failed (500): counts as an error of its deployment."""


class Call:
    """What one request has become so far. `finish(call)` is called once, in the loop's thread, with either
    `answer` or `error` set; until then one thread at a time works on the call."""

    # Values of the class, so that a call which needs none of them sets none of them: there are many a second.
    deployment: Deployment | None = None
    label: np.ndarray | None = None
    answer: Any = None
    error: ServingError | None = None
    table: Table | None = None
    gate: Gate | None = None
    cached = False
    cache_key: bytes | None = None  # set when the outputs are to be remembered
    rows = 1
    batch = 1  # how many requests shared the run; 0 for those that another one counts
    held = 0  # bytes of the body that count against the budget
    start = input_s = queue_s = compute_s = 0.0
    feeds: dict[str, Any] = {}
    names: list[str] = []
    asked: list[str] = []

    # What a transport sets when it makes one.
    endpoint: Endpoint
    version: str | None  # asked for by the client, else left to the weights
    key: str | bytes | None  # the same key gets the same deployment
    finish: Callable[[Any], None]

    # -- what a transport supplies ---------------------------------------------------------------

    def size(self) -> int:
        """Bytes of the request; decides whether decoding may happen in the event loop."""
        raise NotImplementedError

    def read(self) -> None:
        """Read the request: call `route` once its id is known, then set `feeds` and `names`.
        Raises ServingError."""
        raise NotImplementedError

    def encode(self, arrays: list[Any]) -> Any:
        """The answer in the transport's own form; `arrays` belong to `names`. Raises ServingError."""
        raise NotImplementedError

    async def forward(self, upstream: Upstream) -> Any:
        """The answer of another server, in the transport's own form. Raises ServingError."""
        raise NotImplementedError

    def forget(self) -> None:
        """Let go of the request's bytes and of what points into them."""
        raise NotImplementedError

    # -- shared ----------------------------------------------------------------------------------

    def route(self, request_id: str | bytes | None) -> Deployment:
        """The deployment that answers, picked once. Raises ServingError."""
        deployment = self.deployment = self.endpoint.pick(self.version, self.key or request_id)
        return deployment

    def model(self) -> Model:
        """The model of the picked deployment."""
        deployment = self.deployment
        if deployment is None or deployment.model is None:
            raise ServingError(503, "the model is not ready", ((b"retry-after", b"1"),))
        return deployment.model

    def decode(self) -> None:
        """Read and route. Raises ServingError."""
        self.read()
        deployment = self.deployment
        if deployment is None or deployment.model is None:
            return  # forwarded elsewhere
        model = deployment.model
        label = model.label
        names = self.names
        self.asked = names if label is None or label in names else [*names, label]

    def inline(self) -> bool:
        """Whether the run is cheap enough for the event loop."""
        limit = self.model().inline_elements
        if limit <= 0:
            return False
        size = 0
        for array in self.feeds.values():
            size += array.size
        return size <= limit

    def batch_limit(self) -> int:
        """How many rows may share a run with this call's; 1 when it must run alone."""
        deployment = self.deployment
        if deployment is None or deployment.batch_most <= 1:
            return 1
        limit = deployment.batch_most
        rows = {len(array) for array in self.feeds.values()}
        if len(rows) != 1:
            return 1  # put together with another's, they might seem to fit each other
        (self.rows,) = rows
        return limit if 0 < self.rows < limit else 1

    def run(self) -> None:
        """Run the model for this call alone. Raises BadInput or ModelFailure."""
        begun = time.perf_counter()
        try:
            arrays = self.model().run(self.asked, self.feeds)
        except Exception as error:
            raise self.failure(error) from None
        self.compute_s = time.perf_counter() - begun
        self.complete(arrays)

    def complete(self, arrays: list[Any]) -> None:
        """Take the outputs of a run (in the order of `asked`) and encode the answer. Raises ModelFailure."""
        model = self.model()
        label = model.label
        if label is not None:
            self.label = arrays[self.asked.index(label)]
        if self.cache_key is not None and self.endpoint.cache is not None:
            self.endpoint.cache.put(self.cache_key, arrays)
        try:
            self.answer = self.encode(arrays[: len(self.names)])
        except ServingError:
            raise
        except Exception as error:
            raise self.failure(error) from None

    def failure(self, error: Exception) -> ServingError:
        """What a failed run says to the client.

        Each tensor fitted the signature. Several may still not fit together, which is the caller's fault;
        a single one that the model cannot take is the model's, and has to count against a canary."""
        if isinstance(error, ServingError):
            return error
        deployment = self.deployment
        ident = deployment.id if deployment is not None else "?"
        if isinstance(error, InvalidArgument) and len(self.feeds) > 1:
            log.info("deployment %s refused its inputs: %s", ident, error)
            return BadInput("the model refuses these inputs: their shapes do not fit together")
        reference = secrets.token_hex(4)
        log.warning("deployment %s failed (reference %s): %s", ident, reference, error)
        return ModelFailure(500, f"the model failed on these inputs (reference {reference})")
