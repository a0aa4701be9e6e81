"""The limit of a model: `InferenceSession.run` in a loop, nothing else. Prints the calls made.

It says it is ready, waits for a line of input, and runs for the given time: so several begin together.

    python raw.py MODEL_FILE SAMPLE_FILE SECONDS
"""

from __future__ import annotations

import sys
import time

import numpy as np
import onnxruntime as ort


def main() -> None:
    model, sample, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feeds = {"x": np.load(sample)}
    session.run(None, feeds)
    print("ready", flush=True)
    sys.stdin.readline()
    calls = 0
    began = time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds:
        # The clock is read once for ten calls of a small model.
        for _ in range(10):
            session.run(None, feeds)
        calls += 10
    print(calls / spent, flush=True)


if __name__ == "__main__":
    main()
