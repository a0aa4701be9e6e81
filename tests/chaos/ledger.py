"""What must hold when the dust has settled. Runs beside Slipway with Django set up; one line of JSON of faults."""

from __future__ import annotations

import json
from typing import Any

from django.db import connection
from django.db.models import Count, Sum

from deployments.models import Decision, Deployment, DeploymentState, Endpoint, Rollout
from monitoring.models import Firing
from registry.mlflow.client import call
from registry.models import Artifact, Measurement, Version
from slipway.audit.models import Entry
from slipway.audit.services import chain_seal, chain_verify
from slipway.jobs.models import Job

MEASURED = {"measure": 1, "optimize": 2}


def runs_by_key() -> dict[str, list[str]]:
    """{slipway.key: the MLflow runs that carry it}."""
    found: dict[str, list[str]] = {}
    names = call("GET", "experiments/search", doing="counting", params={"max_results": 100})["experiments"]
    body: dict[str, Any] = {"experiment_ids": [row["experiment_id"] for row in names], "max_results": 1000}
    while True:
        answer = call("POST", "runs/search", doing="counting", body=body)
        for run in answer.get("runs", []):
            for tag in run["data"].get("tags", []):
                if tag["key"] == "slipway.key":
                    found.setdefault(tag["value"], []).append(run["info"]["run_id"])
        if not answer.get("next_page_token"):
            return found
        body["page_token"] = answer["next_page_token"]


def registered_by_key() -> dict[str, int]:
    """{slipway.key: how many registered versions carry it}."""
    found: dict[str, int] = {}
    answer = call("GET", "model-versions/search", doing="counting", params={"max_results": 10000})
    for row in answer.get("model_versions", []):
        for tag in row.get("tags", []):
            if tag["key"] == "slipway.key":
                found[tag["value"]] = found.get(tag["value"], 0) + 1
    return found


def faults() -> list[str]:
    """Every breach, in words."""
    wrong = [
        f"job {job.pk} ({job.kind}) is {job.state}: {job.reason}" for job in Job.objects.exclude(state="succeeded")
    ]
    runs, registered = runs_by_key(), registered_by_key()
    for job in Job.objects.filter(state="succeeded"):
        own = runs.get(f"job:{job.pk}", [])
        wanted = 0 if job.kind in {"ingest", "rollout"} else 1
        if len(own) != wanted or (wanted and own[0] != job.mlflow_run_id):
            wrong.append(f"job {job.pk} ({job.kind}) has the MLflow runs {own}, its row says {job.mlflow_run_id!r}")
        if registered.get(f"job:{job.pk}", 0) != (job.kind == "retrain"):
            wrong.append(f"job {job.pk} ({job.kind}) registered {registered.get(f'job:{job.pk}')} versions")
        measured = Measurement.objects.filter(job=job).count()
        if measured != MEASURED.get(job.kind, 0):
            wrong.append(f"job {job.pk} ({job.kind}) has {measured} measurements")
    wrong += [f"{count} registered versions share {key}" for key, count in registered.items() if count > 1]
    return wrong + artifacts_doubled() + versions_doubled() + audit_doubled() + weights_wrong()


def artifacts_doubled() -> list[str]:
    kinds = ("version", "format", "parent", "recipe__exporter", "recipe__optimizer")
    rows = Artifact.objects.exclude(recipe={}).values(*kinds).annotate(n=Count("id")).filter(n__gt=1)
    missing = [
        f"job {job.pk} ({job.kind}) names artifact {job.result.get('artifact')}, which is not there"
        for job in Job.objects.filter(kind__in=["ingest", "export", "optimize"], state="succeeded")
        if not Artifact.objects.filter(pk=job.result.get("artifact", 0)).exists()
    ]
    return [f"artifacts doubled: {row}" for row in rows] + missing


def versions_doubled() -> list[str]:
    """Every version ready, one audit entry, one ingestion; every retraining one version of its own."""
    wrong = [f"version {row.pk} is {row.state}" for row in Version.objects.exclude(state="ready")]
    for row in Version.objects.all():
        entries = Entry.objects.filter(action="version.register", object_id=str(row.pk)).count()
        if entries != 1:
            wrong.append(f"version {row.pk} has {entries} audit entries")
        if row.origin != "upload" and Job.objects.filter(kind="ingest", params__version_id=row.pk).count() != 1:
            wrong.append(f"version {row.pk} was not taken in exactly once")
    retrained = Job.objects.filter(kind="retrain", state="succeeded").count()
    if (made := Version.objects.filter(origin="retraining").count()) != retrained:
        wrong.append(f"{retrained} retrainings made {made} versions of that origin")
    return wrong


def audit_doubled() -> list[str]:
    while chain_seal():
        pass
    checked, broken = chain_verify()
    wrong = [] if broken is None and checked == Entry.objects.count() else [f"the audit chain breaks at {broken}"]
    decisions, entries = Decision.objects.count(), Entry.objects.filter(action__startswith="rollout.").count()
    if decisions != entries:
        wrong.append(f"{decisions} decisions and {entries} audit entries of rollouts")
    rows = Decision.objects.filter(action__in=["start", "promote"]).values("rollout", "action")
    wrong += [f"decided twice: {row}" for row in rows.annotate(n=Count("id")).filter(n__gt=1)]
    if (fired := Entry.objects.filter(action="policy.fire").count()) != Firing.objects.count():
        wrong.append(f"{Firing.objects.count()} firings and {fired} audit entries")
    return wrong


def weights_wrong() -> list[str]:
    wrong = []
    for endpoint in Endpoint.objects.all():
        live = Deployment.objects.filter(endpoint=endpoint, state=DeploymentState.LIVE)
        if (total := live.aggregate(total=Sum("weight"))["total"]) != 100:
            wrong.append(f"the weights of {endpoint.name} sum to {total}")
    return wrong + [
        f"rollout {row.pk} is {row.state}: {row.reason}" for row in Rollout.objects.exclude(state="promoted")
    ]


def main() -> None:
    print(json.dumps(faults()))
    connection.close()
