"""Reads for the pages of endpoints, deployments, rollouts and targets."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any

from django.db.models import Count, DurationField, ExpressionWrapper, F, Prefetch, Q
from django.db.models.functions import Now
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.utils.translation import gettext as _

from deployments.models import (
    DESIRED,
    ROLLOUT_LIVE,
    Decision,
    Deployment,
    DeploymentState,
    DesiredState,
    Endpoint,
    Provider,
    Raised,
    Rollout,
    RolloutState,
    Server,
    Target,
)
from slipway.accounts import policy
from slipway.accounts.models import Project
from slipway.accounts.pages import Slice, newest, text_in

PAGE = 50
ALIVE = dt.timedelta(seconds=15)
QUIET = dt.timedelta(minutes=1)


def endpoints_page(user: Any, project: Project | None, values: Any) -> Slice[Any]:
    """Endpoints by name with what is desired on them and the rollout under way."""
    rows = policy.visible(user, Endpoint.objects.select_related("project", "target"))
    if project:
        rows = rows.filter(project=project)
    if text := text_in(values, "q"):
        rows = rows.filter(name__icontains=text)
    if after := text_in(values, "before"):
        rows = rows.filter(name__gt=after)
    desired = Deployment.objects.filter(state__in=DESIRED).select_related("artifact__version__model").order_by("-pk")
    live = Rollout.objects.filter(state__in=ROLLOUT_LIVE)
    rows = rows.prefetch_related(
        Prefetch("deployments", desired, to_attr="desired"), Prefetch("rollouts", live, to_attr="under_way")
    )
    found = list(rows.order_by("name")[: PAGE + 1])
    return Slice(found[:PAGE], found[PAGE - 1].name if len(found) > PAGE else None)


def endpoint_get(user: Any, name: str) -> Endpoint:
    """One endpoint with its project and target, or 404."""
    rows = Endpoint.objects.select_related("project", "target")
    return get_object_or_404(policy.visible(user, rows), name=name)


def shown_on(endpoint: Endpoint) -> list[Deployment]:
    """What is desired on an endpoint, newest first; without that, the last retired one."""
    rows = endpoint.deployments.select_related("artifact__version__model", "artifact__parent").order_by("-pk")
    return list(rows.filter(state__in=DESIRED)[:8]) or list(rows[:1])


def label_of(deployment: Deployment) -> str:
    """How charts and tables name a deployment."""
    artifact = deployment.artifact
    label = _("version %(n)d %(label)s") % {"n": artifact.version.number, "label": artifact.label}
    if deployment.upstream:
        return f"{label} → {deployment.upstream['url'].split('//')[-1]}"
    return label if deployment.provider == Provider.CPU else f"{label}, {deployment.get_provider_display()}"


def history_of(endpoint: Endpoint, limit: int = 30) -> list[Deployment]:
    """Everything that was ever placed here, newest first."""
    rows = endpoint.deployments.select_related("artifact__version__model", "created_by")
    return list(rows.order_by("-pk")[:limit])


def rollout_under_way(endpoint: Endpoint) -> Rollout | None:
    rows = endpoint.rollouts.filter(state__in=ROLLOUT_LIVE)
    return rows.select_related("candidate__artifact__version", "stable__artifact__version").first()


def returnable(endpoint: Endpoint) -> Rollout | None:
    """The last rollout, if its traffic can still be sent back."""
    rows = endpoint.rollouts.select_related("stable__artifact__version", "candidate__artifact__version")
    last = rows.order_by("-pk").first()
    if last is None or last.state not in (RolloutState.PROMOTED, RolloutState.BAKING):
        return None
    return last if last.stable.state != DeploymentState.RETIRED else None


def marks_of(endpoint: Endpoint, since: int) -> list[dict[str, Any]]:
    """Moments of the charts' time axis at which a rollout moved traffic."""
    at = dt.datetime.fromtimestamp(since, dt.UTC)
    actions = ("step", "promote", "abort", "rollback")
    rows = Decision.objects.filter(rollout__endpoint=endpoint, at__gte=at, action__in=actions).order_by("-pk")[:30]
    return [{"at": row.at.timestamp(), "label": _mark(row)} for row in reversed(rows)]


def _mark(row: Decision) -> str:
    weight = row.data.get("weight")
    return f"{weight} %" if weight is not None else {"abort": "↩", "rollback": "↩"}.get(row.action, "✓")


def generation() -> int:
    """The generation that servers should have."""
    return DesiredState.objects.values_list("generation", flat=True).filter(pk=1).first() or 0


def seconds_behind(rows: Iterable[Server], wanted: int) -> dict[int, float]:
    """{server id: since how long it lacks a generation}, by the database's clock; without those that lack none.

    From the moment that the first generation it lacks came, or the oldest one that is remembered.
    """
    behind = {row.pk: row.generation + 1 for row in rows if row.generation < wanted}
    if not behind:
        return {}
    raised = Raised.objects.filter(generation__gte=min(behind.values()), generation__lte=wanted)
    ages = {
        row.generation: row.age.total_seconds()
        for row in raised.annotate(age=ExpressionWrapper(Now() - F("at"), DurationField()))
    }
    oldest = min(ages, default=0)
    return {pk: max(0.0, ages[max(first, oldest)]) for pk, first in behind.items() if max(first, oldest) in ages}


def servers(deployments: list[Deployment], limit: int = 32) -> list[dict[str, Any]]:
    """Server processes seen in the last hour, and what each says about the given deployments.

    `alive`: it reported lately; `quiet`: it has not for so long that it is likely gone; `behind_s`: since how
    many seconds it lacks a generation, None while it has the newest.
    """
    now = timezone.now()
    found = []
    rows = list(Server.objects.filter(seen_at__gte=now - dt.timedelta(hours=1)).order_by("-seen_at")[:limit])
    lacking = seconds_behind(rows, generation())
    for server in rows:
        loaded = [(row, server.deployments.get(str(row.pk))) for row in deployments]
        found.append(
            {
                "server": server,
                "alive": server.seen_at >= now - ALIVE,
                "quiet": server.seen_at < now - QUIET,
                "loaded": [pair for pair in loaded if pair[1]],
                "behind_s": lacking.get(server.pk),
            }
        )
    return found


def rollouts_page(user: Any, project: Project | None, values: Any) -> Slice[Rollout]:
    """Rollouts, newest first."""
    rows = Rollout.objects.select_related(
        "endpoint__project", "stable__artifact__version", "candidate__artifact__version", "created_by"
    )
    rows = policy.visible(user, rows)
    if project:
        rows = rows.filter(endpoint__project=project)
    state = values.get("state", "")
    if state == "live":
        rows = rows.filter(state__in=ROLLOUT_LIVE)
    elif state in RolloutState.values:
        rows = rows.filter(state=state)
    return newest(rows, values.get("before"))


def rollout_get(user: Any, pk: int) -> Rollout:
    """One rollout with both sides, or 404."""
    rows = Rollout.objects.select_related(
        "endpoint__project",
        "endpoint__target",
        "stable__artifact__version__model",
        "candidate__artifact__version__model",
        "candidate__artifact__parent",
        "created_by",
        "job",
    )
    return get_object_or_404(policy.visible(user, rows), pk=pk)


def decisions_of(rollout: Rollout) -> list[Decision]:
    return list(rollout.decisions.select_related("actor").order_by("-pk")[:200])


def targets(user: Any, project: Project | None) -> list[Target]:
    """Targets with how many endpoints each has."""
    rows = policy.visible(user, Target.objects.select_related("project"))
    if project:
        rows = rows.filter(project=project)
    return list(rows.annotate(count=Count("endpoints"))[:200])


def live_count(target_rows: list[Target]) -> int:
    """How many deployments of the given targets have traffic."""
    on = Q(endpoint__target__in=target_rows, state=DeploymentState.LIVE)
    return Deployment.objects.filter(on).count()
