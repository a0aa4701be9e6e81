"""TorchServe's way into the model of this archive: tensors as the Open Inference Protocol V2 writes them in JSON.

Request: {"id": optional, "inputs": [{"name", "datatype", "shape", "data"}, ...]}, data flat or nested.
Answer: {"model_name", "id", "outputs": [{"name", "datatype", "shape", "data": flat}, ...]}. A wrong request is
answered with status 400 and {"error"}. Needs nothing but torch, imported where it is used, so that listing this
package does not; TorchServe expects exactly one class here.
"""

import json
import math
from pathlib import Path
from typing import Any

_TYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
}
_NAMES = {f"torch.{kind}": name for name, kind in _TYPES.items()}


class SlipwayHandler:
    """One TorchScript model, run once for all requests that TorchServe collected."""

    def initialize(self, context: Any) -> None:
        """Loads what the archive's manifest names, on the GPU that TorchServe gave or the CPU."""
        import torch

        given = context.system_properties
        folder, gpu = Path(given["model_dir"]), given.get("gpu_id")
        usable = gpu is not None and torch.cuda.is_available()
        self.device = torch.device(f"cuda:{gpu}" if usable else "cpu")
        self.name = context.manifest["model"]["modelName"]
        path = folder / context.manifest["model"]["serializedFile"]
        self.module = torch.jit.load(str(path), map_location=self.device).eval()
        self.signature = json.loads((folder / "signature.json").read_text())

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[Any]:
        """An answer for each request of `data`, in order."""
        answers: list[Any] = [None] * len(data)
        good: list[Any] = []
        for index, request in enumerate(data):
            try:
                body = self._body(request)
                good.append((index, body, self._arguments(body)))
            except (ValueError, TypeError, KeyError, RuntimeError) as error:
                answers[index] = self._refuse(error, index, context)
        for group in self._groups(good):
            try:
                for (index, body, _), outputs in zip(group, self._run([each[2] for each in group]), strict=True):
                    answers[index] = {"model_name": self.name, "id": body.get("id", ""), "outputs": outputs}
            except RuntimeError as error:
                for index, _, _ in group:
                    answers[index] = self._refuse(error, index, context)
        return answers

    def _body(self, request: dict[str, Any]) -> dict[str, Any]:
        body = request.get("body", request.get("data"))
        if isinstance(body, bytes | bytearray | str):
            body = json.loads(body)
        if not isinstance(body, dict) or not isinstance(body.get("inputs"), list):
            raise ValueError("The request needs a list `inputs`.")
        return body

    def _arguments(self, body: dict[str, Any]) -> list[Any]:
        import torch

        given = {each["name"]: each for each in body["inputs"]}
        found = []
        for wanted in self.signature["inputs"]:
            name, shape = wanted["name"], wanted["shape"]
            if name not in given:
                raise ValueError(f"The input {name} is missing.")
            if given[name].get("datatype", wanted["datatype"]) != wanted["datatype"]:
                raise ValueError(f"The input {name} must be {wanted['datatype']}.")
            tensor = torch.tensor(given[name]["data"], dtype=getattr(torch, _TYPES[wanted["datatype"]]))
            sizes = list(given[name].get("shape", tensor.shape))
            if len(sizes) != len(shape) or any(b not in (-1, a) for a, b in zip(sizes, shape, strict=True)):
                raise ValueError(f"The input {name} must have the shape {shape}.")
            if math.prod(sizes) != tensor.numel():
                raise ValueError(f"The input {name} has {tensor.numel()} values and the shape {sizes}.")
            found.append(tensor.reshape(sizes))
        if len({len(each) for each in found}) != 1:
            raise ValueError("The inputs have different numbers of rows.")
        return found

    def _groups(self, good: list[Any]) -> list[list[Any]]:
        """Requests whose tensors differ in nothing but the rows go through the model together."""
        groups: dict[Any, list[Any]] = {}
        for each in good:
            groups.setdefault(tuple(tuple(tensor.shape[1:]) for tensor in each[2]), []).append(each)
        return list(groups.values())

    def _run(self, requests: list[list[Any]]) -> list[list[dict[str, Any]]]:
        import torch

        rows = [len(arguments[0]) for arguments in requests]
        together = [torch.cat(parts).to(self.device) for parts in zip(*requests, strict=True)]
        with torch.inference_mode():
            made = self._tensors(self.module(*together))
        parts = zip(*(each.cpu().split(rows) for each in made), strict=True)
        names = [each["name"] for each in self.signature["outputs"]]
        return [[self._described(name, each) for name, each in zip(names, part, strict=True)] for part in parts]

    def _tensors(self, made: Any) -> list[Any]:
        import torch

        if isinstance(made, torch.Tensor):
            return [made]
        return [each for part in (made.values() if isinstance(made, dict) else made) for each in self._tensors(part)]

    def _described(self, name: str, tensor: Any) -> dict[str, Any]:
        if str(tensor.dtype) not in _NAMES:
            tensor = tensor.float()
        shape, data = list(tensor.shape), tensor.reshape(-1).tolist()
        return {"name": name, "datatype": _NAMES[str(tensor.dtype)], "shape": shape, "data": data}

    def _refuse(self, error: Exception, index: int, context: Any) -> dict[str, str]:
        message = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        context.set_response_status(code=400, phrase="Bad Request", idx=index)
        return {"error": message}
