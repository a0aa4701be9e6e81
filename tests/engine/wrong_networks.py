"""Run by the interpreter of a prepared environment: `wrong_networks.py REPOSITORY KIND SOURCE ROWS OUT [EXPORTER]`.

Exports with a converter that is wrong on purpose and prints the EngineError's message.

KIND: `torch` (an epsilon of its batch norm is another), `keras` (the bias of the layer `middle` is dropped).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, sys.argv[1])

from engine.errors import EngineError
from engine.export import tasks
from engine.export.base import exporter


def without_bias(convert: Any) -> Any:
    def wrong(model: Any, rows: Any, opset: Any) -> Any:
        bias = model.owner.get_layer("middle").bias
        kept = bias.numpy()
        bias.assign(kept * 0)
        made = convert(model, rows, opset)
        bias.assign(kept)
        return made

    return wrong


def with_another_epsilon(convert: Any) -> Any:
    def wrong(model: Any, rows: Any, opset: Any) -> Any:
        norm = next(each for each in model.module.modules() if "BatchNorm" in type(each).__name__)
        norm.eps = 0.5
        made = convert(model, rows, opset)
        norm.eps = 1e-5
        return made

    return wrong


def main(kind: str, source: str, rows: str, out: str, to: str = "onnx") -> None:
    if kind == "torch":
        from engine.export.to_onnx import pytorch as converter

        converter.convert = with_another_epsilon(converter.convert)
    else:
        import keras
        import numpy as np

        from engine.export.to_onnx import keras_model as converter

        layers = keras.layers
        hidden = [layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(16, "relu", name="before")]
        bias = keras.initializers.RandomNormal(0, 1)
        last = [layers.Dense(12, bias_initializer=bias, name="middle"), layers.ReLU(), layers.Dense(10, "softmax")]
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((8, 8, 1)), *hidden, *last])
        Path(source).mkdir()
        model.save(Path(source, "model.keras"))
        np.savez(rows, X=np.random.default_rng(0).random((50, 8, 8, 1), "float32"))
        converter.convert = without_bias(converter.convert)
    Path(out).mkdir()
    plugin = exporter(to)
    framework = "pytorch" if kind == "torch" else "keras"
    inputs = {"source": Path(source), "rows": Path(rows)}
    try:
        tasks.convert(plugin, plugin.Options(), {"framework": framework}, inputs, Path(out))
    except EngineError as error:
        print(error.message)


main(*sys.argv[2:])
