"""ONNX graphs run in torch: every operator against ONNX Runtime, in the environment that has both."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.engine.conftest import ROOT


def test_operators_give_what_onnx_runtime_gives_when_run_in_torch(torch_python: Path) -> None:
    command = [str(torch_python), str(Path(__file__).with_name("torch_graph_cases.py"))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout)
    assert said["untried"] == [] and len(said["cases"]) > 150
    assert {name: found for name, found in said["cases"].items() if isinstance(found, str) or found > 1e-4} == {}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("h.make_node('LSTM', ['x', 'w', 'w'], ['y'])", "The operator LSTM cannot be trained"),
        ("h.make_node('Foo', ['x'], ['y'], domain='ai.onnx.ml')", "The operator ai.onnx.ml.Foo cannot be trained"),
        ("h.make_node('If', ['x'], ['y'])", "The operator If cannot be trained"),
        ("h.make_node('Gather', ['x', 'half'], ['y'])", "'half' is of type FLOAT16"),
        ("h.make_node('MatMul', ['x', 'w'], ['y'])", "The MatMul 'y' failed"),
        ("h.make_node('AveragePool', ['x'], ['y'], kernel_shape=[1], dilations=[2])", "AveragePool with dilations"),
    ],
)
def test_error_names_the_operator_when_it_cannot_be_trained(code: str, words: str, torch_python: Path) -> None:
    script = f"""
import numpy as np, onnx, torch
from onnx import helper as h, numpy_helper as n
from engine.errors import EngineError
from engine.optimize.torch_graph.graph import TorchGraph
stored = [n.from_array(np.zeros((2, 2), np.float32), "w"), n.from_array(np.zeros(2, np.float16), "half")]
graph = h.make_graph([{code}], "g", [h.make_tensor_value_info("x", 1, [1, 1, 5])], [], stored)
try:
    TorchGraph(h.make_model(graph), ["y"]).run({{"x": torch.zeros(1, 1, 5)}})
except EngineError as error:
    print(error.code, error.message)
"""
    done = subprocess.run([str(torch_python), "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert words in done.stdout, done.stderr[-2000:]
