"""Run as a program by the interpreter of the prepared environment: `tensorflow_files.py ROWS.npz FOLDER`.

Trains small networks on digits (float32 [n, 8, 8, 1] in 0..1) for a moment and stores them under FOLDER; the files and
the text of MLmodel are those of mlflow 3.17.2's `mlflow.keras` and `mlflow.tensorflow`, which is not installed there.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

SIGNATURE = """signature:
  inputs: '[{{"type": "tensor", "tensor-spec": {{"dtype": "float32", "shape": [-1, 8,
    8, 1]}}}}]'
  outputs: '{outputs}'
  params: null
"""
SCORES = '[{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 10]}}]'
NAMED = (
    '[{"name": "probabilities", "type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 10]}}, '
    '{"name": "label", "type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}]'
)
FLAVORS = {
    "keras": ["data: data", "keras_backend: tensorflow", "keras_version: 3.15.1", "save_exported_model: {exported}"],
    "tensorflow-keras": ["code: null", "data: data", "keras_version: 2.21.0", "model_type: keras", "save_format: tf"],
    "tensorflow": ["code: null", "model_type: tf2-module", "saved_model_dir: tf2model"],
}


def mlmodel(folder: Path, flavor: str, outputs: str = SCORES, exported: str = "false") -> Path:
    """The folder of a model with its MLmodel; returns where its files go."""
    files = folder / ("tf2model" if flavor == "tensorflow" else "data")
    folder.mkdir()
    name = flavor.split("-")[0]
    text = f"flavors:\n  {name}:\n" + "".join(f"    {each.format(exported=exported)}\n" for each in FLAVORS[flavor])
    text += f"  python_function:\n    loader_module: mlflow.{name}\n" + SIGNATURE.format(outputs=outputs)
    (folder / "MLmodel").write_text(text)
    if flavor != "tensorflow":
        files.mkdir()
        (files / "keras_module.txt").write_text("keras")
    return files


def network(x: Any, y: Any) -> Any:
    """A functional CNN with named tensors."""
    image = keras.Input((8, 8, 1), name="image")
    hidden = keras.layers.Conv2D(8, 3, activation="relu")(image)
    hidden = keras.layers.Flatten()(keras.layers.MaxPooling2D()(hidden))
    hidden = keras.layers.Dropout(0.1)(hidden)
    model = keras.Model(image, keras.layers.Dense(10, activation="softmax", name="digit")(hidden))
    return trained(model, x, y)


def sequence(x: Any, y: Any) -> Any:
    """A sequential CNN with statistics of its own."""
    layers = [keras.Input((8, 8, 1)), keras.layers.Conv2D(8, 3, activation="relu"), keras.layers.BatchNormalization()]
    return trained(keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(10, "softmax")]), x, y)


def trained(model: Any, x: Any, y: Any) -> Any:
    # A metric given as a function is stored by its name.
    model.compile("adam", "sparse_categorical_crossentropy", metrics=[keras.metrics.sparse_categorical_accuracy])
    model.fit(x, y, epochs=4, verbose=0)
    return model


def pair() -> Any:
    """Two inputs of one number each, as a mapping."""
    size, age = keras.Input((1,), name="size"), keras.Input((1,), name="age")
    joined = keras.layers.Concatenate()([size, age])
    return keras.Model({"size": size, "age": age}, keras.layers.Dense(1, name="price")(joined))


def recurrent() -> dict[str, Any]:
    """Eight steps of eight numbers, through layers with loops; one with too many steps; and texts."""
    layers = keras.layers
    rows = layers.Reshape((8, 8))
    both = [layers.Bidirectional(layers.LSTM(4, return_sequences=True)), layers.GRU(4)]
    words = layers.TextVectorization(max_tokens=9, output_sequence_length=3)
    words.adapt(["good film", "bad film"])
    ends = [layers.Embedding(9, 4), layers.GlobalAveragePooling1D(), layers.Dense(2)]
    return {
        "lstm": keras.Sequential([keras.Input((8, 8, 1)), rows, layers.LSTM(6), layers.Dense(10)]),
        "both": keras.Sequential([keras.Input((8, 8, 1)), layers.Reshape((8, 8)), *both, layers.Dense(10)]),
        "long": keras.Sequential(
            [keras.Input((8, 8, 1)), layers.Reshape((64, 1)), layers.UpSampling1D(9), layers.GRU(2)]
        ),
        "words": keras.Sequential([keras.Input((), dtype="string", name="text"), words, *ends]),
    }


class Linear(tf.Module):
    """Two outputs, an open height and width: [n, None, None, 1] to probabilities and a label."""

    def __init__(self) -> None:
        self.weights = tf.Variable(np.random.default_rng(0).normal(size=(64, 10)).astype("float32"))

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 1], tf.float32, name="image")])
    def __call__(self, image: Any) -> dict[str, Any]:
        scores = tf.matmul(tf.reshape(image, [-1, 64]), self.weights)
        return {"probabilities": tf.nn.softmax(scores), "label": tf.argmax(scores, 1)}


class Calling(tf.Module):
    """Calls Python out of the graph."""

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 1], tf.float32)])
    def __call__(self, image: Any) -> Any:
        return tf.py_function(lambda each: each, [image], tf.float32)


def main(rows: str, folder: str) -> None:
    keras.utils.set_random_seed(0)
    to = Path(folder)
    with np.load(rows) as stored:
        x, y = stored["X"], stored["y"]
    model = network(x, y)
    model.save(mlmodel(to / "keras", "keras") / "model.keras")
    exported = mlmodel(to / "exported", "keras", exported="true") / "model"
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", model.call, input_signature=[tf.TensorSpec([None, 8, 8, 1], "float32")])
    archive.write_out(str(exported), verbose=False)
    sequence(x, y).save(mlmodel(to / "sequential", "tensorflow-keras") / "model.keras")
    for name, made in recurrent().items():
        made.save(mlmodel(to / name, "keras") / "model.keras")
    pair().save(mlmodel(to / "pair", "keras") / "model.keras")
    tf.saved_model.save(Linear(), str(mlmodel(to / "module", "tensorflow", NAMED)))
    tf.saved_model.save(Calling(), str(mlmodel(to / "calling", "tensorflow")))
    layers = [keras.Input((8, 8, 1)), keras.layers.Lambda(lambda each: each * 2)]
    keras.Sequential(layers).save(mlmodel(to / "lambda", "keras") / "model.keras")

    class Own(keras.layers.Layer):
        def call(self, image: Any) -> Any:
            return image

    keras.Sequential([keras.Input((8, 8, 1)), Own()]).save(mlmodel(to / "own", "keras") / "model.keras")


if __name__ == "__main__":
    main(*sys.argv[1:])
