"""Reads for the pages of jobs."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.db.models import Count, Q, QuerySet
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.utils.translation import gettext as _

from slipway.accounts import policy
from slipway.accounts.models import Project
from slipway.accounts.pages import Slice, newest, text_in
from slipway.jobs.kinds import kinds
from slipway.jobs.models import LIVE, MAX_FAILURES, Job, JobLog, JobStep, State

LOG_LINES = 500


def _mine(user: Any, project: Project | None) -> QuerySet[Job]:
    rows = policy.visible(user, Job.objects.select_related("project"))
    return rows.filter(project=project) if project else rows


def jobs_page(user: Any, project: Project | None, values: Any) -> Slice[Job]:
    """Jobs, newest first, filtered by state, kind and queue as the address says."""
    rows = _mine(user, project).select_related("created_by").defer("params", "result")
    for name in ("state", "kind", "queue"):
        if value := text_in(values, name, 40):
            rows = rows.filter(**{name: value})
    if text := text_in(values, "q"):
        rows = rows.filter(subject__icontains=text)
    return newest(rows, values.get("before"))


def state_counts(user: Any, project: Project | None) -> dict[str, int]:
    """How many jobs are live, and how many ended in each way within 24 hours."""
    day = timezone.now() - dt.timedelta(days=1)
    rows = _mine(user, project).filter(Q(state__in=LIVE) | Q(finished_at__gte=day))
    return dict(rows.order_by().values_list("state").annotate(n=Count("pk")))


def kind_names() -> list[str]:
    return [kind.name for kind in kinds()]


def job_get(user: Any, pk: int) -> Job:
    """One job with its people and parents, or 404."""
    rows = Job.objects.select_related("project", "created_by", "parent").prefetch_related("children")
    return get_object_or_404(policy.visible(user, rows), pk=pk)


def steps_of(job: Job) -> list[JobStep]:
    """The steps of all attempts (at most 100), in order."""
    return list(job.steps.order_by("attempt", "id")[:100])


def log_lines(job: Job, *, after: int | None = None, line: int | None = None) -> tuple[list[JobLog], bool]:
    """(lines, whether there are earlier ones): after a cursor, around a line, or the newest."""
    rows = JobLog.objects.filter(job=job)
    if after is not None:
        return list(rows.filter(pk__gt=after).order_by("pk")[:LOG_LINES]), False
    if line is not None:
        before = list(rows.filter(pk__lt=line).order_by("-pk")[:51])
        found = list(reversed(before[:50])) + list(rows.filter(pk__gte=line).order_by("pk")[:LOG_LINES])
        return found, len(before) > 50
    found = list(rows.order_by("-pk")[: LOG_LINES + 1])
    return list(reversed(found[:LOG_LINES])), len(found) > LOG_LINES


def why_it_waits(job: Job) -> str:
    """Why a job does not run right now, in a sentence; empty when there is nothing to say."""
    now = timezone.now()
    if job.state == State.RUNNING:
        if job.cancel_requested:
            return _("Asked to stop; it ends at its next heartbeat.")
        if job.lease_until and job.lease_until < now:
            return _("Its worker has gone quiet; the job returns to its queue within seconds.")
        return ""
    if job.state != State.QUEUED:
        return ""
    if job.available_at > now:
        seconds = round((job.available_at - now).total_seconds())
        text = _("Comes again in %(n)d s.") % {"n": seconds}
        return f"{text} {job.reason}".strip()
    ahead = Job.objects.filter(queue=job.queue, state=State.QUEUED, available_at__lt=job.available_at).count()
    if job.failures:
        return _("Waits for a worker after %(n)d of %(most)d failures.") % {"n": job.failures, "most": MAX_FAILURES}
    if ahead:
        return _("%(n)d jobs are before it in the queue “%(queue)s”.") % {"n": ahead, "queue": job.queue}
    return _("Next in the queue “%(queue)s”; a worker takes it as soon as one is free.") % {"queue": job.queue}
