"""A Celery worker's start and end: who it is, and how its jobs go back when it is told to stop."""

from __future__ import annotations

import os
from typing import Any

from celery.signals import worker_init, worker_shutting_down

from slipway.jobs.kernel import worker_prefix
from slipway.jobs.services import workers_release


@worker_init.connect
def _name_worker(**kwargs: Any) -> None:
    # Inherited by the prefork children, so that their claims carry the main process's id.
    os.environ["SLIPWAY_WORKER_MAIN"] = str(os.getpid())


@worker_shutting_down.connect
def _release_jobs(**kwargs: Any) -> None:
    workers_release(worker_prefix())
