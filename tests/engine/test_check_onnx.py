"""ONNX files from strangers: each bad one is named for what it is, each good one is described."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from engine.errors import EngineError
from engine.sandbox import Limits
from engine.scan import CHECK_LIMITS, onnx_loops, onnx_run, tasks, wire
from tests.engine.conftest import Task
from tests.engine.onnx_files import ENDLESS_LOOP, HOSTILE, model, relu, value

CHECK = "engine.scan.tasks:check_onnx"


@pytest.mark.parametrize("name", HOSTILE)
def test_refusal_names_the_cause_when_the_file_is_hostile(name: str, task: Task, tmp_path: Path) -> None:
    make, word = HOSTILE[name]
    path = tmp_path / "model.onnx"
    path.write_bytes(make())
    with pytest.raises(EngineError) as caught:
        task(CHECK, file=path, limits=CHECK_LIMITS)
    assert word in caught.value.message, caught.value.message
    assert caught.value.field == "file"
    assert str(tmp_path) not in caught.value.message and len(caught.value.message) < 500


def test_description_is_complete_when_the_model_is_good(task: Task, digits_onnx: Path) -> None:
    result = task(CHECK, file=digits_onnx)
    described = result.value
    assert described["signature"]["inputs"] == [{"name": "X", "datatype": "FP32", "shape": [-1, 64]}]
    assert [each["datatype"] for each in described["signature"]["outputs"]] == ["INT64", "FP32"]
    assert described["nodes"] > 3 and described["parameters"] >= 64 * 128 and described["opset"] >= 15
    assert "skl2onnx" in described["producer"]


def test_outputs_are_described_as_serving_answers_them_when_a_classifier_has_its_zipmap(
    task: Task, digits_files: dict[bool, Path]
) -> None:
    outputs = task(CHECK, file=digits_files[True]).value["signature"]["outputs"]
    assert [(each["datatype"], each["shape"], each.get("kind")) for each in outputs] == [
        ("INT64", [-1], None), ("BYTES", [-1], "maps"),
    ]  # fmt: skip


def test_every_datatype_is_read_when_inputs_have_it() -> None:
    kinds = {1: "FP32", 11: "FP64", 10: "FP16", 3: "INT8", 5: "INT16", 6: "INT32", 7: "INT64", 2: "UINT8"}
    kinds |= {4: "UINT16", 12: "UINT32", 13: "UINT64", 9: "BOOL", 8: "BYTES"}
    from engine.formats.signature import of_onnx

    inputs = [value(f"i{number}", ["n", None, 3], number) for number in kinds]
    made = model([helper.make_node("Identity", ["i1"], ["y"])], inputs=inputs, outputs=[value("y", [1])])
    found = of_onnx(made)["inputs"]
    assert [each["datatype"] for each in found] == list(kinds.values())
    assert all(each["shape"] == [-1, -1, 3] for each in found)


def test_check_passes_when_a_subgraph_reads_outer_names(task: Task, tmp_path: Path) -> None:
    branch = helper.make_graph([helper.make_node("Relu", ["x"], ["r"])], "b", [], [value("r")])
    other = helper.make_graph([helper.make_node("Abs", ["x"], ["a"])], "c", [], [value("a")])
    yes = numpy_helper.from_array(np.array(True), "t")
    node = helper.make_node("If", ["t"], ["y"], then_branch=branch, else_branch=other)
    path = tmp_path / "if.onnx"
    path.write_bytes(model([node], initializer=[yes]).SerializeToString())
    assert task(CHECK, file=path).value["nodes"] == 3


def test_check_passes_when_operators_are_model_local_functions(task: Task, tmp_path: Path) -> None:
    function = helper.make_function(
        "my.own", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    made = model([helper.make_node("Twice", ["x"], ["y"], domain="my.own")])
    made.opset_import.append(helper.make_opsetid("my.own", 1))
    made.functions.append(function)
    path = tmp_path / "function.onnx"
    path.write_bytes(made.SerializeToString())
    assert task(CHECK, file=path).value["nodes"] == 2


def test_run_is_ended_when_a_loop_has_no_end() -> None:
    session = onnx_run.session(ENDLESS_LOOP())
    with pytest.raises(EngineError, match=r"did not finish one inference in 0\.5 s"):
        onnx_run.run_once(session, {"x": np.zeros((1, 2), np.float32)}, seconds=0.5)


def test_answer_comes_within_two_seconds_when_a_loop_computes_its_rounds(task: Task, tmp_path: Path) -> None:
    path = tmp_path / "loop.onnx"
    path.write_bytes(ENDLESS_LOOP())
    begun = time.monotonic()
    with pytest.raises(EngineError, match="did not finish one inference in 1 s") as caught:
        task(CHECK, file=path)
    assert caught.value.code == "timeout" and time.monotonic() - begun < 2.5  # 2 s where nothing else runs


def test_loop_passes_when_it_computes_a_few_thousand_rounds(task: Task, tmp_path: Path) -> None:
    path = tmp_path / "loop.onnx"
    path.write_bytes(ENDLESS_LOOP(rounds=20_000))
    assert task(CHECK, file=path).value["nodes"] == 5


def test_time_is_longer_when_a_file_with_loops_is_large() -> None:
    looping, plain = onnx.load_from_string(ENDLESS_LOOP()), model([helper.make_node("Neg", ["x"], ["y"])])
    assert onnx_loops.seconds_for(looping, 500) < 1.1
    assert 5 < onnx_loops.seconds_for(looping, 250_000_000) < 20 == onnx_loops.seconds_for(looping, 10**10)
    assert onnx_loops.seconds_for(plain, 500) == 20
    plain.functions.append(helper.make_function("own", "F", [], [], list(looping.graph.node), []))
    assert onnx_loops.seconds_for(plain, 500) < 1.1


def test_sandbox_ends_it_when_native_code_does_not_return(task: Task, tmp_path: Path) -> None:
    path = tmp_path / "loop.onnx"
    path.write_bytes(ENDLESS_LOOP())
    with pytest.raises(EngineError) as caught:
        task("hostile_tasks:endless", file=path, limits=Limits(seconds=3), code=[Path(__file__).parent])
    assert caught.value.code == "timeout"


@pytest.mark.parametrize("seed", range(60))
def test_refusal_is_an_engine_error_when_bytes_are_flipped(seed: int, tmp_path: Path) -> None:
    """Mutations of a good file either pass or are refused as such; nothing else is raised."""
    random = np.random.default_rng(seed)
    weights = numpy_helper.from_array(np.ones((2, 2), np.float32), "w")
    data = bytearray(model([helper.make_node("MatMul", ["x", "w"], ["y"])], initializer=[weights]).SerializeToString())
    for _ in range(3):
        data[random.integers(len(data))] = random.integers(256)
    path = tmp_path / "m.onnx"
    path.write_bytes(bytes(data))
    try:
        tasks.check_onnx_file(path)
    except EngineError as error:
        assert error.field == "file"


def test_diagnosis_ends_soon_when_bytes_are_noise() -> None:
    for seed in range(20):
        assert "ONNX" in wire.diagnose(np.random.default_rng(seed).bytes(20_000))
    assert wire.nesting(relu().SerializeToString()) == 1
    assert onnx.IR_VERSION >= 8
