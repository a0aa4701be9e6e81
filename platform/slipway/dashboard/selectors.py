"""Reads for the pages that belong to no single room: counts of the shell, home, search, audit."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

from django.db.models import Count, Q, QuerySet, Value
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from deployments.models import ROLLOUT_LIVE, Deployment, DeploymentState, Endpoint, Rollout
from monitoring.models import Alert, AlertState, Policy
from registry.models import Artifact, Format, Model, Version, VersionState
from slipway.accounts import policy
from slipway.accounts.models import Project
from slipway.audit.models import Entry
from slipway.jobs.models import LIVE, Job, State

_PAGES = (
    ("home", gettext_lazy("Home")),
    ("models", gettext_lazy("Models")),
    ("upload", gettext_lazy("Upload a model")),
    ("datasets", gettext_lazy("Datasets")),
    ("jobs", gettext_lazy("Jobs")),
    ("endpoints", gettext_lazy("Endpoints")),
    ("rollouts", gettext_lazy("Rollouts")),
    ("monitoring", gettext_lazy("Monitoring")),
    ("targets", gettext_lazy("Targets")),
    ("settings", gettext_lazy("Settings")),
    ("settings-tokens", gettext_lazy("My tokens")),
    ("settings-policies", gettext_lazy("Retraining policies")),
    ("settings-audit", gettext_lazy("Audit")),
)


def shell_counts(user: Any) -> dict[str, int]:
    """{jobs, alerts, rollouts}: what runs or fires right now, in one query."""

    def count(key: str, rows: QuerySet[Any]) -> QuerySet[Any]:
        return policy.visible(user, rows).order_by().values(k=Value(key)).annotate(n=Count("pk")).values_list("k", "n")

    jobs = count("jobs", Job.objects.filter(state__in=LIVE))
    alerts = count("alerts", Alert.objects.filter(state=AlertState.FIRING))
    rollouts = count("rollouts", Rollout.objects.filter(state__in=ROLLOUT_LIVE))
    found = dict(jobs.union(alerts, rollouts, all=True))
    return {key: found.get(key, 0) for key in ("jobs", "alerts", "rollouts")}


def _in(rows: QuerySet[Any], user: Any, project: Project | None) -> QuerySet[Any]:
    rows = policy.visible(user, rows)
    path = getattr(rows.model, "PROJECT_PATH", "project")
    return rows.filter(**{path: project}) if project else rows


def home_tiles(user: Any, project: Project | None) -> dict[str, int]:
    """Counts of the tiles on the home page."""
    day = timezone.now() - dt.timedelta(days=1)
    live = _in(Deployment.objects.filter(state=DeploymentState.LIVE), user, project)
    return {
        **live.aggregate(serving=Count("endpoint", distinct=True), deployments=Count("pk")),
        "rollouts": _in(Rollout.objects.filter(state__in=ROLLOUT_LIVE), user, project).count(),
        **_in(Job.objects.all(), user, project).aggregate(
            failed=Count("pk", filter=Q(state=State.FAILED, finished_at__gte=day)),
            running=Count("pk", filter=Q(state__in=LIVE)),
        ),
        "alerts": _in(Alert.objects.filter(state=AlertState.FIRING), user, project).count(),
    }


def needs_attention(user: Any, project: Project | None) -> dict[str, list[Any]]:
    """What a person should look at first: firing alerts, paused rollouts, failed jobs, waiting approvals."""
    day = timezone.now() - dt.timedelta(days=1)
    alerts = _in(Alert.objects.filter(state=AlertState.FIRING), user, project)
    rollouts = _in(Rollout.objects.filter(state__in=ROLLOUT_LIVE), user, project)
    failed = _in(Job.objects.filter(state=State.FAILED, finished_at__gte=day), user, project)
    rejected = _in(Version.objects.filter(state=VersionState.REJECTED, created_at__gte=day), user, project)
    return {
        "alerts": list(alerts.order_by("-pk")[:5]),
        "rollouts": list(
            rollouts.select_related("endpoint", "candidate__artifact__version", "stable__artifact__version").order_by(
                "-pk"
            )[:5]
        ),
        "jobs": list(failed.order_by("-pk")[:5]),
        "versions": list(rejected.select_related("model__project").order_by("-pk")[:5]),
    }


def activity(user: Any, project: Project | None, limit: int = 12) -> list[Entry]:
    """The newest entries of the audit log, as a feed."""
    return list(_in(Entry.objects.all(), user, project).order_by("-id")[:limit])


def checklist(user: Any, project: Project | None) -> list[dict[str, Any]]:
    """The first steps of a new project, and whether each is done."""
    servable = Artifact.objects.filter(format__in=[Format.ONNX, Format.ORT])
    steps = [
        (_("Register a version"), _("Log a model with MLflow, or drop an ONNX file."), Version.objects.all(), "upload"),
        (_("Export it to ONNX"), _("Open the version and press Export."), servable, "models"),
        (
            _("Deploy it"),
            _("Create an endpoint and place the artifact behind it."),
            Deployment.objects.all(),
            "endpoints",
        ),
        (
            _("Roll a second version out"),
            _("A canary compares it with the first one."),
            Rollout.objects.all(),
            "rollouts",
        ),
        (
            _("Retrain by a policy"),
            _("A schedule or a signed hook starts it."),
            Policy.objects.all(),
            "settings-policies",
        ),
    ]
    return [
        {"label": label, "how": how, "done": _in(rows, user, project).exists(), "url": reverse(name)}
        for label, how, rows, name in steps
    ]


def audit_entries(user: Any, project: Project | None) -> QuerySet[Entry]:
    """Entries of the person's projects; entries of no project are the superuser's."""
    return _in(Entry.objects.all(), user, project)


# Search


def search(user: Any, text: str, limit: int = 6) -> list[dict[str, str]]:
    """Pages, models, versions, endpoints and jobs that match, visible to the person."""
    text = text.replace("\x00", "").strip()[:100]
    results = [
        {"label": str(label), "hint": _("page"), "url": reverse(name)}
        for name, label in _PAGES
        if text.lower() in str(label).lower()
    ]
    if not text:
        return results
    return [*_models(user, text, limit), *_endpoints(user, text, limit), *_jobs(user, text, limit), *results]


def _models(user: Any, text: str, limit: int) -> list[dict[str, str]]:
    found = []
    named = re.fullmatch(r"(.+?)[\s/]+v?(\d{1,9})", text)
    if named:
        versions = policy.visible(user, Version.objects.filter(number=int(named[2]), model__name__icontains=named[1]))
        found += [
            {
                "label": f"{version.model.name} {version.number}",
                "hint": _("version"),
                "url": reverse("version", args=[version.pk]),
            }
            for version in versions.select_related("model")[:limit]
        ]
    models = policy.visible(user, Model.objects.filter(name__icontains=text, archived_at__isnull=True))
    found += [
        {"label": model.name, "hint": _("model"), "url": reverse("model", args=[model.pk])} for model in models[:limit]
    ]
    return found


def _endpoints(user: Any, text: str, limit: int) -> list[dict[str, str]]:
    rows = policy.visible(user, Endpoint.objects.filter(name__icontains=text))[:limit]
    return [{"label": row.name, "hint": _("endpoint"), "url": reverse("endpoint", args=[row.name])} for row in rows]


def _jobs(user: Any, text: str, limit: int) -> list[dict[str, str]]:
    digits = text.removeprefix("#").removeprefix("job ")
    by = Q(subject__icontains=text) | Q(kind__istartswith=text)
    if digits.isascii() and digits.isdigit() and len(digits) < 18:
        by |= Q(pk=int(digits))
    rows = policy.visible(user, Job.objects.filter(by)).order_by("-pk")[:limit]
    return [
        {
            "label": f"{row.kind} {row.subject}".strip(),
            "hint": _("job %(id)d") % {"id": row.pk},
            "url": reverse("job", args=[row.pk]),
        }
        for row in rows
    ]
