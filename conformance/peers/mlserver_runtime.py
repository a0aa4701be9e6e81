"""MLServer: a custom runtime over ONNX Runtime, and `python -m conformance.peers.mlserver_runtime MODELS OUT`, which
writes the folder for `mlserver start OUT`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse

from conformance.peers.onnx_models import DATATYPES, found, session, tensors


class OnnxModel(MLModel):
    """One ONNX model."""

    async def load(self) -> bool:
        """Open the session."""
        self._session = session(self.settings.parameters.uri)
        self._outputs = [node.name for node in self._session.get_outputs() if node.type in DATATYPES]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run the model on the request's inputs, with the requested outputs."""
        feeds = {}
        for item in payload.inputs:
            try:
                if item.datatype == "BYTES":
                    texts = StringCodec.decode_input(item)
                    feeds[item.name] = np.array(texts, dtype=object).reshape(item.shape)
                else:
                    feeds[item.name] = NumpyCodec.decode_input(item)
            except Exception as error:
                raise InferenceError(f"input {item.name}: {error}") from error
        names = [output.name for output in payload.outputs] if payload.outputs else self._outputs
        answers = []
        try:
            arrays = self._session.run(names, feeds)
        except Exception as error:
            raise InferenceError(str(error)) from error
        for name, array in zip(names, arrays, strict=True):
            if array.dtype == object:
                output = StringCodec.encode_output(name, array.ravel().tolist())
            else:
                output = NumpyCodec.encode_output(name, np.asarray(array))
            output.shape = list(np.shape(array))  # the codecs make [N] an [N,1]
            answers.append(output)
        return InferenceResponse(id=payload.id, model_name=self.name, model_version=self.version, outputs=answers)


def write(models: Path, out: Path, http: int, grpc: int) -> None:
    """A folder with settings for every model, in one process each its own session."""
    out.mkdir(parents=True, exist_ok=True)
    settings = {
        "http_port": http,
        "grpc_port": grpc,
        "metrics_port": http + 2,
        "parallel_workers": 0,
        "host": "127.0.0.1",
    }
    (out / "settings.json").write_text(json.dumps(settings))
    for name, version, path in found(models):
        opened = session(str(path))
        place = out / name / version
        place.mkdir(parents=True, exist_ok=True)
        model = {
            "name": name,
            "platform": "onnx_onnxv1",
            "implementation": "conformance.peers.mlserver_runtime.OnnxModel",
            "inputs": tensors(opened.get_inputs()),
            "outputs": tensors(opened.get_outputs()),
            "parameters": {"uri": str(path.resolve()), "version": version},
        }
        (place / "model-settings.json").write_text(json.dumps(model))


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
