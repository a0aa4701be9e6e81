"""What exporters share that PyTorch itself writes."""

from __future__ import annotations

from typing import Any

from engine.errors import EngineError
from engine.evaluate.rows import Rows
from engine.export.base import Exporter
from engine.formats import signature
from engine.formats.signature import Signature
from engine.sentence import Sentence, say

NOT_TORCH = "%(format)s is a format of PyTorch, and this is a model of %(framework)s."
NOTE = "signature.json"  # an extra file inside the archive: PyTorch's files do not know their own input's shape


class OnTorch(Exporter):
    """From PyTorch models, in PyTorch's environment."""

    on_request = True

    def why_not(self, framework: str) -> Sentence | None:
        if framework == "pytorch":
            return None
        return say(NOT_TORCH, format=self.label, framework=framework)

    def environment(self, framework: str) -> str | None:
        return "torch"


def free_batch(model: Any) -> None:
    """EngineError(code="unsupported") for a TorchModel whose program takes one number of rows only."""
    if model.batch:
        raise cannot(
            f"The program takes {model.batch} row{'s' * (model.batch > 1)} at a time: log it with an input example of "
            "two or more rows, which leaves its batch free."
        )


def described(model: Any, made: Any, example: dict[str, Any], rows: Rows) -> Signature:
    """Inputs as the TorchModel's signature has them; outputs as `made` gives them for the example, under the
    signature's names where their count is right."""
    import torch

    from engine.export.sources.pytorch import input_signature, tensors

    with torch.inference_mode():
        given = tensors(made(*example.values()))
    names = [each["name"] for each in model.signature["outputs"]]
    if len(names) != len(given):
        names = [f"output_{index}" for index in range(len(given))]
    outputs = [
        signature.tensor(name, _datatype(each), [-1, *each.shape[1:]]) for name, each in zip(names, given, strict=True)
    ]
    return {"inputs": input_signature(model, len(rows.columns)), "outputs": outputs}


def one_row(loaded: Any, example: dict[str, Any], what: str) -> None:
    """EngineError(code="unsupported") when what was made of two rows does not take one."""
    import torch

    with torch.inference_mode():
        try:
            loaded(*(each[:1] for each in example.values()))
        except (RuntimeError, AssertionError) as error:
            raise cannot(f"The {what} works for two rows and not for one: its batch is not free.") from error


def cannot(message: str) -> EngineError:
    return EngineError(message, field="exporter", code="unsupported")


def _datatype(tensor: Any) -> str:
    name = str(tensor.dtype).rpartition(".")[2]
    return "FP32" if name == "bfloat16" else signature.of_numpy(name)
