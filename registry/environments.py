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
from pathlib import Path
from typing import Any

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils import timezone

from engine.export import bill, environment_store, environments
from engine.export.base import Exporter, exporters
from engine.export.sources.base import sources
from registry.models import Artifact, Environment, EnvironmentState, Version
from slipway import paths
from slipway.accounts import policy
from slipway.accounts.models import User
from slipway.api.problems import Conflict, Problem
from slipway.jobs.models import Job
from slipway.jobs.services import submit

OWN = "base"  # the worker's own packages


@dataclass(frozen=True)
class Way:
    """A format and whether this version can have it. `environment` is empty where the worker's own packages do.
    options: JSON Schema of the exporter's options."""

    exporter: str
    label: str
    format: str
    why_not: str
    environment: str
    prepared: Environment | None
    artifact: Artifact | None
    options: dict[str, Any]


def lock_of(name: str) -> Path:
    """The lock of an environment. Problem 404 for a name that none has."""
    known = {one.environment(kind) for one in exporters().values() for kind in sources()} - {None}
    if name != OWN and name not in known:
        raise Problem(f"There is no environment “{name[:60]}”.", code="not_found", status=404)
    return paths.REPOSITORY / "locks" / f"{name}.txt"


def ways_of(version: Version) -> list[Way]:
    """Every format there is, for a version: possible or why not, with what is there already."""
    made: dict[Any, Artifact] = {}
    for artifact in Artifact.objects.filter(version=version).order_by("id"):
        made[artifact.recipe.get("exporter")] = artifact
    prepared = {row.digest: row for row in Environment.objects.all()}
    return [_way(one, version.framework, made, prepared) for one in exporters().values()]


def _way(one: Exporter, framework: str, made: dict[Any, Artifact], prepared: dict[str, Environment]) -> Way:
    why = one.why_not(framework) or ""
    name = "" if why else one.environment(framework) or ""
    row = prepared.get(environments.digest_of(lock_of(name))) if name else None
    options = one.Options.model_json_schema()
    return Way(one.name, one.label, one.format, why, name, row, made.get(one.name), options)


def environment_request(*, actor: User | None, version: Version, name: str) -> Job:
    """A job that prepares an environment and proves it with this version; the one under way if there is one."""
    policy.require(actor, policy.WRITE, version.model.project_id)
    digest = environments.digest_of(lock_of(name))
    with transaction.atomic():
        row, _ = Environment.objects.select_for_update().get_or_create(digest=digest, defaults={"name": name})
        if row.state == EnvironmentState.PREPARING and row.job is not None and row.job.is_live:
            return row.job
        job = submit(
            "prepare",
            project=version.model.project,
            params={"name": name, "version_id": version.pk},
            actor=actor,
            subject=f"environment {name}",
        )
        row.state, row.reason, row.job = EnvironmentState.PREPARING, "", job
        row.save(update_fields=["state", "reason", "job"])
    return job


def environment_prepared(*, name: str, digest: str, size: int | None, seconds: float | None) -> None:
    """Says that it is there; `size` and `seconds` are None where it was there before."""
    packages = [f"{each.name} {each.version}" for each in bill.packages_of(environments.text_of(lock_of(name)))]
    values: dict[str, Any] = {"state": EnvironmentState.READY, "reason": "", "packages": packages}
    if seconds is not None:
        values |= {"size": size, "seconds": seconds, "prepared_at": Now()}
    Environment.objects.update_or_create(digest=digest, defaults=values, create_defaults={**values, "name": name})


def environment_failed(*, name: str, digest: str, reason: str) -> None:
    """Says why it is not there."""
    values = {"state": EnvironmentState.FAILED, "reason": reason[:500]}
    Environment.objects.update_or_create(digest=digest, defaults=values, create_defaults={**values, "name": name})


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
    """One of `FILES`, of the environment of the version's own framework. KeyError for another name."""
    kind = sources().get(version.framework)
    lock = environments.text_of(lock_of((kind.environment if kind else None) or OWN))
    return FILES[file](version, lock)


FILES: dict[str, Callable[[Version, str], str]] = {
    "Dockerfile": lambda version, lock: bill.dockerfile(f"{sys.version_info.major}.{sys.version_info.minor}"),
    "requirements.txt": lambda version, lock: lock,
    "sbom.json": lambda version, lock: json.dumps(bill.cyclonedx(str(version), bill.packages_of(lock)), indent=2),
}
