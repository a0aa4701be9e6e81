"""`slipway jobs`: background work."""

from __future__ import annotations

from typing import Annotated

import typer

from slipway.cli import output
from slipway.cli.client import Json
from slipway.cli.command import Limit, Project, Run, Wait, Yes, command, noun
from slipway.cli.errors import CliError, ExitCode
from slipway.cli.follow import ENDED, jobs_finish, jobs_started, outcome

app = noun("Background work: list, follow, cancel, retry.")
JobId = Annotated[int, typer.Argument(metavar="JOB", min=1, help="Id of a job.")]


@command(app, "list")
def jobs_list(
    run: Run,
    state: Annotated[
        list[str] | None, typer.Option("--state", help="queued, running, succeeded, failed, cancelled; repeatable.")
    ] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="As in export, optimize, rollout, retrain.")] = None,
    project: Project = None,
    limit: Limit = 50,
) -> None:
    """Newest first."""
    page = run.api.rows("/jobs", limit, state=state, kind=kind, project=project)
    run.listing(
        page,
        ("job", "kind", "subject", "state", "progress", "step", "created"),
        lambda row: (
            row["id"],
            row["kind"],
            row["subject"],
            row["state"],
            output.percent(row["progress"]),
            row["step"],
            output.when(row["created_at"]),
        ),
    )


@command(app, "show")
def jobs_show(run: Run, job: JobId) -> None:
    """One job with its steps, its result or the reason of its failure."""
    run.show(run.api.get(f"/jobs/{job}"), job_card)


def job_card(row: Json) -> None:
    """A job as names and values."""
    output.record(
        (
            ("job", row["id"]),
            ("kind", row["kind"]),
            ("subject", row["subject"]),
            ("state", row["state"]),
            ("progress", output.percent(row["progress"])),
            ("reason", row["reason"]),
            ("reference", row["reference"]),
            ("attempt", row["attempt"]),
            ("project", row["project"]),
            ("by", row["created_by"]),
            ("created", output.when(row["created_at"])),
            ("started", output.when(row["started_at"])),
            ("finished", output.when(row["finished_at"])),
            ("parameters", row["params"]),
            ("result", row["result"]),
            ("MLflow run", row["mlflow_run_id"]),
        )
    )
    if row.get("steps"):
        output.say()
        output.table(
            ("step", "attempt", "started", "finished"),
            (
                (step["name"], step["attempt"], output.when(step["started_at"]), output.when(step["finished_at"]))
                for step in row["steps"]
            ),
        )


@command(app, "watch")
def jobs_watch(run: Run, job: JobId) -> None:
    """Follows a job's log live until it ends; exit code 1 unless it succeeded."""
    jobs_finish(run, [job])


@command(app, "cancel")
def jobs_cancel(run: Run, job: JobId, yes: Yes = False) -> None:
    """Ends a queued job at once; a running one is asked to stop."""
    row = run.api.get(f"/jobs/{job}")
    if row["state"] in ENDED:
        raise CliError(f"{outcome(row)} There is nothing to cancel.", ExitCode.CONFLICT)
    run.confirm(f"Cancel job {job} ({row['subject'] or row['kind']})?", yes)
    data = run.api.post(f"/jobs/{job}/cancel")
    ended = data["state"] in ENDED
    run.done(data, f"Job {job} is cancelled." if ended else f"Job {job} was asked to stop.")


@command(app, "retry")
def jobs_retry(run: Run, job: JobId, wait: Wait = False) -> None:
    """Puts a failed or cancelled job back into its queue."""
    data = run.api.post(f"/jobs/{job}/retry")
    jobs_started(run, [data], data, wait)
