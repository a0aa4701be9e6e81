"""What exporters share that TensorFlow itself writes."""

from __future__ import annotations

from engine.export.base import Exporter


class OnTensorFlow(Exporter):
    """From Keras and TensorFlow models, in TensorFlow's environment."""

    on_request = True

    def why_not(self, framework: str) -> str | None:
        if framework in ("keras", "tensorflow"):
            return None
        return f"{self.label} export of {framework} models is not available; Keras and TensorFlow models are."

    def environment(self, framework: str) -> str | None:
        return "tensorflow"
