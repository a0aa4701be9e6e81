"""Rows and quality as both peers get them. Runs in the peers' environments: numpy and onnxruntime alone."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

TARGET = "rating"
TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}


@dataclass(frozen=True)
class Call:
    """What a peer is asked for."""

    model: Path
    train: Path
    judge: Path
    target: Path
    most_seconds: int

    @classmethod
    def of_arguments(cls) -> Call:
        parser = argparse.ArgumentParser()
        for name in ("model", "train", "judge", "target"):
            parser.add_argument(name, type=Path)
        parser.add_argument("--most-seconds", type=int, default=180, help="of searching")
        return cls(**vars(parser.parse_args()))


def session(model: str | Path) -> onnxruntime.InferenceSession:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.log_severity_level = 4
    return onnxruntime.InferenceSession(str(model), settings, providers=["CPUExecutionProvider"])


def load(path: Path, running: onnxruntime.InferenceSession) -> tuple[dict[str, Any], Any]:
    """{input: rows} in the types and shapes that the model takes, and the truth."""
    inputs = running.get_inputs()
    with np.load(path) as stored:
        if "X" not in stored:
            return {each.name: stored[each.name].astype(TYPES[each.type]) for each in inputs}, stored[TARGET]
        x, y, (only,) = stored["X"], stored["y"], inputs
        shape = [len(x), *only.shape[1:]]
        return {only.name: x.astype(TYPES[only.type]).reshape(shape)}, y


def classes(model: str | Path) -> int | None:
    """How many the model knows; None when it gives a number for each row."""
    shape = session(model).get_outputs()[0].shape
    return int(shape[-1]) if len(shape) > 1 else None


def closeness(given: Any, truth: Any) -> float:
    """1 / RMSE."""
    return float(1 / np.sqrt(np.mean((given - truth) ** 2)))


def quality(model: str | Path, path: Path) -> float:
    """Accuracy, or 1 / RMSE for numbers: of both more is better, and a hundredth less of either is the promise."""
    running = session(model)
    feeds, truth = load(path, running)
    given = np.concatenate(
        [
            running.run(None, {name: rows[at : at + 256] for name, rows in feeds.items()})[0]
            for at in range(0, len(truth), 256)
        ]
    )
    if given.ndim == 1:
        return closeness(given, truth)
    return float(np.mean(given.argmax(1) == truth))
