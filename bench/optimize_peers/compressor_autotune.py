"""onnx-neural-compressor's autotune: static int8, then dynamic int8, until one loses no more than 1 %.

Runs in its environment; see `install.py` for arguments and answer.
"""

from __future__ import annotations

import json
import time
from typing import Any

import onnx
from onnx_neural_compressor import data_reader
from onnx_neural_compressor.quantization import QuantFormat, config, tuning
from peer_rows import Call, load, quality, session

CALIBRATION_ROWS = 512
BATCH = 32


class Reader(data_reader.CalibrationDataReader):
    """The first rows of the training data, in batches."""

    def __init__(self, call: Call) -> None:
        feeds, _ = load(call.train, session(call.model))
        self.batches = [
            {name: rows[at : at + BATCH] for name, rows in feeds.items()} for at in range(0, CALIBRATION_ROWS, BATCH)
        ]
        self.rewind()

    def get_next(self) -> dict[str, Any] | None:
        return next(self.left, None)

    def rewind(self) -> None:
        self.left = iter(self.batches)


def main() -> None:
    call = Call.of_arguments()
    began = time.perf_counter()
    found: list[float] = []

    def judged(model: str) -> float:
        found.append(quality(model, call.judge))
        return found[-1]

    kinds = [config.StaticQuantConfig.get_config_set_for_tuning(quant_format=each) for each in QuantFormat]
    kinds.append(config.DynamicQuantConfig.get_config_set_for_tuning())
    sets = [each for kind in kinds for each in (kind if isinstance(kind, list) else [kind])]
    tune = tuning.TuningConfig(config_set=sets)
    try:
        best = tuning.autotune(str(call.model), tune, judged, calibration_data_reader=Reader(call))
    except SystemExit:
        # Its way to say that no configuration was good enough.
        best = None
    if best is not None:
        onnx.save(best, str(call.target))
    operators = sorted({node.op_type for node in best.graph.node}) if best is not None else None
    answer = {
        "seconds": time.perf_counter() - began,
        "tried": len(found) - 1,
        "chosen": operators,
        "quality": found[-1] if best is not None else None,
        "quality_before": found[0],
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
