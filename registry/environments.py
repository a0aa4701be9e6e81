"""Prepared environments: who needs which, what is there, what has to go.

The folder on a worker's disk is the thing itself; the row says of it what people and other processes want to know.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext

from engine.errors import EngineError
from engine.export import bill, environment_store
from engine.export.base import exporters
from engine.export.sources.base import sources
from registry.models import Artifact, Environment, EnvironmentOrigin, EnvironmentState, Resolution, Version
from registry.packages import Plan, packages_set, plan_for, resolution_of
from slipway import paths
from slipway.accounts import policy
from slipway.accounts.models import User
from slipway.api.problems import Conflict, Problem
from slipway.jobs.models import Job
from slipway.jobs.services import submit


@dataclass(frozen=True)
class Way:
    """A format and whether this version can have it; `why_not` is in the reader's language. `environment` is empty
    where the worker's own packages do; `origin` says where the packages come from, `reason` why they could not be had.
    `options`: JSON Schema of the exporter's options."""

    exporter: str
    label: str
    format: str
    why_not: str
    environment: str
    origin: str
    reason: str
    prepared: Environment | None
    artifact: Artifact | None
    options: dict[str, Any]


def ways_of(version: Version) -> list[Way]:
    """Every format there is, for a version: possible or why not, with what is there already."""
    made: dict[Any, Artifact] = {}
    for artifact in Artifact.objects.filter(version=version).order_by("id"):
        made[artifact.recipe.get("exporter")] = artifact
    possible = {one.name: one.why_not(version.framework) for one in exporters().values()}
    kits = {one.environment(version.framework) for one in exporters().values() if possible[one.name] is None}
    plans: dict[str | None, Plan] = {}
    refused = ""
    try:
        plans = {kit: plan_for(version, kit) for kit in kits}
    except EngineError as error:
        refused = error.said(gettext)
    keys = [plan.wanted for plan in plans.values() if plan.lock is None]
    reasons = {row.wanted: row.reason for row in Resolution.objects.filter(wanted__in=keys)} if keys else {}
    prepared = {row.digest: row for row in Environment.objects.all()}
    ways = []
    for one in exporters().values():
        known = possible[one.name]
        why = known.said(gettext) if known is not None else refused
        plan = None if why else plans[one.environment(version.framework)]
        needs = plan is not None and plan.origin != EnvironmentOrigin.WORKER
        ways.append(
            Way(
                exporter=one.name,
                label=one.label,
                format=one.format,
                why_not=why,
                environment=plan.name if plan and needs else "",
                origin=plan.origin if plan else "",
                reason=reasons.get(plan.wanted, "") if plan else "",
                prepared=prepared.get(plan.digest) if plan and needs else None,
                artifact=made.get(one.name),
                options=one.Options.model_json_schema(),
            )
        )
    return ways


@transaction.atomic
def environment_request(
    *, actor: User | None, version: Version, name: str, requirements: list[str] | None = None
) -> Job:
    """A job that prepares an environment and proves it with this version; the one under way if there is one.

    requirements: the version's own list from now on, in place of the recorded one; None leaves it as it is.
    """
    policy.require(actor, policy.WRITE, version.model.project_id)
    if requirements is not None and actor is not None:
        version = packages_set(actor=actor, version=version, lines=requirements)
    plan = plan_for(version, name)
    row: Environment | Resolution | None = None
    if plan.lock is None:
        row = resolution_of(plan)
    elif plan.origin != EnvironmentOrigin.WORKER:
        defaults = {"name": plan.name, "origin": plan.origin}
        row, _ = Environment.objects.select_for_update().get_or_create(digest=plan.digest, defaults=defaults)
    under_way = not isinstance(row, Environment) or row.state == EnvironmentState.PREPARING
    if row is not None and under_way and row.job is not None and row.job.is_live:
        return row.job
    job = submit(
        "prepare",
        project=version.model.project,
        params={"name": name, "version_id": version.pk},
        actor=actor,
        subject=f"environment {name}",
    )
    if row is not None:
        row.reason, row.job = "", job
        if isinstance(row, Environment):
            row.state = EnvironmentState.PREPARING
        row.save()
    return job


def environment_prepared(*, plan: Plan, size: int | None, seconds: float | None) -> None:
    """Says that it is there; `size` and `seconds` are None where it was there before."""
    packages = [f"{each.name} {each.version}" for each in bill.packages_of(plan.lock or "")]
    values: dict[str, Any] = {"state": EnvironmentState.READY, "reason": "", "packages": packages}
    if seconds is not None:
        values |= {"size": size, "seconds": seconds, "prepared_at": Now()}
    _environment_told(plan, values)


def environment_failed(*, plan: Plan, reason: str) -> None:
    """Says why it is not there."""
    _environment_told(plan, {"state": EnvironmentState.FAILED, "reason": reason[:500]})


def _environment_told(plan: Plan, values: dict[str, Any]) -> None:
    first = {**values, "name": plan.name, "origin": plan.origin}
    Environment.objects.update_or_create(digest=plan.digest, defaults=values, create_defaults=first)


def environment_used(*, digest: str) -> None:
    """Counts a use: what is not used goes first."""
    Environment.objects.filter(digest=digest).update(uses=F("uses") + 1, used_at=Now())


def environment_evict(*, actor: User, row: Environment) -> None:
    """Removes it from disk; the next export that needs it makes it again."""
    if not actor.is_superuser:
        raise Problem("Only an administrator of this installation may remove environments.", code="denied", status=403)
    if row.state == EnvironmentState.PREPARING:
        raise Conflict("It is being prepared.")
    _remove(row)


def environments_trim(*, days: int, total_bytes: int) -> int:
    """Removes what was not used for so many days, then the longest unused until the rest fits; how many went."""
    ready = list(Environment.objects.filter(state=EnvironmentState.READY))
    last = {row.pk: row.used_at or row.prepared_at or row.created_at for row in ready}
    ready.sort(key=lambda row: last[row.pk], reverse=True)
    oldest, kept, gone = timezone.now() - dt.timedelta(days=days), 0, 0
    for row in ready:
        kept += row.size
        if last[row.pk] < oldest or kept > total_bytes:
            kept -= row.size
            with contextlib.suppress(Conflict):  # in use: another time
                _remove(row)
                gone += 1
    return gone


def _remove(row: Environment) -> None:
    if not environment_store.remove(paths.environments(), row.digest):
        raise Conflict("A job uses it right now.")
    Environment.objects.filter(pk=row.pk).update(state=EnvironmentState.EVICTED, size=0)


def file_of(version: Version, file: str) -> str:
    """One of `FILES`, of the environment that loads the version. KeyError for another name. EngineError or Problem
    where its packages are not known yet."""
    kind = sources().get(version.framework)
    plan = plan_for(version, kind.environment if kind else None)
    if plan.lock is None:
        raise Problem(
            "The version's own packages are not resolved yet: prepare its environment first.",
            code="unresolved",
            status=409,
        )
    return FILES[file](version, plan.lock)


FILES: dict[str, Callable[[Version, str], str]] = {
    "Dockerfile": lambda version, lock: bill.dockerfile(f"{sys.version_info.major}.{sys.version_info.minor}"),
    "requirements.txt": lambda version, lock: lock,
    "sbom.json": lambda version, lock: json.dumps(bill.cyclonedx(str(version), bill.packages_of(lock)), indent=2),
}
