"""Follows the desired state: check signatures, fetch, verify, load, warm, swap, drain. One thread in each process.

The rule behind all of it: what answers now is let go only when what replaces it is ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from serving.control import Control, ControlError
from serving.destination import UpstreamError
from serving.document import Document, DocumentError, EndpointSpec, Placement, UpstreamSpec, parse_document
from serving.model import Model, ModelError, load_model
from serving.pmml_model import PmmlModel
from serving.priority import give_way
from serving.runtime import Runtime
from serving.scorer import Scorer
from serving.scorer_process import wish_path
from serving.sealed import Sealed
from serving.store import Store, StoreError
from serving.table import Deployment, Endpoint, Table
from serving.trust import Trust, TrustError

log = logging.getLogger("serving.agent")

WAIT_S = 25.0
MAX_BACKOFF_S = 10.0
MAX_RETRY_S = 60.0


class Agent(threading.Thread):
    """`status` is what reports say of each deployment; it is replaced whole, with `changes` counting up."""

    def __init__(
        self, runtime: Runtime, loop: asyncio.AbstractEventLoop, store: Store, control: Control | None
    ) -> None:
        super().__init__(name="agent", daemon=True)
        self.runtime = runtime
        self.loop = loop
        self.store = store
        self.trust = Trust(runtime.options.trust_keys)
        self.control = control
        self.stopping = threading.Event()
        self.settled = threading.Event()  # there is something to answer with, or no hope of it soon
        self.generation = 0
        self.changes = 0
        self.on_change: Callable[[], object] | None = None  # called in the loop's thread
        self.status: dict[str, dict[str, Any]] = {}
        self._models: dict[tuple[str, ...], Model] = {}
        self._draining: list[tuple[Table, list[Deployment]]] = []
        self._document: Document | None = None
        self._failed: dict[str, str] = {}
        self._lock = threading.Lock()  # reports are made up here, and in the loop when an upstream's state changes
        runtime.on_health = self._publish
        self._scorer: Scorer | None = None  # made for the first PMML model
        self._refusal: tuple[str, set[str]] | None = None
        self._etag: str | None = None
        self._retry_at: float | None = None
        self._retries = 0
        self._unsaved = False

    # -- life -------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve the saved state at once, then follow the control plane until stopped."""
        try:
            self._start_from_disk()
        except Exception:
            log.exception("the saved state could not be used")
        finally:
            # Without anything on disk the first word of the control plane is worth waiting for.
            if self.runtime.loaded or self.control is None:
                self.settled.set()
        give_way()  # from here on others answer while this one loads
        failures = 0
        while self.control is not None and not self.stopping.is_set():
            try:
                self._poll()
                failures = 0
                continue
            except ControlError as error:
                log.log(logging.WARNING if failures == 0 else logging.DEBUG, "%s", error)
            except Exception:
                log.exception("the desired state could not be followed")
            finally:
                self.settled.set()
            failures += 1
            self._retry_if_due()
            ceiling = min(MAX_BACKOFF_S, 0.25 * 2 ** min(failures, 8))
            self.stopping.wait(random.uniform(ceiling / 2, ceiling))  # noqa: S311 - spreads the return

    def _start_from_disk(self) -> None:
        try:
            held = self.store.load_state()
            if held is None:
                if self.control is None:
                    self._swap(Table(0, {}))
                return
            document = parse_document(held)
        except (StoreError, DocumentError) as error:
            log.error("the saved state is not used: %s", error)
            return
        # From the cache alone: what is missing there comes with the first poll, and must not delay the rest.
        self.apply(document, from_disk=True)

    def _poll(self) -> None:
        control = self.control
        if control is None:
            return
        wait = WAIT_S
        former = self._etag
        if self._retry_at is not None:
            wait = max(0.0, min(wait, self._retry_at - time.monotonic()))
        if self._draining:
            wait = min(wait, 1.0)
        began = time.monotonic()
        answer = control.state(self._etag, wait)
        self.runtime.last_contact = time.time()
        if answer.document is not None and (answer.etag is None or answer.etag != former):
            self._etag = answer.etag
            try:
                document = parse_document(answer.document)
            except DocumentError as error:
                self._refuse(answer.document, str(error))
            else:
                self._refusal = None
                self._retries = 0
                self.apply(document)
        if time.monotonic() - began < 0.2 and wait >= 1 and answer.etag == former:
            # A control plane that does not wait must not be asked in a tight loop.
            self.stopping.wait(random.uniform(0.5, 1.0))  # noqa: S311
        self._retry_if_due()
        if self._unsaved and self._document is not None:
            self._save(self._document, self.runtime.table)
        self._publish()

    def _retry_if_due(self) -> None:
        """Try again what could not be loaded: its bytes may come through this time."""
        if self._document is not None and self._retry_at is not None and time.monotonic() >= self._retry_at:
            self.apply(self._document)

    def _refuse(self, raw: Any, reason: str) -> None:
        generation = raw.get("generation") if isinstance(raw, dict) else None
        text = f"desired state {generation} refused: {reason}"[:500]
        log.error("%s", text)
        self._refusal = (text, _named(raw))

    # -- applying ---------------------------------------------------------------------------------

    def apply(self, document: Document, from_disk: bool = False) -> None:
        """Bring the routing table to a document; an endpoint whose live deployments cannot all be loaded
        keeps its former routing."""
        self._document = document
        failed: dict[str, str] = {}
        self._publish(loading=[d for e in document.endpoints for d in e.deployments])
        problems = {} if from_disk else self._ask_upstreams(document)  # at the start they are believed
        for spec in document.endpoints:
            for placement in spec.deployments:
                if self.stopping.is_set():
                    return
                try:
                    # Of what is loaded already, too: the same bytes may come with another signature.
                    self.trust.check(placement)
                    if placement.upstream is None:
                        self._load(placement, download=not from_disk)
                    elif problems.get(placement.upstream):
                        raise UpstreamError(problems[placement.upstream])
                except (ModelError, StoreError, TrustError, ControlError, UpstreamError, OSError) as error:
                    reason = error.strerror if isinstance(error, OSError) else str(error)
                    failed[placement.id] = (reason or type(error).__name__)[:300]
                    self.runtime.load_failures += 1
                    log.error("endpoint %s, deployment %s: %s", spec.name, placement.id, reason)
        former = self.runtime.table
        endpoints = {s.name: self._endpoint(s, former.endpoints.get(s.name), failed) for s in document.endpoints}
        table = Table(document.generation, endpoints)
        self._swap(table)
        if self.generation != document.generation:
            self.generation = document.generation
            self.changes += 1
        if failed:
            self._retries += 1
            delay = min(MAX_RETRY_S, 2.0 ** min(self._retries, 6))
            self._retry_at = time.monotonic() + random.uniform(delay / 2, delay)  # noqa: S311
        else:
            self._retry_at, self._retries = None, 0
        used = {_key(d.placement) for d in table.deployments().values()}
        self._models = {key: model for key, model in self._models.items() if key in used}
        if self._scorer is None:  # what an earlier process of this number wanted
            wish_path(self.runtime.snapshots.folder, self.runtime.index).unlink(missing_ok=True)
        if not from_disk:
            self._save(document, table)
        self._failed = failed
        self._publish()

    def _ask_upstreams(self, document: Document) -> dict[UpstreamSpec, str]:
        """What is wrong with upstreams that do not answer yet; those that do are looked at in the background."""
        known = {d.placement.upstream for d in self.runtime.table.deployments().values() if d.upstream is not None}
        wanted = {d.upstream for e in document.endpoints for d in e.deployments if d.upstream is not None}
        upstreams = [self.runtime.shared.upstream(spec) for spec in wanted - known]

        async def ask() -> None:
            await asyncio.gather(*(upstream.look() for upstream in upstreams))

        if upstreams:
            asyncio.run_coroutine_threadsafe(ask(), self.loop).result()
        return {upstream.spec: upstream.problem for upstream in upstreams}

    def _load(self, placement: Placement, download: bool) -> Model:
        key = _key(placement)
        model = self._models.get(key)
        if model is None:
            fetch = self.control.artifact if self.control is not None and download else None
            with contextlib.closing(self.store.obtain(placement.sha256, placement.size, fetch)) as verified:
                if placement.format == "pmml":
                    model = self._load_pmml(placement, verified)
                else:
                    model = load_model(verified, placement.format, placement.provider)
            remark = model.warm()
            if remark:
                log.warning("deployment %s: %s", placement.id, remark)
            self._models[key] = model
        return model

    def _load_pmml(self, placement: Placement, verified: Sealed) -> Model:
        if placement.provider != "cpu":
            raise ModelError(f"PMML is scored on the CPU, not by the {placement.provider} provider")
        if self._scorer is None:
            runtime = self.runtime
            self._scorer = Scorer(runtime.options, runtime.snapshots.folder, runtime.index, self._publish)
        with verified.path() as path:
            return PmmlModel(self._scorer, placement.sha256, path.read_bytes())

    def _endpoint(self, spec: EndpointSpec, former: Endpoint | None, failed: dict[str, str]) -> Endpoint:
        deployments = [self._deployment(spec.name, p, failed.get(p.id, "")) for p in spec.deployments]
        # A shadow or spare that fails must not hold up a change of weights: it may be a rollback.
        broken = any(p.id in failed and p.mode == "live" and p.weight > 0 for p in spec.deployments)
        if broken and former is not None and former.live:
            kept = [d for d in former.deployments if d.answers]
            # Who may call is never held back: a token that was taken away stops working now.
            return Endpoint(spec, kept, self.runtime.shared)
        return Endpoint(spec, deployments, self.runtime.shared)

    def _deployment(self, endpoint: str, placement: Placement, reason: str) -> Deployment:
        model = self._models.get(_key(placement)) if placement.upstream is None and not reason else None
        deployment = Deployment(endpoint, placement, model, reason)
        if placement.upstream is not None and not reason:
            deployment.upstream = self.runtime.shared.upstream(placement.upstream)
        return deployment

    def _swap(self, table: Table) -> None:
        former = self.runtime.swap_blocking(self.loop, table)
        gone = [d for i, d in former.deployments().items() if i not in table.deployments() and d.answers]
        with self._lock:
            self._draining.append((former, gone))

    def _save(self, document: Document, table: Table) -> None:
        """Keep what is served, not what was wished: after a restart without a control plane, an endpoint
        whose new deployment could not be loaded still has its former one."""
        raw = [
            {
                **spec.raw,
                "deployments": [
                    _raw_placement(d.placement) for d in table.endpoints[spec.name].deployments if d.answers
                ],
            }
            if _held(spec, table.endpoints[spec.name])
            else spec.raw
            for spec in document.endpoints
        ]
        keep = document.digests() | {d.placement.sha256 for d in table.deployments().values()}
        try:
            self.store.save_state({"generation": document.generation, "endpoints": raw})
            self.store.collect_garbage(keep)
        except OSError as error:
            if not self._unsaved:  # said once, and tried again until it works
                log.error("the desired state could not be saved: %s", error.strerror)
            self._unsaved = True
        else:
            self._unsaved = False

    # -- reporting --------------------------------------------------------------------------------

    def _publish(self, loading: list[Placement] | None = None) -> None:
        with self._lock:
            status = self._statuses(loading)
            if status != self.status:
                self.status = status
                self._changed()

    def _statuses(self, loading: list[Placement] | None) -> dict[str, dict[str, Any]]:
        self._draining = [(table, gone) for table, gone in self._draining if table.inflight > 0]
        status: dict[str, dict[str, Any]] = {}
        for _, gone in self._draining:
            for deployment in gone:
                status[deployment.id] = _state(deployment, "draining", "")
        current = self.runtime.table.deployments()
        for placement in loading or ():
            if placement.id not in current:
                status[placement.id] = _entry("loading", "", placement.sha256, 0)
        failed = self._failed
        wished = {p.id: p for e in (self._document.endpoints if self._document else ()) for p in e.deployments}
        for ident, reason in failed.items():
            if ident in wished:
                status[ident] = _entry("failed", reason, wished[ident].sha256, 0)
        text, named = self._refusal or ("", set())
        for ident, deployment in current.items():
            if not deployment.answers or ident in failed:
                continue
            if deployment.upstream is not None and not deployment.upstream.ready:
                status[ident] = _state(deployment, "failed", deployment.upstream.problem)
            elif not deployment.well:
                status[ident] = _state(deployment, "failed", "the JVM scorer is starting again")
            else:
                status[ident] = _state(deployment, "ready" if self.runtime.listening else "loading", text)
        for ident in named - status.keys():
            status[ident] = _entry("failed", text, "", 0)
        return status

    def _changed(self) -> None:
        self.changes += 1
        if self.on_change is not None:
            self.loop.call_soon_threadsafe(self.on_change)


def _entry(state: str, reason: str, sha256: str, memory: int) -> dict[str, Any]:
    return {"state": state, "reason": reason, "sha256": sha256, "memory_bytes": memory}


def _state(deployment: Deployment, state: str, reason: str) -> dict[str, Any]:
    model = deployment.model
    entry = _entry(state, reason, deployment.placement.sha256, model.memory_bytes if model else 0)
    if model is not None:
        entry["cost_us"] = None if model.cost_us is None else round(model.cost_us, 1)
        entry["batching"] = {"max": deployment.batch_most, "why": model.batching.why}
        entry["provider"] = model.provider
    return entry


def _key(placement: Placement) -> tuple[str, ...]:
    """Placements of one key share a loaded model."""
    return (placement.sha256, placement.format, placement.provider)


def _held(spec: EndpointSpec, endpoint: Endpoint) -> bool:
    return {d.placement for d in endpoint.deployments} != set(spec.deployments)


def _raw_placement(placement: Placement) -> dict[str, Any]:
    return {**placement.raw, "weight": placement.weight, "mode": placement.mode}


def _named(raw: Any) -> set[str]:
    """Ids of the deployments a refused document speaks of, as far as it can be read."""
    found: set[str] = set()
    endpoints = raw.get("endpoints") if isinstance(raw, dict) else None
    for endpoint in endpoints if isinstance(endpoints, list) else ():
        deployments = endpoint.get("deployments") if isinstance(endpoint, dict) else None
        for item in deployments if isinstance(deployments, list) else ():
            if isinstance(item, dict) and isinstance(item.get("id"), str | int):
                found.add(str(item["id"])[:200])
    return set(sorted(found)[:1000])
