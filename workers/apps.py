import importlib

from django.apps import AppConfig


class WorkersConfig(AppConfig):
    name = "workers"

    def ready(self) -> None:
        # Every process knows every kind of job: the web submits what the workers do.
        for module in ("environments", "export", "optimize", "lab", "trials", "rollout", "monitor", "retrain", "ticks"):
            importlib.import_module(f"workers.{module}")
