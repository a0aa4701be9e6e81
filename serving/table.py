"""The routing table: which deployments answer for an endpoint. Immutable but for counters; replaced whole."""

from __future__ import annotations

import bisect
import hashlib
import hmac
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from serving.cache import ResponseCache
from serving.document import EndpointSpec, Placement, UpstreamSpec
from serving.limits import Gate, Ledger, Quota
from serving.model import Model
from serving.protocol.encode import opening
from serving.protocol.errors import ServingError
from serving.protocol.template import Templates
from serving.upstream import Upstream

# Authorization headers known to be right are remembered, up to so many for an endpoint.
_REMEMBERED = 1024
# Inputs looked at in a request to an endpoint whose model is not known here.
_ANY = 4096


class Shared:
    """What outlives a routing table: caches of endpoints, gates of deployments, upstreams, the ledger of quotas."""

    def __init__(self, ledger: Ledger | None = None) -> None:
        self.ledger = ledger or Ledger(None)
        self.counts: Counter[str] = Counter()  # of all upstreams, and of caches that are gone
        self._caches: dict[str, ResponseCache] = {}
        self._gates: dict[str, Gate] = {}
        self._upstreams: dict[UpstreamSpec, Upstream] = {}

    def cache(self, spec: EndpointSpec) -> ResponseCache | None:
        """The endpoint's cache as its spec wants it, the present one where it already is so."""
        held = self._caches.get(spec.name)
        if held is not None and (held.max_bytes, held.ttl_s) != spec.cache:
            self._drop_cache(spec.name)
            held = None
        if held is None and spec.cache is not None:
            held = self._caches[spec.name] = ResponseCache(*spec.cache)
        return held

    def _drop_cache(self, name: str) -> None:
        cache = self._caches.pop(name)
        self.counts.update(cache_hits=cache.hits, cache_misses=cache.misses)

    def gate(self, ident: str, limits: tuple[int, int]) -> Gate:
        """The gate of a deployment, the present one where its limits are the same."""
        held = self._gates.get(ident)
        if held is None or (held.concurrency, held.queue) != limits:
            held = self._gates[ident] = Gate(*limits)
        return held

    def upstream(self, spec: UpstreamSpec) -> Upstream:
        """The upstream of a spec, the present one where there is one."""
        held = self._upstreams.get(spec)
        if held is None:
            held = self._upstreams[spec] = Upstream(spec, self.counts)
        return held

    def upstreams(self) -> list[Upstream]:
        """All upstreams."""
        return list(self._upstreams.values())

    def forget(self, table: Table) -> list[Upstream]:
        """Let go of what a table does not use; the upstreams among it are the caller's to close."""
        for name in self._caches.keys() - table.endpoints.keys():
            self._drop_cache(name)
        deployments = table.deployments()
        for ident in self._gates.keys() - deployments.keys():
            del self._gates[ident]
        used = {d.placement.upstream for d in deployments.values()}
        return [self._upstreams.pop(spec) for spec in self._upstreams.keys() - used]

    def counted(self) -> dict[str, float]:
        """Counters that never go back, whatever comes and goes."""
        caches = list(self._caches.values())
        return {
            **self.counts,
            "cache_hits": self.counts["cache_hits"] + sum(cache.hits for cache in caches),
            "cache_misses": self.counts["cache_misses"] + sum(cache.misses for cache in caches),
        }


class Deployment:
    """One placement and its loaded model (None while it is not loaded)."""

    def __init__(self, endpoint: str, placement: Placement, model: Model | None, reason: str = "") -> None:
        self.endpoint = endpoint
        self.placement = placement
        self.id = placement.id
        self.version = placement.version
        self.cache_id = f"{placement.id} {placement.sha256}"
        self.model = model
        self.reason = reason
        # Its refusals of a request's tensors count as errors only where another live deployment of the
        # endpoint has another signature: otherwise the client is at fault, and could force a rollback.
        self.blame_input = False
        self.header = (b"x-slipway-deployment", placement.id.encode("ascii"))
        # Start of the usual answer, up to the headers that differ each time.
        self.opening = opening(endpoint, placement.version)
        self.head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n%b: %b\r\n" % self.header
        self.gate: Gate | None = None
        self.batch_most = 1  # rows that may share a run
        self.upstream: Upstream | None = None  # another server that answers in the model's place

    @property
    def answers(self) -> bool:
        """Whether a request can be given to it."""
        return self.model is not None or self.upstream is not None

    @property
    def well(self) -> bool:
        """Whether it would answer, as far as is known: an upstream may have said that it is not ready, a scorer
        may be starting again."""
        return self.model.well if self.model is not None else self.upstream is not None and self.upstream.ready

    @property
    def signature(self) -> Any:
        """Its inputs, to compare with another's; None when they are not known."""
        if self.model is not None:
            return self.model.signature
        return self.upstream and self.upstream.signature and (self.upstream.signature,)


class Endpoint:
    """A public name: who may call it and which deployment answers."""

    def __init__(self, spec: EndpointSpec, deployments: Iterable[Deployment], shared: Shared | None = None) -> None:
        shared = shared or Shared()
        self.name = spec.name
        self.spec = spec
        self.protected = spec.access == "token"
        self.sticky_header = spec.sticky_header.encode()
        self.cache = shared.cache(spec)
        self._quotas = {
            digest: Quota(shared.ledger, hashlib.blake2b(f"{spec.name}\0{digest}".encode()).digest(), *quota)
            for digest, quota in spec.quotas.items()
        }
        self._known: dict[bytes, Quota | None] = {}
        self.templates = Templates()
        self._tokens: dict[str, list[str]] = {}
        for digest in spec.tokens:
            self._tokens.setdefault(digest[:8], []).append(digest)
        self.deployments = tuple(deployments)
        for deployment in self.deployments:
            deployment.gate = shared.gate(deployment.id, spec.limits) if spec.limits is not None else None
        for deployment in self.deployments:
            if deployment.model is not None:
                wish = spec.batching
                deployment.batch_most = deployment.model.shared_rows(wish.most, wish.budget_ms)
        ready = [d for d in self.deployments if d.answers]
        # Newest first: when its weight grows, callers it already had stay with it.
        live = sorted(
            (d for d in ready if d.placement.mode == "live" and d.placement.weight > 0),
            key=lambda d: (len(d.id), d.id),
            reverse=True,
        )
        self.live = tuple(live)
        # What an upstream takes is its own affair.
        forwards = any(d.upstream is not None for d in ready)
        self.max_inputs = _ANY if forwards else max((len(d.model.inputs) for d in ready if d.model), default=1)
        # A copy is the tensors alone, which cannot be sent on.
        self.shadows = tuple(d for d in ready if d.placement.mode == "shadow" and d.model is not None)
        self._bounds: list[float] = []
        total = 0.0
        for deployment in live:
            total += deployment.placement.weight
            self._bounds.append(total)
        self._total = total
        signatures = {d.signature for d in live}
        differ = len(signatures) > 1 or (None in signatures and len(live) > 1)
        for deployment in live:
            deployment.blame_input = differ

    def authorize(self, header: bytes | None) -> None:
        """Check a bearer token in constant time, without counting it. Raises ServingError: 401 without, 403
        for a wrong one."""
        self._grant(header)

    def admit(self, header: bytes | None) -> None:
        """As `authorize`, and take one request from the token's quota. Raises ServingError 429 as well."""
        quota = self._grant(header)
        if quota is not None:
            quota.take()

    def _grant(self, header: bytes | None) -> Quota | None:
        if not self.protected:
            return None
        if header in self._known:
            return self._known[header]
        challenge = ((b"www-authenticate", b"Bearer"),)
        if header is None or header[:7].lower() != b"bearer ":
            raise ServingError(401, "this model needs a bearer token", challenge)
        digest = hashlib.sha256(header[7:].strip()).hexdigest()
        # Looked up by a part of the digest (not of the token), then compared without an early end.
        found = False
        for candidate in self._tokens.get(digest[:8], ()):
            found |= hmac.compare_digest(candidate, digest)
        if not found:
            raise ServingError(403, "this token may not call this model")
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        quota = self._known[header] = self._quotas.get(digest)
        return quota

    def pick(self, version: str | None, key: str | bytes | None) -> Deployment:
        """The deployment to answer: the pinned version, else by weight, the same for the same key.

        Raises ServingError: 404 for an unknown version, 503 when nothing is ready."""
        if version is not None:
            return self._pinned(version, key)
        live = self.live
        if not live:
            raise ServingError(503, f"model {self.name!r} has no deployment ready", ((b"retry-after", b"1"),))
        if len(live) == 1:
            return live[0]
        chosen = live[bisect.bisect_right(self._bounds, self._point(key), hi=len(live) - 1)]
        return chosen if chosen.well else self._instead(chosen, key)

    def _instead(self, chosen: Deployment, key: str | bytes | None) -> Deployment:
        """Another one in the place of one that is not ready, by the weights among those that are."""
        well = [d for d in self.live if d.well]
        if not well:
            return chosen
        point = self._point(key) / self._total * sum(d.placement.weight for d in well)
        for deployment in well:
            point -= deployment.placement.weight
            if point < 0:
                return deployment
        return well[-1]

    def _point(self, key: str | bytes | None) -> float:
        """Where a key falls in [0, total): the same in every process, evenly spread."""
        if key is None:
            return random.random() * self._total  # noqa: S311 - spreads load, hides nothing
        data = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
        digest = hashlib.blake2b(data, digest_size=8, person=b"slipway", salt=self.name.encode()[:16]).digest()
        return int.from_bytes(digest, "big") / 2**64 * self._total

    def _pinned(self, version: str, key: str | bytes | None) -> Deployment:
        named = [d for d in self.deployments if d.version == version]
        if not named:
            raise ServingError(404, f"model {self.name!r} has no such version")
        ready = [d for d in named if d.answers]
        if not ready:
            raise ServingError(503, f"this version of {self.name!r} is not ready", ((b"retry-after", b"1"),))
        live = [d for d in ready if d in self.live]
        if len(live) > 1:
            chosen = self.pick(None, key)
            return chosen if chosen in live else live[0]
        return (live or ready)[0]

    def ready(self, version: str | None) -> bool:
        """Whether a request would find a deployment. Raises ServingError 404 for an unknown version."""
        try:
            return self.pick(version, b"").well
        except ServingError as error:
            if error.status == 404:
                raise
            return False


class Table:
    """All endpoints at one generation. `inflight` counts requests that hold this table; a retired
    deployment is idle once the tables that knew it have none."""

    def __init__(self, generation: int, endpoints: Mapping[str, Endpoint]) -> None:
        self.generation = generation
        self.endpoints = dict(endpoints)
        self.inflight = 0

    def deployments(self) -> dict[str, Deployment]:
        """Every deployment by id."""
        return {d.id: d for e in self.endpoints.values() for d in e.deployments}
