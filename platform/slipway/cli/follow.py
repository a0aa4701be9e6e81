"""Following a job to its end: log lines by cursor, a progress bar where there is a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from slipway.cli import output
from slipway.cli.client import Json
from slipway.cli.command import Run
from slipway.cli.errors import CliError, ExitCode

ENDED = {"succeeded", "failed", "cancelled"}
LOG_PAGE = 1000
LOOK_EVERY = 0.5
PATIENCE = 60.0  # seconds a server may be away while we follow: a restart is no reason to stop

Line = Callable[[str], None]
Bar = Callable[[Json], None]


def persistent(look: Callable[[], Any]) -> Any:
    """The answer of `look`, asked again while the server is away for a moment."""
    deadline, said = time.monotonic() + PATIENCE, False
    while True:
        try:
            return look()
        except CliError as error:
            if error.code not in (ExitCode.UNREACHABLE, ExitCode.SERVER) or time.monotonic() > deadline:
                raise
            if not said:
                output.note(f"{error.text} Trying again…")
                said = True
            time.sleep(1)


def job_watch(run: Run, job_id: int) -> Json:
    """Waits until a job has ended and returns it; in tables its log runs along."""
    path = f"/jobs/{job_id}"
    if run.json:
        while (job := persistent(lambda: run.api.get(path, wait=20)))["state"] not in ENDED:
            pass
        return dict(job)
    with _screen() as (line, bar):
        cursor = 0
        while True:
            # The state first: what a job that has ended wrote is all there.
            job = persistent(lambda: run.api.get(path))
            cursor = _log(run, path, cursor, line)
            bar(job)
            if job["state"] in ENDED:
                return dict(job)
            time.sleep(LOOK_EVERY)


def _log(run: Run, path: str, cursor: int, line: Line) -> int:
    """Prints what came after the cursor and returns the new one."""
    while True:
        rows = persistent(partial(run.api.get, f"{path}/log", after=cursor, limit=LOG_PAGE))
        for row in rows:
            level = "" if row["level"] == "info" else f"{row['level']}: "
            line(f"{output.when(row['at'])[11:]}  {level}{row['text']}")
            cursor = row["id"]
        if len(rows) < LOG_PAGE:
            return cursor


@contextmanager
def _screen() -> Iterator[tuple[Line, Bar]]:
    """How to print a line and to move the bar; without a terminal there is no bar."""
    if not sys.stdout.isatty():
        yield output.say, lambda job: None
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.text import Text

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=output.console(), transient=True) as progress:
        task = progress.add_task("", total=1.0)

        def bar(job: Json) -> None:
            what = job["step"] if job["state"] == "running" and job["step"] else job["state"]
            progress.update(task, completed=job["progress"], description=output.cell(f"{job['kind']} · {what}"))

        yield lambda text: progress.console.print(Text(output.clean(text))), bar


def outcome(job: Json) -> str:
    """How a job ended, as a sentence."""
    reference = f" Reference {job['reference']}." if job["reference"] else ""
    reason = f": {job['reason']}" if job["reason"] else "."
    return f"Job {job['id']} ({job['kind']}) {job['state']}{reason}{reference}"


def jobs_finish(run: Run, ids: Sequence[int], *, many: bool = False) -> None:
    """Follows jobs to their ends, prints them, and fails when one of them did not succeed."""
    jobs = []
    for job_id in ids:
        jobs.append(job_watch(run, job_id))
        if not run.json:
            output.say(outcome(jobs[-1]))
    if run.json:
        print(output.as_json(jobs if many else jobs[0]))
    bad = [job for job in jobs if job["state"] != "succeeded"]
    if bad:
        raise CliError(outcome(bad[0]) if run.json else f"{len(bad)} of {len(jobs)} failed.", ExitCode.FAILED)


def jobs_started(run: Run, jobs: Sequence[Json], data: Any, wait: bool) -> None:
    """After a 202: says which jobs began, or follows them with `--wait`."""
    if wait:
        jobs_finish(run, [job["id"] for job in jobs], many=isinstance(data, list))
        return

    def table(_: Any) -> None:
        for job in jobs:
            output.say(f"Job {job['id']} started: {job['subject']}. Follow it with `slipway jobs watch {job['id']}`.")

    run.show(data, table)
