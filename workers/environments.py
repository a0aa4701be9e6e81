"""Queue `export`: environments, prepared by jobs of their own and used by those that need them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.utils.translation import gettext_lazy as _
from pydantic import BaseModel

from engine.errors import EngineError
from engine.export import environment_store, environments
from engine.sandbox import Limits
from registry.environments import (
    environment_failed,
    environment_prepared,
    environment_request,
    environment_used,
    lock_of,
)
from registry.models import Environment, EnvironmentState, Version
from slipway import paths
from slipway.jobs.context import JobContext
from slipway.jobs.kinds import Done, Later, job_kind
from workers.common import sandboxed, scratch_folder, source_and_rows

PROVE_LIMITS = Limits(seconds=300, memory_mb=6144)
LOOK_S = 2.0


class PrepareParams(BaseModel):
    name: str
    version_id: int


@job_kind("prepare", queue="export", params=PrepareParams, label=_("Prepare environment"))
def prepare(job: JobContext, params: PrepareParams) -> Done:
    """Installs an environment from its lock, then has it load the version and predict: only that proves it."""
    version = Version.objects.select_related("model__project").get(pk=params.version_id)
    with scratch_folder(job) as scratch, prepared(job, params.name) as python:
        job.progress(0.7, "Installed.")
        with job.step("fetch"):
            inputs, dataset = source_and_rows(version, scratch)
        with job.step("prove"):
            proof = sandboxed(
                job,
                "engine.export.tasks:prove",
                params={"framework": version.framework, "target": dataset.target if dataset else "target"},
                inputs=inputs,
                scratch=scratch,
                limits=PROVE_LIMITS,
                python=python,
            ).value
            job.progress(1.0, f"It loads {version} and predicts {proof['rows']} rows.")
    return Done({"name": params.name, **proof})


def waits_for(name: str, version: Version) -> Later | None:
    """Where an environment is still to be prepared: the word to come again, its preparation being under way."""
    lock = lock_of(name)
    if environments.is_prepared(lock, paths.environments()):
        return None
    row = Environment.objects.filter(digest=environments.digest_of(lock)).first()
    if row is not None and row.state in (EnvironmentState.FAILED, EnvironmentState.READY):
        return None  # tried here again; or it is there on another machine
    job = environment_request(actor=None, version=version, name=name)
    return Later(LOOK_S, f"Waits for the environment {name} (job {job.pk}).")


@contextmanager
def prepared(job: JobContext, name: str) -> Iterator[Path]:
    """The interpreter of an environment, made if it is not there; nobody removes it meanwhile."""
    lock, root = lock_of(name), paths.environments()
    digest = environments.digest_of(lock)
    root.mkdir(parents=True, exist_ok=True)
    with environment_store.held(root, digest):
        with job.step("environment"):
            there, began = environments.is_prepared(lock, root), time.monotonic()
            try:
                python = environments.prepare(lock, root, on_line=job.log)
            except EngineError as error:
                environment_failed(name=name, digest=digest, reason=error.message)
                raise
            seconds = None if there else time.monotonic() - began
            size = environment_store.size_of(root / digest) if seconds is not None else None
            environment_prepared(name=name, digest=digest, size=size, seconds=seconds)
        environment_used(digest=digest)
        yield python
