"""Optimizers that change how a graph is calculated and not what comes out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from engine.errors import EngineError
from engine.optimize.base import optimizer, optimizers
from engine.optimize.material import Material
from engine.plugins import options_of
from engine.scan.tasks import check_onnx_file
from tests.engine.conftest import Task
from tests.engine.onnx_files import model, relu, value

F = TensorProto.FLOAT


def weight(name: str, *shape: int) -> onnx.TensorProto:
    random = np.random.default_rng(len(name))
    return numpy_helper.from_array(random.uniform(0.1, 1, shape).astype(np.float32), name)


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """Convolution, normalization and the detours of exporters: (n, 1, 8, 8) to (n, 16); "unused" is not read."""
    nodes = [
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Conv", ["same", "kernel"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["conv", "scale", "shift", "mean", "spread"], ["normal"]),
        helper.make_node("Relu", ["normal"], ["relu"]),
        helper.make_node("Dropout", ["relu"], ["kept"]),
        helper.make_node("GlobalAveragePool", ["kept"], ["pooled"]),
        helper.make_node("Shape", ["pooled"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["rows"]),
        helper.make_node("Concat", ["rows", "rest"], ["wanted"], axis=0),
        helper.make_node("Reshape", ["pooled", "wanted"], ["flat"]),
        helper.make_node("Add", ["one", "one"], ["two"]),
        helper.make_node("Mul", ["flat", "two"], ["y"]),
        helper.make_node("Neg", ["flat"], ["dead"]),
    ]
    stored = [weight("kernel", 16, 1, 3, 3), *(weight(name, 16) for name in ("scale", "shift", "mean", "spread"))]
    stored += [numpy_helper.from_array(np.array([number]), name) for name, number in (("first", 0), ("rest", 16))]
    stored.append(weight("one", 16))
    made = model(
        nodes,
        inputs=[value("x", ["n", 1, 8, 8]), value("unused", ["n", 2])],
        outputs=[value("y", ["n", 16])],
        initializer=stored,
    )
    path = tmp_path / "network.onnx"
    onnx.save(made, path)
    return path


def branching() -> onnx.ModelProto:
    bodies = {
        f"{name}_branch": helper.make_graph([helper.make_node(kind, ["x"], ["y"])], name, [], [value("y")])
        for name, kind in (("then", "Relu"), ("else", "Neg"))
    }
    flag = value("flag", [1], TensorProto.BOOL)
    return model([helper.make_node("If", ["flag"], ["y"], **bodies)], inputs=[value("x"), flag])


def apply(name: str, source: Path, **options: object) -> tuple[Path, list[str]]:
    """The variant, checked as every variant is, and the notes."""
    plugin, target = optimizer(name), source.with_suffix(f".{name}.onnx")
    notes = plugin.optimize(source, target, options_of(plugin, options), Material())
    check_onnx_file(target)
    return target, notes


def kinds(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def outputs(path: Path, rows: int = 3, batch: int | None = None) -> np.ndarray:
    """What comes out for `rows` pictures, `batch` at a time."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).normal(size=(rows, 1, 8, 8)).astype(np.float32)
    step = batch or rows
    parts = [x[at : at + step] for at in range(0, rows, step)]
    return np.concatenate([session.run(None, {"x": p, "unused": np.zeros((len(p), 2), np.float32)})[0] for p in parts])


def saved(proto: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "saved.onnx"
    onnx.save(proto, path)
    return path


def test_acceleration_needs_no_rows_when_listed() -> None:
    found = [each for each in optimizers().values() if each.family == "acceleration"]
    assert {"fix-shapes", "offline-fusion", "simplify"} <= {each.name for each in found}
    for each in found:
        assert not each.needs and each.environment is None
        assert all(field.description for field in each.Options.model_fields.values())


def test_simplified_graph_is_short_and_right_when_exporters_left_detours(network: Path) -> None:
    short, notes = apply("simplify", network)
    left = kinds(short)
    assert len(left) < len(kinds(network)) - 5 and f"{len(left)} operators" in notes[0]
    assert not {"BatchNormalization", "Identity", "Dropout", "Neg", "Add"} & set(left)
    assert {entry.domain for entry in onnx.load(short).opset_import} == {""}
    assert [each.name for each in onnx.load(short).graph.input] == ["x", "unused"]
    np.testing.assert_allclose(outputs(short), outputs(network), rtol=1e-5)


def test_weights_are_no_inputs_when_old_files_list_them(network: Path) -> None:
    """As IR version 3 wanted; the weights of the normalization are gone after it was joined."""
    old = onnx.load(network)
    old.graph.input.extend(value(name, [16]) for name in ("scale", "shift"))
    onnx.save(old, network)
    short, _ = apply("simplify", network)
    assert "BatchNormalization" not in kinds(short)
    assert [each.name for each in onnx.load(short).graph.input] == ["x", "unused"]


def test_parts_stay_when_options_leave_them_out(network: Path) -> None:
    left = kinds(apply("simplify", network, fuse=False, remove_dead=False)[0])
    assert "BatchNormalization" in left and "Add" not in left
    left = kinds(apply("simplify", network, fold_constants=False)[0])
    assert "BatchNormalization" not in left and "Add" in left


def test_large_constant_is_not_stored_when_above_the_limit(tmp_path: Path) -> None:
    shape = numpy_helper.from_array(np.array([1, 1024, 512]), "shape")
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["large"]),
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Add", ["same", "large"], ["y"]),
    ]
    made = model(nodes, inputs=[value("x", [1, 1024, 512])], outputs=[value("y", [1, 1024, 512])], initializer=[shape])
    small, _ = apply("simplify", saved(made, tmp_path))
    assert small.stat().st_size < 10_000 and kinds(small) == ["ConstantOfShape", "Add"]
    assert apply("simplify", tmp_path / "saved.onnx", largest_constant_kb=4096)[0].stat().st_size > 2_000_000


def test_equal_parts_are_calculated_once_when_shared(tmp_path: Path) -> None:
    nodes = [helper.make_node("Exp", ["x"], [name]) for name in ("a", "b")]
    path = saved(model([*nodes, helper.make_node("Add", ["a", "b"], ["y"])]), tmp_path)
    assert kinds(apply("simplify", path)[0]) == ["Exp", "Add"]
    with pytest.raises(EngineError):
        apply("simplify", path, share=False)


def test_recipe_is_made_in_the_sandbox_when_steps_are_chained(network: Path, task: Task) -> None:
    steps = [{"optimizer": name} for name in ("fix-shapes", "simplify", "offline-fusion")]
    made = task("engine.optimize.tasks:make", {"steps": steps}, model=network)
    assert len(made.value["notes"]) == 4 and made.value["steps"][0]["options"]["batch"] == 1
    np.testing.assert_allclose(outputs(made.files / made.value["file"], batch=1), outputs(network), rtol=1e-5)


@pytest.mark.parametrize("level", ["basic", "extended"])
def test_fused_graph_is_right_when_saved_at_a_level(network: Path, level: str) -> None:
    fused, notes = apply("offline-fusion", network, level=level)
    assert len(kinds(fused)) < len(kinds(network))
    domains = {entry.domain for entry in onnx.load(fused).opset_import}
    assert domains == ({""} if level == "basic" else {"", "com.microsoft"})
    assert ("FusedConv" in kinds(fused)) == (level == "extended") == any("Only ONNX Runtime" in note for note in notes)
    np.testing.assert_allclose(outputs(fused), outputs(network), rtol=1e-5)


def test_highest_level_is_refused_when_it_fixes_the_layout(network: Path) -> None:
    with pytest.raises(EngineError) as caught:
        apply("offline-fusion", network, level="all")
    assert caught.value.code == "machine-specific" and caught.value.field == "level"


def test_highest_level_is_taken_when_there_is_no_convolution(tmp_path: Path) -> None:
    nodes = [helper.make_node("Gemm", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    path = saved(model(nodes, initializer=[weight("w", 2, 2)]), tmp_path)
    assert kinds(apply("offline-fusion", path, level="all")[0]) == ["FusedGemm"]


def test_shapes_are_fixed_and_fold_when_the_batch_is_given(network: Path) -> None:
    fixed, notes = apply("fix-shapes", network, batch=2)
    found = check_onnx_file(fixed)["signature"]
    assert [each["shape"] for each in found["inputs"]] == [[2, 1, 8, 8], [2, 2]]
    assert found["outputs"][0]["shape"] == [2, 16] and notes == ["Takes x 2×1×8×8, unused 2×2, and no other shape."]
    np.testing.assert_allclose(outputs(fixed, 4, batch=2), outputs(network, 4), rtol=1e-5)
    short, _ = apply("simplify", fixed)
    np.testing.assert_allclose(outputs(short, 4, batch=2), outputs(network, 4), rtol=1e-5)


def test_shape_arithmetic_folds_when_shapes_were_fixed(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Cast", ["shape"], ["sizes"], to=F),
        helper.make_node("Mul", ["x", "sizes"], ["y"]),
    ]
    path = saved(model(nodes), tmp_path)
    with pytest.raises(EngineError):
        apply("simplify", path)
    assert kinds(apply("simplify", apply("fix-shapes", path, batch=4)[0])[0]) == ["Mul"]


def test_named_and_nameless_dimensions_are_fixed_when_asked_for(tmp_path: Path) -> None:
    path = saved(relu(inputs=[value("x", ["n", "time"])], outputs=[value("y", ["n", "time"])]), tmp_path)
    fixed, notes = apply("fix-shapes", path, batch=None, dimensions={"time": 7})
    assert check_onnx_file(fixed)["signature"]["outputs"][0]["shape"] == [-1, 7] and notes[1] == "Still free: n."
    path = saved(relu(inputs=[value("x", [None, 2])], outputs=[value("y", [None, 2])]), tmp_path)
    assert check_onnx_file(apply("fix-shapes", path)[0])["signature"]["outputs"][0]["shape"] == [1, 2]


def test_error_names_what_there_is_when_a_dimension_is_unknown(network: Path) -> None:
    with pytest.raises(EngineError, match="there are: n") as caught:
        apply("fix-shapes", network, dimensions={"time": 7})
    assert caught.value.field == "dimensions"


@pytest.mark.parametrize("name", ["simplify", "offline-fusion", "fix-shapes"])
def test_no_gain_is_said_when_there_is_nothing_to_do(tmp_path: Path, name: str) -> None:
    fixed = [value("x", [1, 2])], [value("y", [1, 2])]
    path = saved(relu(inputs=fixed[0], outputs=fixed[1]), tmp_path)
    with pytest.raises(EngineError) as caught:
        apply(name, path)
    assert caught.value.code == "no-gain"


def test_control_flow_is_refused_when_simplified_and_fixed_when_shapes_are(tmp_path: Path) -> None:
    path = saved(branching(), tmp_path)
    with pytest.raises(EngineError, match="If") as caught:
        apply("simplify", path)
    assert caught.value.code == "control-flow"
    assert check_onnx_file(apply("fix-shapes", path)[0])["signature"]["inputs"][0]["shape"] == [1, 2]
