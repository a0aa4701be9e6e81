"""Queue `export`: environments, prepared by jobs of their own and used by those that need them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.utils.translation import gettext_lazy as _
from pydantic import BaseModel

from engine.errors import EngineError
from engine.export import environment_store, environments, resolve
from engine.export.installing import Tools
from engine.sandbox import Limits
from registry.environments import environment_failed, environment_prepared, environment_request, environment_used
from registry.models import Environment, EnvironmentOrigin, EnvironmentState, Resolution, Version
from registry.packages import Plan, lock_of, lock_resolved, lock_unresolved, plan_for, python_words
from slipway import paths
from slipway.environment import environment
from slipway.jobs.context import JobContext
from slipway.jobs.kernel import job_of
from slipway.jobs.kinds import Done, Later, job_kind
from workers.common import sandboxed, scratch_folder, source_and_rows

PROVE_LIMITS = Limits(seconds=300, memory_mb=6144)
LOOK_S = 2.0


class PrepareParams(BaseModel):
    name: str
    version_id: int


@job_kind("prepare", queue="export", params=PrepareParams, label=_("Prepare environment"))
def prepare(job: JobContext, params: PrepareParams) -> Done:
    """Resolves what the version asks for where no kit has it, installs the lock, then has the environment load the
    version and predict: only that proves it."""
    version = Version.objects.select_related("model__project").get(pk=params.version_id)
    plan = plan_for(version, params.name)
    if other := python_words(version):
        job.log(other, level="warning")
    with scratch_folder(job) as scratch, prepared(job, plan) as python:
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
    return Done({"name": params.name, "origin": plan.origin, **proof})


def waits_for(plan: Plan, version: Version) -> Later | None:
    """Where an environment is still to be prepared: the word to come again, its preparation being under way."""
    if plan.origin == EnvironmentOrigin.WORKER:
        return None
    if plan.lock is None:
        tried = Resolution.objects.filter(wanted=plan.wanted).exclude(reason="").exists()
    else:
        if (paths.environments() / plan.digest / "bin" / "python").exists():
            return None
        row = Environment.objects.filter(digest=plan.digest).first()
        tried = row is not None and row.state in (EnvironmentState.FAILED, EnvironmentState.READY)
    if tried:
        return None  # tried here again; or it is there on another machine
    job = environment_request(actor=None, version=version, name=plan.name)
    return Later(LOOK_S, f"Waits for the environment {plan.name} (job {job.pk}).")


@contextmanager
def prepared(job: JobContext, plan: Plan) -> Iterator[Path | None]:
    """The interpreter of an environment, made if it is not there; nobody removes it meanwhile. None where the worker's
    own packages do."""
    if plan.origin == EnvironmentOrigin.WORKER:
        job.log("The worker's own packages do.")
        yield None
        return
    tools = Tools(environment.installer, environment.build_packages)
    if plan.lock is None:
        plan = _resolved(job, plan, tools)
    root = paths.environments()
    root.mkdir(parents=True, exist_ok=True)
    with environment_store.held(root, plan.digest):
        with job.step("environment"):
            lock = _file_of(plan, root)
            there, began = environments.is_prepared(lock, root), time.monotonic()
            try:
                python = environments.prepare(lock, root, on_line=job.log, tools=tools)
            except EngineError as error:
                environment_failed(plan=plan, reason=error.message)
                raise
            seconds = None if there else time.monotonic() - began
            size = environment_store.size_of(root / plan.digest) if seconds is not None else None
            environment_prepared(plan=plan, size=size, seconds=seconds)
        environment_used(digest=plan.digest)
        yield python


def _resolved(job: JobContext, plan: Plan, tools: Tools) -> Plan:
    """The plan with a lock."""
    with job.step("resolve"):
        job.log(f"The kit {plan.name} does not have {', '.join(plan.unmet)}: resolving the version's own packages.")
        try:
            lock = resolve.resolve(plan.requirements, tools, job.log)
        except EngineError as error:
            lock_unresolved(plan=plan, reason=error.message)
            raise
        return lock_resolved(plan=plan, lock=lock, job=job_of(job.id))


def _file_of(plan: Plan, root: Path) -> Path:
    if plan.origin == EnvironmentOrigin.OWN:
        return environments.written(plan.lock or "", plan.name, root)
    return lock_of(plan.name)
