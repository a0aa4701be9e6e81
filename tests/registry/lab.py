"""A small model that answers its own evaluation rows rightly, in a real MLflow, and the work of its searches."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
import onnxruntime

from engine.formats import signature
from engine.scan import onnx_structure
from registry.mlflow import client
from registry.models import Artifact, Dataset, Model, Version
from registry.search_models import Search
from registry.signing import attest
from slipway.jobs.kernel import execute
from slipway.jobs.kinds import kind_of
from slipway.jobs.models import Job, State
from tests.e2e import small

MODEL = small.classifier(3, hidden=64)


def rows(
    count: int, seed: int = 1, columns: int = small.FEATURES, *, truth: bool = True, model: bytes = MODEL
) -> bytes:
    """An npz of rows whose class is what the model says."""
    x = np.random.default_rng(seed).normal(size=(count, columns)).astype(np.float32)
    arrays = {"X": x}
    if truth:
        session = onnxruntime.InferenceSession(model)
        fitting = x[:, : small.FEATURES] if columns >= small.FEATURES else np.zeros((count, small.FEATURES), np.float32)
        arrays["y"] = session.run(["label"], {"x": fitting})[0]
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def table(count: int, seed: int = 1, **columns: list[Any]) -> bytes:
    """A CSV of the same, with columns more that are no inputs of the model."""
    import pandas

    with np.load(io.BytesIO(rows(count, seed))) as arrays:
        frame = pandas.DataFrame({f"f{place}": values for place, values in enumerate(arrays["X"].T)})
        frame = frame.assign(**columns, target=arrays["y"])
    return frame.to_csv(index=False).encode()


def stored(content: bytes, name: str) -> dict[str, Any]:
    """The bytes in MLflow, as columns of a record."""
    sha256 = hashlib.sha256(content).hexdigest()
    answer = client.http().put(client.artifact_url(f"lab/{sha256}/{name}"), content=content, timeout=60)
    assert answer.status_code == 200, answer.text
    uri = f"mlflow-artifacts:/lab/{sha256}/{name}"
    return {"sha256": sha256, "size": len(content), "file_name": name, "uri": uri}


def artifact(model: Model, number: int = 1, content: bytes = MODEL) -> Artifact:
    """A ready version with the model, or another one, as its ONNX artifact."""
    Model.objects.filter(pk=model.pk).update(task="tabular-classification", last_number=number)
    model.refresh_from_db()
    version = Version.objects.create(model=model, number=number, state="ready", origin="upload", framework="onnx")
    named = {"format": "onnx", **stored(content, "model.onnx")}
    signed = {key: named[key] for key in ("format", "sha256", "size", "file_name")}
    described = signature.of_onnx(onnx_structure.parse(content))
    return Artifact.objects.create(
        version=version, verdict="clean", signature=described, attestation=attest(version, **signed), **named
    )


def dataset(version: Version, content: bytes, role: str = "evaluation", kind: str = "npz") -> Dataset:
    file = stored(content, f"{role}.{kind}")
    row = Dataset.objects.create(project=version.model.project, name=role, role=role, **file)
    row.versions.add(version)
    return row


def run(job: Job | None) -> Job:
    """One attempt, now."""
    assert job is not None
    Job.objects.filter(pk=job.pk, state=State.QUEUED).update(available_at="2020-01-01T00:00:00Z")
    execute(kind_of(job.kind), job.pk)
    return Job.objects.get(pk=job.pk)


def children(search: Search) -> list[Job]:
    return list(Job.objects.filter(parent=search.job_id, state=State.QUEUED).order_by("id"))


def finish(search: Search) -> Job:
    """What workers would do until the search has ended."""
    for _ in range(50):
        job = run(search.job)
        if not job.is_live:
            search.refresh_from_db()
            return job
        for child in children(search):
            run(child)
    raise AssertionError("the search does not end")
