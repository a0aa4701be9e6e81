"""Queue `rollout`: the reconciler of rollouts, a job that comes again until its rollout has ended."""

from __future__ import annotations

from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from pydantic import BaseModel

from deployments.evidence import Observed
from deployments.models import Rollout, RolloutState
from deployments.rollouts import rollout_advance
from monitoring.services import alert_raise, alert_resolve
from monitoring.stats import step_counts
from slipway.jobs.context import JobContext
from slipway.jobs.kinds import Done, Later, job_kind

PERIOD = 1.0


class RolloutParams(BaseModel):
    rollout_id: int


@job_kind("rollout", queue="rollout", params=RolloutParams, label=_("Roll out"))
def rollout(job: JobContext, params: RolloutParams) -> Done | Later:
    """Looks once: numbers since the step began, at most one move, and again in a second."""
    row = Rollout.objects.get(pk=params.rollout_id)
    if row.is_live:
        counts = step_counts(deployment_ids=[row.stable_id, row.candidate_id], step_started_at=row.step_started_at)
        with job.step("analyse"):
            before = (row.state, row.step, row.step_started_at)
            row = rollout_advance(rollout_id=row.pk, observed=Observed(row.step_started_at, counts))
        if (row.state, row.step, row.step_started_at) != before:
            job.log(row.decisions.first().text)
    _alert(row)
    if not row.is_live:
        return Done({"state": row.state, "reason": row.reason})
    step = f"step {row.step + 1} of {len(row.steps)}"
    return Later(PERIOD, row.reason or f"{RolloutState(row.state).label}, {step}.")


def _alert(row: Rollout) -> None:
    """A rollout that went back or that waits for a person is something to look at."""
    project_id, link = row.endpoint.project_id, reverse("rollout", args=[row.pk])
    if row.state == RolloutState.ROLLED_BACK:
        alert_raise(
            project_id=project_id,
            key=f"rollout:{row.pk}",
            title=f"{row.endpoint.name}: rolled back",
            text=row.reason,
            link=link,
        )
    elif row.state == RolloutState.PAUSED and row.reason.startswith(("Held", "Waiting")):
        alert_raise(
            project_id=project_id,
            key=f"rollout:{row.pk}",
            title=f"{row.endpoint.name}: rollout waits",
            text=row.reason,
            link=link,
        )
    else:
        alert_resolve(project_id=project_id, key=f"rollout:{row.pk}")
