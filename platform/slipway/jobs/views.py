"""Pages of jobs: the list, one job with its timeline and live log."""

from __future__ import annotations

from collections.abc import Iterator

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from slipway.accounts.pages import SignedIn, act, number, project_of
from slipway.jobs import selectors, services
from slipway.jobs.models import Job, JobLog, State


@login_required
@require_GET
def jobs(request: SignedIn) -> HttpResponse:
    """Jobs by state, kind and queue; the address holds the filters."""
    project = project_of(request)
    counts = selectors.state_counts(request.user, project)
    context = {
        "section": "jobs",
        "project": project,
        "page": selectors.jobs_page(request.user, project, request.GET),
        "states": [(value, label, counts.get(value, 0)) for value, label in State.choices],
        "kinds": selectors.kind_names(),
        "filtered": any(request.GET.get(key) for key in ("state", "kind", "queue", "q", "before")),
    }
    return render(request, "jobs/jobs.html", context)


@login_required
@require_GET
def job(request: SignedIn, pk: int) -> HttpResponse:
    """One job."""
    row = selectors.job_get(request.user, pk)
    lines, earlier = selectors.log_lines(row, line=number(request.GET.get("line"), 2**63 - 1))
    context = {
        "section": "jobs",
        "project": row.project,
        "job": row,
        "steps": selectors.steps_of(row),
        "waits": selectors.why_it_waits(row),
        "lines": lines,
        "earlier": earlier,
        "percent": round(100 * row.progress),
    }
    return render(request, "jobs/job.html", context)


@login_required
@require_GET
def job_log(request: SignedIn, pk: int) -> HttpResponse:
    """Lines after a cursor, as rows for the page."""
    row = selectors.job_get(request.user, pk)
    lines, _earlier = selectors.log_lines(row, after=number(request.GET.get("after"), 2**63 - 1) or 0)
    return render(request, "jobs/_lines.html", {"job": row, "lines": lines})


@login_required
@require_GET
def job_log_text(request: SignedIn, pk: int) -> StreamingHttpResponse:
    """The whole log as a text file."""
    row = selectors.job_get(request.user, pk)
    answer = StreamingHttpResponse(_text(row), content_type="text/plain; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="job-{row.pk}.log"'
    return answer


def _text(row: Job) -> Iterator[str]:
    for line in JobLog.objects.filter(job=row).order_by("pk").iterator(chunk_size=2000):
        yield f"{line.at.isoformat(timespec='milliseconds')} {line.attempt} {line.level} {line.text}\n"


@login_required
@require_POST
def job_cancel(request: SignedIn, pk: int) -> HttpResponse:
    """Asks a job to stop."""
    row = selectors.job_get(request.user, pk)
    done = _("Asked to stop.")
    return act(request, lambda: services.job_cancel(actor=request.user, job=row), done, reverse("job", args=[pk]))


@login_required
@require_POST
def job_retry(request: SignedIn, pk: int) -> HttpResponse:
    """Puts a failed or cancelled job back into its queue."""
    row = selectors.job_get(request.user, pk)
    done = _("Back in its queue.")
    return act(request, lambda: services.job_retry(actor=request.user, job=row), done, reverse("job", args=[pk]))
