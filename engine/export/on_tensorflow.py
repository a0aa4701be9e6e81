"""What exporters share that TensorFlow itself writes."""

from __future__ import annotations

from engine.export.base import Exporter
from engine.sentence import Sentence, say

NOT_KERAS = "%(format)s export of %(framework)s models is not available; Keras and TensorFlow models are."


class OnTensorFlow(Exporter):
    """From Keras and TensorFlow models, in TensorFlow's environment."""

    on_request = True

    def why_not(self, framework: str) -> Sentence | None:
        if framework in ("keras", "tensorflow"):
            return None
        return say(NOT_KERAS, format=self.label, framework=framework)

    def environment(self, framework: str) -> str | None:
        return "tensorflow"
