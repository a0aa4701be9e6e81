"""LitServe over an ONNX model: `python litserve_app.py MODEL PORT WORKERS`, rows in, probabilities out."""

import sys

import litserve
import numpy as np
import onnxruntime


class Classifier(litserve.LitAPI):
    """One session a worker."""

    def setup(self, device):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])

    def decode_request(self, request):
        return np.asarray(request["data"], np.float32)

    def predict(self, x):
        return self.session.run(["probabilities"], {"x": x})[0]

    def encode_response(self, output):
        return {"probabilities": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(Classifier(), accelerator="cpu", workers_per_device=int(sys.argv[3]), timeout=60)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", generate_client_file=False)
