"""Triton's Python backend over an ONNX model; copied into the model repository as `model.py`."""

from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as utils


class TritonPythonModel:
    """One session an instance."""

    def initialize(self, args):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = Path(args["model_repository"], args["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        answers = []
        for request in requests:
            x = utils.get_input_tensor_by_name(request, "x").as_numpy()
            (probabilities,) = self.session.run(["probabilities"], {"x": np.ascontiguousarray(x)})
            answers.append(utils.InferenceResponse([utils.Tensor("probabilities", probabilities)]))
        return answers
