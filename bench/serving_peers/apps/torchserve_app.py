"""TorchServe's handler over an ONNX model; rows in, probabilities out."""

from pathlib import Path

import numpy as np
import onnxruntime


class OnnxHandler:
    """One session a worker."""

    def initialize(self, context):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = Path(context.system_properties["model_dir"], "model.onnx")
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def handle(self, data, context):
        answers = []
        for row in data:
            body = row.get("body") or row.get("data")
            x = np.asarray(body["data"], np.float32)
            answers.append({"probabilities": self.session.run(["probabilities"], {"x": x})[0].tolist()})
        return answers
