"""The Celery application: one queue per kind of work, beat that only ticks."""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "slipway.settings")

app = Celery("slipway")
app.config_from_object("django.conf:settings", namespace="CELERY")
# A task is named `<queue>.<kind>`; the part before the dot is the queue.
app.conf.task_routes = {
    f"{queue}.*": {"queue": queue} for queue in ("export", "optimize", "retrain", "rollout", "monitor", "tick")
}
app.conf.imports = (
    "slipway.jobs.worker",
    "workers.export",
    "workers.optimize",
    "workers.rollout",
    "workers.monitor",
    "workers.retrain",
    "workers.ticks",
)
