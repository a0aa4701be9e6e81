"""Kills one attempt at each named place, runs the next one, and prints what the databases hold then.

Runs beside Slipway with Django set up, no worker of Celery's: an attempt is a fork that executes the job as a
worker would. One line of JSON: [{"point", "hit", "state", "attempt", "artifacts", "measurements", "runs", …}].
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from django.db import connection, connections

from deployments.models import Deployment, DesiredState, Server
from deployments.rollouts import rollout_start
from deployments.services import endpoint_create
from registry.intake import versions_reconcile
from registry.mlflow import client
from registry.mlflow.client import call
from registry.models import Artifact, Measurement, Version
from registry.services import export_request, optimize_request
from slipway import events
from slipway.accounts.models import Project
from slipway.jobs import failpoints
from slipway.jobs.kernel import execute
from slipway.jobs.kinds import kind_of
from slipway.jobs.models import Job
from slipway.jobs.services import submit
from tests.chaos.seed import versions_register

AT_ONCE = 3
POINTS = {
    "ingest": ["fetch", "hash", "scan", "datasets", "commit"],
    "export": ["fetch", "convert", "check", "hash", "store", "run-made", "store-made", "register", "commit"],
    "measure": ["fetch", "measure", "register", "run-made", "commit"],
    "optimize": ["fetch", "convert", "check", "measure", "store", "run-made", "store-made", "register", "commit"],
    "rollout": ["analyse", "commit"],
    "retrain": ["run-made", "version-made"],
}


def forked(work: Callable[[], None]) -> int:
    """The pid of a fork that does `work` with connections of its own."""
    connections.close_all()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            client._clients.clear()
            events._local.__dict__.clear()
            work()
            code = 0
        finally:
            os._exit(code)
    return pid


def execute_all(jobs: dict[str, Job], points: dict[str, str] | None = None) -> dict[str, int]:
    """One attempt of each job, a few at once; {name: how its process ended}."""
    waiting, running, ended = list(jobs), {}, {}
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            name = waiting.pop(0)
            job = jobs[name]

            def work(name: str = name, job: Job = job) -> None:
                failpoints._ACTIONS = {name: points[name]} if points else {}
                execute(kind_of(job.kind), job.pk)

            running[forked(work)] = name
        pid, status = os.wait()
        ended[running.pop(pid)] = os.waitstatus_to_exitcode(status)
    return ended


def finish(jobs: list[Job]) -> None:
    """Runs jobs to their end, here."""
    pending = {str(job.pk): job for job in jobs}
    deadline = time.monotonic() + 120
    while pending and time.monotonic() < deadline:
        execute_all(pending)
        rows = Job.objects.filter(pk__in=[job.pk for job in pending.values()])
        pending = {str(row.pk): row for row in rows if row.is_live}
        time.sleep(0.2 if pending else 0)


def servers_pretend() -> None:
    """No inference server follows these endpoints: one says that it has everything."""
    ids = Deployment.objects.values_list("pk", flat=True)
    seen = {str(pk): {"state": "ready", "reason": ""} for pk in ids}
    Server.objects.all().delete()
    Server.objects.create(
        instance="pretend", process=0, generation=DesiredState.objects.get().generation, deployments=seen
    )


def prepared(project: Project) -> Iterator[tuple[str, Job]]:
    """(point, a job of its own) for every point, everything before it done."""
    versions_register("small", len(POINTS["ingest"]) + 1)
    versions_reconcile()
    versions = list(Version.objects.filter(model__name="small").order_by("number"))
    finish([versions[0].job])
    for point, version in zip(POINTS["ingest"], versions[1:], strict=True):
        yield f"ingest.{point}", version.job
    ready = Version.objects.get(pk=versions[0].pk)
    first = Job.objects.get(kind="export", params__version_id=ready.pk)
    finish([first])
    artifact = Artifact.objects.get(version=ready, format="onnx")
    finish(list(Job.objects.filter(kind="measure")))
    for point in POINTS["export"]:
        yield f"export.{point}", export_request(actor=None, version=ready, exporters=["onnx"])[0]
    for point in POINTS["measure"]:
        yield f"measure.{point}", submit("measure", project=project, params={"artifact_id": artifact.pk, "rounds": 1})
    for point in POINTS["optimize"]:
        job = optimize_request(actor=None, artifact=artifact, optimizer="dynamic-quantization", options={})
        yield f"optimize.{point}", job
    for point in POINTS["retrain"]:
        yield f"retrain.{point}", submit("retrain", project=project, params={"model_id": ready.model_id})
    versions_register("other", len(POINTS["rollout"]), seeds=2, first=50)
    versions_reconcile()
    others = list(Version.objects.filter(model__name="other"))
    finish([version.job for version in others])
    finish(list(Job.objects.filter(kind="export", params__version_id__in=[version.pk for version in others])))
    steps = [{"mode": "full", "weight": 100, "min_seconds": 0}]
    for point, other in zip(POINTS["rollout"], others, strict=True):
        endpoint = endpoint_create(actor=None, project=project, name=f"fp-{point}", artifact=artifact)
        candidate = Artifact.objects.get(version=other, format="onnx")
        yield f"rollout.{point}", rollout_start(actor=None, endpoint=endpoint, artifact=candidate, steps=steps).job


def runs_of(job: Job) -> int:
    """How many MLflow runs carry the job's key."""
    found = call("GET", "experiments/search", doing="counting", params={"max_results": 100})["experiments"]
    body = {
        "experiment_ids": [row["experiment_id"] for row in found],
        "filter": f"tags.`slipway.key` = 'job:{job.pk}'",
        "max_results": 10,
    }
    return len(call("POST", "runs/search", doing="counting", body=body).get("runs", []))


def versions_of(job: Job) -> int:
    """How many registered versions carry the job's key."""
    params = {"filter": f"tags.`slipway.key` = 'job:{job.pk}'", "max_results": 10}
    return len(call("GET", "model-versions/search", doing="counting", params=params).get("model_versions", []))


def outcome(point: str, job: Job, marker: Path, died: int) -> dict[str, Any]:
    row = Job.objects.get(pk=job.pk)
    return {
        "point": point,
        "hit": marker.exists() and died == -signal.SIGKILL,
        "state": row.state,
        "reason": row.reason,
        "attempt": row.attempt,
        "failures": row.failures,
        "measurements": Measurement.objects.filter(job=job).count(),
        "runs": runs_of(row),
        "registered": versions_of(row),
    }


def main() -> None:
    project = Project.objects.order_by("id").first()
    assert project is not None
    folder = Path(tempfile.mkdtemp())
    jobs = dict(prepared(project))
    servers_pretend()
    markers = {point: folder / point for point in jobs}
    ended = execute_all(jobs, {point: f"kill-once:{marker}" for point, marker in markers.items()})
    # A rollout comes again and again: its commit is the last time.
    for point in [p for p in jobs if p.startswith("rollout.") and ended[p] == 0]:
        deadline = time.monotonic() + 20
        while ended[point] == 0 and time.monotonic() < deadline:
            time.sleep(1.05)
            ended |= execute_all({point: jobs[point]}, {point: f"kill-once:{markers[point]}"})
    time.sleep(float(os.environ["SLIPWAY_LEASE_SECONDS"]) + 0.2)
    finish(list(jobs.values()))
    print(json.dumps([outcome(point, job, markers[point], ended[point]) for point, job in jobs.items()]))
    connection.close()
