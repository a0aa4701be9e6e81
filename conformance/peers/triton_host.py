"""Triton's core through nvidia-pytriton: `python -m conformance.peers.triton_host MODELS HTTP_PORT GRPC_PORT`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pytriton.exceptions import PyTritonInvalidOperationError
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from conformance.peers.onnx_models import found, session, tensors

DTYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": bytes,
}


def _function(path: Path, outputs: list[str]) -> Callable[[Any], Any]:
    opened = session(str(path))

    def infer(requests: Any) -> list[dict[str, np.ndarray]]:
        answers = []
        for request in requests:
            feeds = {
                name: np.array([v.decode() for v in array.ravel()], object).reshape(array.shape)
                if array.dtype.kind in "OS"
                else array
                for name, array in request.data.items()
            }
            answer = {}
            for name, array in zip(outputs, opened.run(outputs, feeds), strict=True):
                array = np.asarray(array)
                if array.dtype == object:
                    array = np.array([v.encode() for v in array.ravel()], object).reshape(array.shape)
                answer[name] = array
            answers.append(answer)
        return answers

    return infer


def _described(items: list[dict[str, Any]], optional: tuple[str, ...] = ()) -> list[Tensor]:
    return [
        Tensor(
            name=item["name"],
            dtype=DTYPES[item["datatype"]],
            shape=tuple(item["shape"]),
            optional=item["name"] in optional,
        )
        for item in items
    ]


def main(models: Path, http: int, grpc: int) -> None:
    """Bind every model that Triton takes and serve."""
    config = TritonConfig(http_port=http, grpc_port=grpc, metrics_port=http + 2, http_address="127.0.0.1")
    with Triton(config=config) as triton:
        for name, version, path in found(models):
            if name == "versions":
                continue  # pytriton does not come up with several versions of one model
            opened = session(str(path))
            outputs = [item for item in tensors(opened.get_outputs()) if item["shape"]]
            defaults = tensors(opened.get_overridable_initializers())
            inputs = [*tensors(opened.get_inputs()), *defaults]
            if not outputs or not all(item["shape"] for item in inputs):
                print(f"{name}: Triton's configuration has no tensors of rank 0", file=sys.stderr)
                continue
            try:
                triton.bind(
                    model_name=name,
                    infer_func=_function(path, [item["name"] for item in outputs]),
                    inputs=_described(inputs, ("extra", *(item["name"] for item in defaults))),
                    outputs=_described(outputs),
                    model_version=int(version),
                    config=ModelConfig(batching=False),
                    strict=False,
                )
            except (PyTritonInvalidOperationError, ValueError, TypeError) as error:
                print(f"{name}: {error}", file=sys.stderr)
        triton.serve()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
