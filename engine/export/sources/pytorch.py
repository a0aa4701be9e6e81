"""Models of PyTorch as `mlflow.pytorch` stores them: programs (.pt2), TorchScript, and pickled modules."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from engine.errors import EngineError
from engine.evaluate import outputs
from engine.evaluate.outputs import Outputs
from engine.evaluate.rows import Rows
from engine.formats import signature
from engine.formats.signature import Signature, Tensor
from engine.scan import mlmodel
from engine.scan.torch_zip import SUFFIXES

_BATCH = 256


@dataclass(frozen=True, slots=True)
class TorchModel:
    """module: what is called, on the CPU and for inference. kind: how it was stored. program: the
    torch.export.ExportedProgram of a .pt2. signature: of MLmodel, both sides empty where it has none.
    batch: rows of every call where the program takes no other number, else None."""

    module: Any
    kind: Literal["module", "script", "program"]
    program: Any | None
    signature: Signature
    batch: int | None


class PytorchSource:
    """Modules, TorchScript and exported programs."""

    name = "pytorch"
    label = "PyTorch"
    environment: str | None = "torch"

    class Options(BaseModel):
        """None."""

    def load(self, folder: Path) -> TorchModel:
        """The model of an MLflow folder. Unpickling runs foreign code: sandbox only.

        EngineError(field="file") for weights without a model, or a class whose code is not here."""
        data = mlmodel.read_yaml(folder / "MLmodel", "MLmodel")
        described = signature.of_mlflow(data.get("signature"))
        return load_file(model_file(mlmodel.model_path(folder, data)), described)

    def predictions(self, model: TorchModel, rows: Rows) -> Outputs:
        """Scores float64 (n, k): the numbers the model gives, as they are (mostly logits)."""
        return outputs_of(model.module, inputs_of(model, rows), model.batch)

    def class_labels(self, model: TorchModel) -> list[Any] | None:
        """None: a module does not know its classes' names."""
        return None


def model_file(data: Path) -> Path:
    """The one model file below `data`, the folder or file that MLmodel names; only under a name that the scan
    takes for PyTorch's."""
    candidates = [data] if data.is_file() else sorted(data.iterdir())
    found = [each for each in candidates if each.suffix.lower() in SUFFIXES]
    if len(found) != 1:
        raise _wrong(f"The model has {len(found)} files of PyTorch instead of one.", code="mlmodel")
    return found[0]


def load_file(path: Path, described: Signature) -> TorchModel:
    """A .pt2, TorchScript or pickled file; told apart by what is inside."""
    import zipfile

    import torch

    if not zipfile.is_zipfile(path):
        raise _wrong("The model file is no archive of PyTorch 1.6 or newer: save it again with torch.save.")
    with zipfile.ZipFile(path) as archive:
        parts = {name.partition("/")[2] for name in archive.namelist()}
    if path.suffix.lower() == ".pt2":
        program = torch.export.load(str(path))
        return TorchModel(program.module(), "program", program, described, _fixed_batch(program))
    if "constants.pkl" in parts:
        # Not torch.load, which would come here too: this reader knows nothing but TorchScript.
        script = torch.jit.load(str(path), map_location="cpu")
        return TorchModel(script.eval(), "script", None, described, None)
    module = _unpickled(path)
    if isinstance(module, torch.nn.Module):
        return TorchModel(module.eval(), "module", None, described, None)
    raise _wrong(
        "The file holds weights but no model: log the whole model with mlflow.pytorch.log_model."
        if isinstance(module, dict)
        else f"The file holds a {type(module).__name__[:60]} instead of a PyTorch module."
    )


def _unpickled(path: Path) -> Any:
    """EngineError naming the class or package whose code is not here."""
    import torch

    advice = "log the model with serialization_format='pt2', which needs no code."
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except ModuleNotFoundError as error:
        raise _wrong(
            f"The model's class needs the module {str(error.name)[:60]}, which is not here: {advice}"
        ) from error
    except AttributeError as error:
        # The text names a file of ours: "Can't get attribute 'Net' on <module '__main__' from …>".
        missing = re.search(r"attribute '([\w.]{1,60})'", str(error))
        name = f" {missing.group(1)}" if missing else ""
        raise _wrong(f"The code of the model's class{name} is not here: {advice}") from error


def _fixed_batch(program: Any) -> int | None:
    """The first axis of a program that was exported from one example of one row is not free."""
    users = set(program.graph_signature.user_inputs)
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in users:
            shape: Any = getattr(node.meta.get("val"), "shape", ())
            return shape[0] if len(shape) and isinstance(shape[0], int) else None
    return None


def input_signature(model: TorchModel, columns: int) -> list[Tensor]:
    """What the module's forward takes, in order. Columns of a table go in as one matrix, as MLflow feeds them."""
    inputs = model.signature["inputs"]
    if not inputs or all(len(each["shape"]) == 1 for each in inputs):
        return [signature.tensor("input", "FP32", [-1, columns])]
    return inputs


def inputs_of(model: TorchModel, rows: Rows) -> dict[str, Any]:
    """{input: array (n, ...)} in the order of forward's arguments. EngineError(field="rows") when they do not fit."""
    described: Signature = {"inputs": input_signature(model, len(rows.columns)), "outputs": []}
    if len(described["inputs"]) == 1 and rows.matrix is None:
        raise EngineError("PyTorch models take numbers, and a column of the rows has texts.", field="rows", code="rows")
    return outputs.feeds(described, rows)


def outputs_of(module: Any, arrays: dict[str, Any], fixed: int | None = None) -> Outputs:
    """What `module` says of all rows, in batches; a fixed batch is filled up with its last row."""
    import numpy as np
    import torch

    count = len(next(iter(arrays.values())))
    size = fixed or _BATCH
    parts: list[list[Any]] = []
    with torch.inference_mode():
        for start in range(0, count, size):
            part = [values[start : start + size] for values in arrays.values()]
            used = len(part[0])
            if fixed and used < fixed:
                part = [np.concatenate([each, np.repeat(each[-1:], fixed - used, axis=0)]) for each in part]
            given = module(*(torch.from_numpy(np.ascontiguousarray(each)) for each in part))
            # numpy has no bfloat16.
            made = [each.float() if each.dtype == torch.bfloat16 else each for each in tensors(given)]
            parts.append([each.numpy()[:used] for each in made])
    return outputs.of_arrays([np.concatenate(each) for each in zip(*parts, strict=True)])


def tensors(given: Any) -> list[Any]:
    """The tensors in what a module returns: itself, or those of a tuple, list or dict in order."""
    import torch

    if isinstance(given, torch.Tensor):
        return [given.detach()]
    if isinstance(given, dict):
        given = list(given.values())
    if not isinstance(given, list | tuple):
        return []
    return [each for part in given for each in tensors(part)]


def example_of(model: TorchModel, rows: Rows) -> dict[str, Any]:
    """{input: tensor} of two rows to trace with, because torch takes one row for a constant; or of a fixed batch."""
    import numpy as np
    import torch

    arrays = inputs_of(model, rows.head(model.batch or 2))
    wanted = model.batch or 2
    return {
        name: torch.from_numpy(np.ascontiguousarray(np.resize(values, (wanted, *values.shape[1:]))))
        for name, values in arrays.items()
    }


def _wrong(message: str, code: str = "environment") -> EngineError:
    return EngineError(message, field="file", code=code)
