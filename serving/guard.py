"""Ends a run that holds up the event loop: a model that is quick as a rule may still take for ever on some input."""

from __future__ import annotations

import threading
import time

import onnxruntime as ort

from serving.model import Model

# What was believed to take microseconds may take this long; while it does, nobody else is answered.
LIMIT_S = 5.0


class Guard(threading.Thread):
    """`inside` is what runs in the event loop now: since when, and which model."""

    def __init__(self) -> None:
        super().__init__(name="guard", daemon=True)
        self.inside: tuple[float, Model] | None = None

    def run(self) -> None:
        """Look every second; for ever."""
        while True:
            time.sleep(1)
            inside = self.inside
            if inside is not None and time.perf_counter() - inside[0] > LIMIT_S:
                end_runs(inside[1])


def end_runs(model: Model) -> None:
    """End a model's runs at their next node; from now on it runs off the event loop."""
    model.inline_elements = 0
    # New runs must not be ended with those.
    former, model.options = model.options, ort.RunOptions()
    former.terminate = True
