"""A small world with everything a page can show: models, jobs in every state, a rollout under way, windows."""

from __future__ import annotations

import datetime as dt
import hashlib
import random
from typing import Any

from django.db import transaction
from django.utils import timezone

from deployments.models import Decision, Deployment, DeploymentState, Endpoint, Rollout, RolloutState, Server, Target
from engine.formats.latency import bucket_of
from monitoring.models import Alert, AlertState, Firing, Policy, Window
from registry.models import Alias, Approval, Artifact, Dataset, Measurement, Model, Origin, Version, VersionState
from registry.signing import attest
from slipway.accounts.models import Project, User
from slipway.audit.services import chain_seal, record
from slipway.jobs.models import Job, JobLog, JobStep, State

SIGNATURE = {
    "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 64]}],
    "outputs": [
        {"name": "label", "datatype": "INT64", "shape": [-1]},
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
    ],
}
CARD = """# Digits

Handwritten digits, 8 × 8 pixels, grey values 0 to 16.

| split | rows |
|---|---|
| training | 1,257 |
| evaluation | 540 |

Not for postal codes written with a <script>alert(1)</script> pen. See [the data](https://scikit-learn.org).
"""


SUBJECTS = ["digits 4 → pmml", "digits 4 · dynamic-int8", "digits 4 → onnx", "digits 2 → pmml", "digits · nightly"]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def make_jobs(project: Project, user: User | None) -> dict[str, Job]:
    """One job in each state, with steps and logs; the running one is half way."""
    now = timezone.now()
    jobs = {}
    for index, state in enumerate(State.values):
        ended = state not in (State.QUEUED, State.RUNNING)
        job = jobs[state] = Job.objects.create(
            project=project,
            kind=["export", "optimize", "export", "export", "retrain"][index],
            queue=["export", "optimize", "export", "export", "retrain"][index],
            subject=SUBJECTS[index],
            params={"version_id": 4, "exporter": "onnx"},
            created_by=user,
            state=state,
            attempt=0 if state == State.QUEUED else 1 + (state == State.FAILED),
            lease_until=now + dt.timedelta(seconds=60) if state == State.RUNNING else None,
            claimed_by="worker-1" if state == State.RUNNING else "",
            step="measure" if state == State.RUNNING else "",
            progress={"running": 0.46, "succeeded": 1}.get(state, 0),
            reason="The exported model differs: 3 of 540 labels, tolerance 0.0001." if state == State.FAILED else "",
            result={"artifact_id": 5, "size_bytes": 1153433} if state == State.SUCCEEDED else {},
            started_at=None if state == State.QUEUED else now - dt.timedelta(seconds=95 + 30 * index),
            finished_at=now - dt.timedelta(seconds=20 * index) if ended else None,
            mlflow_run_id=digest(state)[:32] if ended else "",
        )  # fmt: skip
        if state == State.QUEUED:
            continue
        names = (
            ["prepare", "convert", "compare", "store"] if state != State.RUNNING else ["fetch", "quantize", "measure"]
        )
        for step, name in enumerate(names):
            at = now - dt.timedelta(seconds=90 - 15 * step)
            done = state == State.SUCCEEDED or step < len(names) - 1
            JobStep.objects.create(
                job=job,
                attempt=job.attempt,
                name=name,
                started_at=at,
                finished_at=at + dt.timedelta(seconds=14) if done else None,
            )
        for line in range(24):
            JobLog.objects.create(
                job=job,
                attempt=job.attempt,
                at=now - dt.timedelta(seconds=90 - 3 * line),
                level="error" if state == State.FAILED and line == 23 else ("warning" if line == 7 else "info"),
                text=f"row {line * 20} of 540: largest difference {2.3e-7 * (line + 1):.2e}",
            )
    return jobs


def make_version(model: Model, number: int, user: User | None, job: Job | None = None, **changes: Any) -> Version:
    """A version with source, ONNX, PMML and int8 artifacts, measured."""
    values = {
        "state": VersionState.READY,
        "origin": Origin.MLFLOW,
        "framework": "sklearn",
        "signature": SIGNATURE,
        "metrics": {"accuracy": 0.9741 + number / 500, "f1_macro": 0.973 + number / 500},
        "params": {"C": 10, "gamma": 0.001, "kernel": "rbf"},
        "baseline": {"rows": 1257},
        "card": CARD,
        "mlflow_run_id": digest(f"run{number}")[:32],
        "created_by": user,
    } | changes
    version = Version.objects.create(model=model, number=number, **values)
    if version.state != VersionState.READY:
        return version
    seed = f"{model.pk}-{number}"
    source = _artifact(version, "source", seed + "s", 41_216, "model", verdict="clean")
    onnx = _artifact(
        version, "onnx", seed + "o", 4_612_345, "model.onnx", parent=source, job=job,
        recipe={"exporter": "onnx", "opset": 21}, signature=SIGNATURE,
        parity={"passed": True, "max_abs": 2.3e-7, "agreement": 1.0, "rows": 540},
    )  # fmt: skip
    _artifact(
        version, "pmml", seed + "p", 902_113, "model.pmml", parent=source, recipe={"exporter": "pmml"},
        parity={"passed": True, "max_abs": 1.1e-12, "agreement": 1.0, "rows": 540},
    )  # fmt: skip
    int8 = _artifact(
        version, "onnx", seed + "i", 1_153_433, "model-int8.onnx", parent=onnx, job=job, signature=SIGNATURE,
        recipe={"optimizer": "dynamic-int8", "label": "int8"},
        parity={
            "passed": True, "max_abs": 0.021, "max_rel": 0.034, "agreement": 0.998, "rows": 540,
            "worst": [{"row": 17, "difference": 0.021, "source": "0.51, 0.49", "target": "0.489, 0.511"}],
        },
    )  # fmt: skip
    data = Dataset.objects.filter(project=model.project, role="evaluation").first()
    for artifact, accuracy, p50 in ((onnx, 0.9926, 0.101), (int8, 0.9907, 0.043)):
        Measurement.objects.create(
            artifact=artifact, dataset=data, metrics={"accuracy": accuracy}, latency_p50_ms=p50,
            latency_p95_ms=p50 * 1.4, latency_p99_ms=p50 * 1.9, throughput=1000 / p50,
            profile={"cpu": "a processor", "cores": 2, "threads": 1}, speedup=0.101 / p50,
        )  # fmt: skip
    return version


def _artifact(version: Version, format: str, seed: str, size: int, file_name: str, **more: Any) -> Artifact:
    named = {"format": format, "sha256": digest(seed), "size": size, "file_name": file_name}
    return Artifact.objects.create(
        version=version, attestation=attest(version, **named), **named,
        uri=f"runs:/{version.mlflow_run_id}/{file_name}", **({"verdict": "clean"} | more),
    )  # fmt: skip


def make_windows(
    deployment: Deployment, minutes: int, per_window: int, middle_us: float, errors: float = 0.002
) -> None:
    """Five-second windows up to now, with a believable latency sketch and class histogram."""
    dice = random.Random(deployment.pk)
    now = int(timezone.now().timestamp()) // 5 * 5
    rows = []
    for start in range(now - minutes * 60, now + 1, 5):
        requests = max(1, round(per_window * dice.uniform(0.8, 1.2)))
        sketch: dict[str, int] = {}
        for _ in range(min(requests, 40)):
            bucket = str(bucket_of(dice.lognormvariate(0, 0.25) * middle_us))
            sketch[bucket] = sketch.get(bucket, 0) + 1
        labels = {str(label): max(0, round(requests / 10 * dice.uniform(0.6, 1.4))) for label in range(10)}
        rows.append(
            Window(
                deployment=deployment, start=dt.datetime.fromtimestamp(start, dt.UTC), requests=requests,
                errors=sum(dice.random() < errors for _ in range(requests)), latency=sketch, outputs={"label": labels},
            )
        )  # fmt: skip
    Window.objects.bulk_create(rows, batch_size=1000)


@transaction.atomic
def make_endpoint(project: Project, old: Version, new: Version, user: User | None, name: str = "digits") -> Endpoint:
    """An endpoint at 75/25 with a retired deployment, two servers and a rollout in its second step."""
    now = timezone.now()
    target, _ = Target.objects.get_or_create(project=project, name="slipway")
    endpoint = Endpoint.objects.create(project=project, target=target, name=name, access="open")
    onnx = {version: version.artifacts.filter(format="onnx") for version in (old, new)}
    Deployment.objects.create(
        endpoint=endpoint, artifact=onnx[old].first(), state=DeploymentState.RETIRED,
        retired_at=now - dt.timedelta(hours=3), created_by=user,
    )  # fmt: skip
    stable = Deployment.objects.create(
        endpoint=endpoint, artifact=onnx[old].last(), state=DeploymentState.LIVE, weight=75, created_by=user
    )
    candidate = Deployment.objects.create(
        endpoint=endpoint, artifact=onnx[new].last(), state=DeploymentState.LIVE, weight=25, created_by=user
    )
    make_windows(stable, 20, 60, 620)
    make_windows(candidate, 10, 20, 380)
    for process in (0, 1):
        seen = {
            str(row.pk): {"state": "ready", "sha256": row.artifact.sha256, "reason": ""} for row in (stable, candidate)
        }
        Server.objects.update_or_create(
            instance=f"host-4711-{process}",
            defaults={"process": process, "generation": 118, "deployments": seen, "seen_at": now},
        )
    make_rollout(endpoint, stable, candidate, user)
    return endpoint


def _step(weight: int, seconds: int, requests: int, *, gate: bool) -> dict[str, Any]:
    return {
        "mode": "full" if weight == 100 else "canary", "weight": weight, "min_seconds": seconds,
        "min_requests": requests, "max_seconds": 3600, "gate": gate,
    }  # fmt: skip


def make_rollout(endpoint: Endpoint, stable: Deployment, candidate: Deployment, user: User | None) -> Rollout:
    """A canary in its second step, with evidence and a decision log."""
    now = timezone.now()
    rollout = Rollout.objects.create(
        endpoint=endpoint, stable=stable, candidate=candidate, state=RolloutState.PROGRESSING, step=1,
        steps=[
            _step(10, 300, 3000, gate=False),
            _step(25, 600, 3000, gate=False),
            _step(50, 600, 3000, gate=True),
            _step(100, 1800, 0, gate=False),
        ],
        guard={"max_error_share": 0.05, "min_requests": 20}, step_started_at=now - dt.timedelta(minutes=9),
        created_by=user,
        evidence={
            "candidate": {"requests": 3904, "errors": 7, "p95_ms": 1.9},
            "stable": {"requests": 11972, "errors": 25, "p95_ms": 3.1},
            "seconds": 540.0,
            "guards": [
                {"name": "error-burst", "label": "Error share", "stable": 0.0021, "candidate": 0.0018, "limit": 0.05,
                 "position": 0.98, "verdict": "promote"},
                {"name": "latency-p95", "label": "p95 latency", "stable": 3.1, "candidate": 1.9, "limit": 3.41,
                 "position": 0.72, "verdict": "nearly"},
                {"name": "accuracy", "label": "Accuracy on labels", "stable": 0.979, "candidate": 0.976, "limit": 0.01,
                 "position": 0.5, "verdict": "too-few"},
            ],
            "observed": {str(candidate.pk): 3904, str(stable.pk): 11972},
        },
    )  # fmt: skip
    Rollout.objects.filter(pk=rollout.pk).update(created_at=now - dt.timedelta(minutes=15))
    for minutes, action, text, data in (
        (15, "start", "Started: version 4 is to replace version 3.", {}),
        (14, "step", "Moved to 10 %: every server has loaded version 4.", {"weight": 10}),
        (9, "step", "Moved to 25 %: 11 of 6,031 requests failed in 300 s.", {"weight": 25}),
    ):
        Decision.objects.create(
            rollout=rollout, at=now - dt.timedelta(minutes=minutes), action=action, text=text, data=data, actor=user
        )
        record(
            actor=user, action=f"rollout.{action}", target=rollout, project_id=endpoint.project_id, text=text, **data
        )
    return rollout


def make_monitoring(model: Model, job: Job) -> tuple[Policy, Alert]:
    """Two alerts, and a policy that fired once."""
    project = model.project
    alert = Alert.objects.create(
        project=project, key="errors:digits", title="digits: error share 2.4 % over 5 minutes",
        text="Version 3 answers, but 1 of 41 requests fails.", link="/endpoints/digits/",
    )  # fmt: skip
    Alert.objects.create(
        project=project, key="rollout:1", title="Rollout 1 held: not enough evidence", state=AlertState.ACKNOWLEDGED
    )
    policy = Policy.objects.create(model=model, name="nightly", cron="0 3 * * *")
    Firing.objects.create(policy=policy, key="cron:2026-11-25T03:00", cause="cron", job=job)
    return policy, alert


def build(project: Project, user: User) -> dict[str, Any]:
    """All of it, in one project."""
    jobs = make_jobs(project, user)
    model = Model.objects.create(
        project=project, name="digits", task="image-classification", description="Handwritten digits for the kiosk.",
        tags=["kiosk", "vision"], last_number=5, mlflow_name="digits",
    )  # fmt: skip
    for role, rows in (("training", 1257), ("evaluation", 540)):
        Dataset.objects.create(
            project=project, name=f"digits {role}", role=role, sha256=digest(role), size=rows * 260,
            file_name=f"{role}.parquet", uri="x", rows=rows,
        )  # fmt: skip
    versions = {number: make_version(model, number, user, jobs["succeeded"]) for number in (1, 2, 3, 4)}
    versions[4].datasets.set(Dataset.objects.filter(project=project))
    rejected = make_version(
        model, 5, user, state=VersionState.REJECTED, origin=Origin.UPLOAD, metrics={}, card="",
        reason="The file calls os.system when it is loaded (pickle opcode REDUCE at byte 41).",
    )  # fmt: skip
    Version.objects.filter(pk=versions[3].pk).update(approval=Approval.APPROVED, approved_by=user)
    Alias.objects.create(model=model, name="champion", version=versions[3], protected=True)
    Alias.objects.create(model=model, name="challenger", version=versions[4])
    model.stars.add(user)
    record(actor=user, action="version.approved", target=versions[3], project_id=project.pk, note="fits the kiosk")
    endpoint = make_endpoint(
        project, versions[3], versions[4], user, name=f"digits{'' if project.slug == 'vision' else '-' + project.slug}"
    )
    policy, alert = make_monitoring(model, jobs["cancelled"])
    chain_seal()
    return {
        "model": model, "versions": versions, "rejected": rejected, "endpoint": endpoint, "jobs": jobs,
        "rollout": endpoint.rollouts.first(), "policy": policy, "alert": alert,
    }  # fmt: skip
