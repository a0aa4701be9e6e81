"""Olive's search (`olive run` with a search strategy) for the fastest call that loses no more than 1 % of accuracy: its
quantization, with every parameter that it searches by default.

Runs in its environment; see `install.py` for arguments and answer.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

# Before olive is imported. Its own switch still sends one message; on a CI machine it sends none.
os.environ |= {"OLIVE_DISABLE_TELEMETRY": "1", "CI": "true"}

import numpy as np
from olive import run
from olive.data.registry import Registry
from olive.evaluator.accuracy import AccuracyBase
from peer_rows import Call, classes, closeness, load, quality, session

CALIBRATION_ROWS = 512
MOST_LOST = 0.01


@Registry.register_dataset("slipway_rows")
class BenchRows:
    """({input: row}, truth) of the first rows of a file."""

    def __init__(self, model: str, file: str, most: int | None, **_: Any) -> None:
        self.feeds, truth = load(Path(file), session(model))
        self.truth = truth[:most]

    def __len__(self) -> int:
        return len(self.truth)

    def __getitem__(self, index: int) -> tuple[dict[str, Any], Any]:
        return {name: values[index] for name, values in self.feeds.items()}, self.truth[index]


class Closeness(AccuracyBase):
    """1 / RMSE, in the place of a metric that nothing here needs: in 0.13 a run with an own ("custom") metric stops
    while it writes down the configuration, and a name of its own is not taken."""

    name = "f1_score"

    @classmethod
    def _default_config(cls) -> dict[str, Any]:
        return {}

    def measure(self, model_output: Any, target: Any) -> float:
        return closeness(np.asarray(model_output.preds), np.asarray(target))


def rows(name: str, model: Path, file: Path, most: int | None, batch: int) -> dict[str, Any]:
    """Olive's description of a file's first rows."""
    post = "skip_post_process" if classes(model) is None else "text_classification_post_process"
    return {
        "name": name,
        "load_dataset_config": {
            "type": "slipway_rows",
            "params": {"model": str(model), "file": str(file), "most": most},
        },
        "post_process_data_config": {"type": post},
        "pre_process_data_config": {"type": "skip_pre_process"},
        "dataloader_config": {"type": "default_dataloader", "params": {"batch_size": batch}},
    }


def plan(call: Call, folder: Path) -> dict[str, Any]:
    """What `olive run` takes as a file."""
    count = classes(call.model)
    metric: dict[str, Any] = {"name": "accuracy_score", "metric_config": {"task": "multiclass", "num_classes": count}}
    if count is None:
        metric = {"name": Closeness.name}
    # Of what meets both goals, the first by priority is chosen: the fastest.
    metrics = [
        {
            "name": "quality",
            "type": "accuracy",
            "data_config": "judge",
            "sub_types": [
                {
                    **metric,
                    "priority": 2,
                    "goal": {"type": "max-degradation", "value": MOST_LOST * quality(call.model, call.judge)},
                }
            ],
        },
        {
            "name": "latency",
            "type": "latency",
            "data_config": "calibration",
            "sub_types": [{"name": "p50", "priority": 1, "goal": {"type": "percent-min-improvement", "value": 1}}],
            "user_config": {"inference_settings": {"onnx": {"session_options": {"intra_op_num_threads": 1}}}},
        },
    ]
    accelerator = {"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}
    return {
        "input_model": {"type": "OnnxModel", "model_path": str(call.model)},
        "systems": {"here": {"type": "LocalSystem", "accelerators": [accelerator]}},
        "data_configs": [
            rows("calibration", call.model, call.train, CALIBRATION_ROWS, 1),
            rows("judge", call.model, call.judge, None, 256),
        ],
        "evaluators": {"judge": {"type": "OnnxEvaluator", "metrics": metrics}},
        # One pass: 0.13 fails each try whose first pass it finds in its cache ("FootprintNode has no field").
        "passes": {"quantize": {"type": "OnnxQuantization", "data_config": "calibration"}},
        "search_strategy": {
            "execution_order": "joint",
            "sampler": "tpe",
            "max_iter": 100,
            "max_time": call.most_seconds,
            "sampler_config": {"seed": 0},
        },
        "evaluator": "judge",
        "host": "here",
        "target": "here",
        "cache_dir": str(folder / "cache"),
        "output_dir": str(folder / "out"),
        "log_severity_level": 3,
    }


def main() -> None:
    call = Call.of_arguments()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = run(plan(call, Path(folder)))
        best = found.get_best_candidate() if found.has_output_model() else None
        if best is not None:
            shutil.copy(best.model_path, call.target)
        answer = {
            "seconds": time.perf_counter() - began,
            "tried": len(found.footprint.nodes) - 1,
            "chosen": best and best.metrics_value,
            "quality": best and quality(call.target, call.judge),
            "quality_before": quality(call.model, call.judge),
        }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
