"""Quantized networks: smaller, still right, accepted by the check, and refused clearly where nothing can be done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from engine.errors import EngineError
from engine.evaluate.rows import Rows
from engine.optimize.base import optimizer
from engine.optimize.codebook import kmeans
from engine.optimize.four_bit_float import FP4, NF4
from engine.optimize.graph import codes
from engine.optimize.material import Material
from engine.optimize.weight_only import blockwise
from tests.engine import quantizer_nets as nets
from tests.engine.conftest import Task

STANDARD = {"", "ai.onnx.ml"}
Make = Callable[..., nets.Made]


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("parents")
    return {"mlp": nets.mlp(folder / "mlp.onnx"), "convnet": nets.convnet(folder / "convnet.onnx")}


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def go(name: str, source: Path, material: Material = nets.MATERIAL, **options: Any) -> nets.Made:
        return nets.make(optimizer(name), source, tmp_path / "made.onnx", material, **options)

    return go


@pytest.mark.parametrize(
    ("name", "options", "net", "ratio", "loss"),
    [
        ("static-quantization", {}, "mlp", 0.31, 0.01),
        ("static-quantization", {}, "convnet", 0.31, 0.01),
        ("static-quantization", {"form": "QOperator"}, "mlp", 0.31, 0.01),
        ("static-quantization", {"form": "QOperator"}, "convnet", 0.31, 0.01),
        ("static-quantization", {"per_channel": True, "types": "U8U8"}, "mlp", 0.35, 0.01),
        ("static-quantization", {"per_channel": True, "calibration": "Entropy"}, "convnet", 0.35, 0.01),
        ("static-quantization", {"calibration": "Percentile", "types": "S8S8"}, "convnet", 0.31, 0.01),
        ("float16", {}, "mlp", 0.53, 0.003),
        ("float16", {}, "convnet", 0.52, 0.003),
        ("float16", {"weights_only": True}, "convnet", 0.52, 0.003),
        ("weight-only", {}, "mlp", 0.2, 0.01),
        ("weight-only", {"bits": 8, "block": 16}, "mlp", 0.36, 0.005),
        ("codebook", {}, "mlp", 0.19, 0.01),
        ("codebook", {}, "convnet", 0.16, 0.06),
        ("codebook", {"entries": 64, "groups": 4}, "convnet", 0.3, 0.01),
        ("power-of-two", {}, "mlp", 0.2, 0.02),
        ("power-of-two", {}, "convnet", 0.17, 0.12),
        ("four-bit-float", {}, "mlp", 0.21, 0.01),
        ("four-bit-float", {"kind": "fp4", "block": 16}, "convnet", 0.22, 0.03),
        ("mixed-precision", {"keep": 1}, "convnet", 0.5, 0.01),
        ("mixed-precision", {"keep": 0.4, "kept_bits": 16}, "mlp", 0.5, 0.01),
    ],
)
def test_variant_is_small_and_right_when_it_is_quantized(
    make: Make, parents: dict[str, Path], name: str, options: dict[str, Any], net: str, ratio: float, loss: float
) -> None:
    made = make(name, parents[net], **options)
    assert made.ratio < ratio and made.notes
    assert nets.accuracy(made.path) > nets.accuracy(parents[net]) - loss


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("static-quantization", {}),
        ("float16", {}),
        ("float16", {"weights_only": True}),
        ("codebook", {"groups": 3}),
        ("codebook", {"entries": 256}),
        ("power-of-two", {"per_channel": False}),
        ("four-bit-float", {}),
        ("mixed-precision", {}),
    ],
)
def test_only_standard_operators_are_used_when_the_method_says_so(
    make: Make, parents: dict[str, Path], name: str, options: dict[str, Any]
) -> None:
    made = make(name, parents["convnet"], **options)
    assert made.domains == {""}
    assert {entry.domain for entry in made.model.opset_import} <= STANDARD
    if "QuantizeLinear" in made.kinds():
        return  # ONNX's reference knows that operator from opset 19
    # Another runtime than ONNX Runtime loads it and says the same.
    from onnx.reference import ReferenceEvaluator

    few = nets.UNSEEN.head(2)
    feed = {"x": few.matrix.reshape(-1, 1, 8, 8)}
    told = ReferenceEvaluator(made.model).run(None, feed)[0]
    assert np.allclose(told, nets.scores(made.path, few), atol=0.05)


def fused(path: Path) -> list[str]:
    """The operators that ONNX Runtime really runs."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path.with_suffix(".fused.onnx"))
    options.log_severity_level = 4
    onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node]


def test_static_int8_is_really_fused_when_the_runtime_loads_it(make: Make, parents: dict[str, Path]) -> None:
    kinds = fused(make("static-quantization", parents["convnet"]).path)
    assert kinds.count("QLinearConv") == 4 and kinds.count("QGemm") == 1 and not {"Conv", "Gemm"} & set(kinds)
    made = make("static-quantization", parents["mlp"])
    kinds = fused(made.path)
    # Behind the scaler ONNX knows no types: without them the quantizer leaves everything in float, silently.
    assert kinds.count("QGemm") == 3 and not {"MatMul", "Gemm"} & set(kinds)
    assert "128 rows" in made.notes[-1] and "3 operators" in made.notes[-1]


def test_nodes_stay_in_float_when_they_are_excluded(make: Make, parents: dict[str, Path]) -> None:
    made = make("static-quantization", parents["convnet"], excluded=["second", "head"])
    kinds = fused(made.path)
    assert "2 left in float" in made.notes[-1] and kinds.count("QLinearConv") == 3 and "QGemm" not in kinds
    for form in ("QDQ", "QOperator"):
        made = make("static-quantization", parents["mlp"], excluded=["MatMul1"], form=form)
        # ONNX Runtime would quantize by itself what stands between two quantized layers.
        assert fused(made.path).count("QGemm") == 2, form
    made = make("mixed-precision", parents["convnet"], keep=2, kept_bits=16)
    kinds = fused(made.path)
    assert kinds.count("QLinearConv") + kinds.count("QGemm") == 3
    with pytest.raises(EngineError, match="no node 'nowhere'") as caught:
        make("static-quantization", parents["convnet"], excluded=["nowhere"])
    assert caught.value.field == "options.excluded"


def test_only_convolutions_are_quantized_when_that_is_asked(make: Make, parents: dict[str, Path]) -> None:
    kinds = fused(make("static-quantization", parents["convnet"], operators="convolutions").path)
    assert kinds.count("QLinearConv") == 4 and "QGemm" not in kinds


def test_matrices_multiply_as_integers_when_weights_alone_are(make: Make, parents: dict[str, Path]) -> None:
    made = make("weight-only", parents["mlp"])
    assert made.kinds().count("MatMulNBits") == 3 and made.domains == {*STANDARD, "com.microsoft"}


def test_gemm_gives_the_same_when_it_is_split(make: Make, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    weights = {"w": random.normal(size=(64, 64)), "b": random.normal(size=64)}
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], alpha=0.5, beta=2.0, transB=1)
    source = tmp_path / "gemm.onnx"
    onnx.save(nets.model_of([node], weights, ["n", 64]), source)
    made = make("weight-only", source, bits=8, block=16, int8_activations=False)
    assert np.allclose(nets.scores(made.path), nets.scores(source), atol=0.05)


def test_numbers_keep_their_precision_when_a_regression_is_quantized(make: Make, tmp_path: Path) -> None:
    weights = {"a": np.eye(64) * 0.5, "w": np.linspace(-1, 1, 64)[:, None], "b": np.array([3.0])}
    nodes = [helper.make_node("Gemm", ["x", "a"], ["h"]), helper.make_node("Gemm", ["h", "w", "b"], ["y"])]
    source = tmp_path / "regression.onnx"
    onnx.save(nets.model_of(nodes, weights, ["n", 64]), source)
    told = nets.scores(make("static-quantization", source).path)
    # An 8-bit output could tell 256 numbers apart.
    assert len(np.unique(told)) > 300 and np.corrcoef(told[:, 0], nets.scores(source)[:, 0])[0, 1] > 0.9995


def test_centres_are_as_good_as_scikit_learns_when_values_are_clustered() -> None:
    from sklearn.cluster import KMeans

    values = np.random.default_rng(0).standard_t(4, 4000).astype(np.float32)
    book = kmeans(values, 16)
    ours = float(np.sum((values - book[codes.nearest(values, book)]) ** 2))
    theirs = KMeans(16, n_init=3, random_state=0).fit(values[:, None]).inertia_
    assert ours < 1.1 * theirs and (book == kmeans(values, 16)).all()
    assert kmeans(np.zeros(300), 16).tolist() == [0.0] * 16
    few = kmeans(np.repeat([-1.0, 2.0], 50), 16)
    assert {-1.0, 2.0} <= set(few.tolist())


def test_levels_are_met_exactly_when_weights_are_levels(make: Make, tmp_path: Path) -> None:
    for name, kind, book in (
        ("four-bit-float", "nf4", NF4),
        ("four-bit-float", "fp4", FP4),
        ("power-of-two", "", None),
    ):
        levels = np.array(book if book else [0, *(s * 2.0**-e for e in range(7) for s in (-1, 1))], np.float32)
        weights = np.resize(levels * 4, (33, 64)).astype(np.float32)
        source = tmp_path / "levels.onnx"
        onnx.save(nets.model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weights.T}, ["n", 64]), source)
        made = make(name, source, **({"kind": kind, "block": 32} if kind else {}))
        assert np.allclose(nets.scores(made.path), nets.scores(source), atol=1e-4), name


def test_blocks_are_near_when_weights_become_integers() -> None:
    weights = np.random.default_rng(0).normal(size=(5, 50)).astype(np.float32)
    packed, scales = blockwise(weights, 4, 16)
    assert packed.shape == (5, 4, 8) and scales.shape == (20,)
    wide = np.stack([packed & 15, packed >> 4], axis=-1).reshape(5, 4, 16)
    back = ((wide.astype(int) - 8) * scales.reshape(5, 4, 1)).reshape(5, 64)[:, :50]
    assert np.abs(back - weights).max() <= np.abs(scales).max() * 1.001


def test_recurrent_and_embedding_weights_are_coded_when_a_net_has_them(make: Make, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    weights = {
        "table": random.normal(size=(40, 16)),
        "w": random.normal(size=(1, 64, 16)) * 0.3,
        "r": random.normal(size=(1, 64, 16)) * 0.3,
        "last": np.array([-1]),
    }
    nodes = [
        helper.make_node("Cast", ["x"], ["ids"], to=7),
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("Transpose", ["e"], ["t"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["t", "w", "r"], ["all", "h"], hidden_size=16),
        helper.make_node("Squeeze", ["h", "zero"], ["y"]),
    ]
    source = tmp_path / "lstm.onnx"
    onnx.save(nets.model_of(nodes, {**weights, "zero": np.array([0])}, ["n", 64]), source)
    for name in ("codebook", "four-bit-float", "power-of-two"):
        made = make(name, source)
        assert "3 tensors" in made.notes[0]
        assert np.corrcoef(nets.scores(made.path).ravel(), nets.scores(source).ravel())[0, 1] > 0.95


def test_layers_are_told_apart_when_one_minds_quantization(
    task: Task, parents: dict[str, Path], tmp_path: Path
) -> None:
    rows = tmp_path / "rows.npz"
    np.savez(rows, X=nets.SEEN.matrix[:200], y=nets.SEEN.y[:200])
    model = onnx.load(parents["convnet"])
    wild = next(each for each in model.graph.initializer if each.name == "w3")
    values = numpy_helper.to_array(wild).copy()
    values[0, 0, 0, 0] = 60  # one outlier takes all the levels
    wild.CopyFrom(numpy_helper.from_array(values, "w3"))
    source = tmp_path / "wild.onnx"
    onnx.save(model, source)
    params = {"task": "image-classification"}
    found = task("engine.optimize.tasks:sensitivity", params, model=source, calibration=rows).value["layers"]
    assert [each["layer"] for each in found] == ["first", "second", "third", "fourth", "head"]
    assert max(found, key=lambda each: each["quantized"])["layer"] == "third"
    assert all(0 < each["quantized"] < each["pruned"] for each in found if each["layer"] != "third")
    assert found[0]["size_bytes"] == 16 * 9 * 4 and found[0]["operator"] == "Conv"
    assert all(set(each["drop"]) == {"quantized", "pruned"} for each in found)
    made = nets.make(optimizer("mixed-precision"), source, tmp_path / "mixed.onnx", keep=1)
    assert "third" in made.notes[-1]


def test_recipe_of_one_step_works_when_it_runs_in_the_sandbox(
    task: Task, parents: dict[str, Path], tmp_path: Path
) -> None:
    rows = tmp_path / "rows.npz"
    np.savez(rows, X=nets.SEEN.matrix, y=nets.SEEN.y)
    steps = [{"optimizer": "static-quantization"}]
    params = {"steps": steps, "task": "image-classification"}
    result = task("engine.optimize.tasks:make", params, model=parents["mlp"], training=rows)
    assert result.value["size_bytes"] < 0.31 * result.value["source_bytes"]
    assert "256 rows" in result.value["notes"][-1]


def refused(make: Make, name: str, source: Path, material: Material = nets.MATERIAL, **options: Any) -> EngineError:
    with pytest.raises(EngineError) as caught:
        make(name, source, material, **options)
    return caught.value


def test_rows_are_asked_for_when_there_are_none_or_bad_ones(make: Make, parents: dict[str, Path]) -> None:
    narrow = replace(nets.MATERIAL, calibration=Rows(["a", "b"], np.ones((9, 2), np.float32), None, None))
    holes = nets.SEEN.matrix[:9].copy()
    holes[3, 3] = np.nan
    missing = replace(nets.MATERIAL, calibration=Rows(nets.SEEN.columns, holes, None, None))
    for name in ("static-quantization", "mixed-precision"):
        assert refused(make, name, parents["convnet"], Material()).code == "calibration"
        assert refused(make, name, parents["convnet"], narrow).field == "rows"
        error = refused(make, name, parents["convnet"], missing)
        assert error.code == "calibration" and "missing or infinite" in error.message


@pytest.mark.parametrize("name", ["static-quantization", "mixed-precision"])
def test_refusal_is_clear_when_values_inside_are_not_finite(make: Make, tmp_path: Path, name: str) -> None:
    weights = {"w": np.ones((64, 64)), "v": np.ones((64, 8)), "five": np.array(-5.0)}
    nodes = [
        helper.make_node("Add", ["x", "five"], ["low"]),
        helper.make_node("Sqrt", ["low"], ["root"]),
        helper.make_node("MatMul", ["root", "w"], ["h"]),
        helper.make_node("MatMul", ["h", "v"], ["y"]),
    ]
    source = tmp_path / "nan.onnx"
    onnx.save(nets.model_of(nodes, weights, ["n", 64]), source)
    error = refused(make, name, source)
    assert error.code == "calibration" and "finite" in error.message


@pytest.mark.parametrize(
    "name",
    ["static-quantization", "mixed-precision", "float16", "weight-only", "codebook", "power-of-two", "four-bit-float"],
)
def test_refusal_is_clear_when_weights_are_not_finite(make: Make, tmp_path: Path, name: str) -> None:
    weights = np.ones((64, 8))
    weights[3, 3] = np.inf
    source = tmp_path / "inf.onnx"
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "v"], ["y"])]
    onnx.save(nets.model_of(nodes, {"w": weights, "v": np.ones((8, 64))}, ["n", 64]), source)
    error = refused(make, name, source)
    assert error.code in ("weights", "calibration") and "finite" in error.message


def test_no_gain_is_said_when_there_are_no_weights(make: Make, tmp_path: Path) -> None:
    source = tmp_path / "relu.onnx"
    onnx.save(nets.model_of([helper.make_node("Relu", ["x"], ["y"])], {}, ["n", 64]), source)
    for name in ("static-quantization", "mixed-precision", "float16", "weight-only", "codebook", "power-of-two"):
        assert refused(make, name, source).code == "no-gain", name
    assert refused(make, "four-bit-float", source).code == "no-gain"


def test_no_gain_is_said_when_every_layer_would_stay(make: Make, parents: dict[str, Path]) -> None:
    assert refused(make, "mixed-precision", parents["convnet"], keep=5).code == "no-gain"


def test_control_flow_is_refused_or_passed_by_when_a_model_has_it(make: Make, tmp_path: Path) -> None:
    branch = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["b"])], "b", [], [helper.make_tensor_value_info("b", 1, ["n", 32])]
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        helper.make_node("Cast", ["top"], ["which"], to=9),
        helper.make_node("MatMul", ["x", "w"], ["straight"]),
        helper.make_node("If", ["which"], ["branched"], then_branch=branch, else_branch=branch),
        helper.make_node("Add", ["straight", "branched"], ["y"]),
    ]
    source = tmp_path / "if.onnx"
    weights = {"w": np.random.default_rng(0).normal(size=(64, 32))}
    onnx.save(nets.model_of(nodes, weights, ["n", 64]), source)
    for name in ("static-quantization", "mixed-precision"):
        error = refused(make, name, source)
        assert error.code == "control-flow" and "If" in error.message
    # The branch reads the decoded weight under its old name.
    for name in ("codebook", "four-bit-float", "float16"):
        made = make(name, source)
        assert np.corrcoef(nets.scores(made.path).ravel(), nets.scores(source).ravel())[0, 1] > 0.98


@pytest.mark.parametrize("name", ["static-quantization", "codebook", "float16", "weight-only", "mixed-precision"])
def test_variant_is_right_when_the_opset_is_old_or_the_batch_fixed(make: Make, tmp_path: Path, name: str) -> None:
    random = np.random.default_rng(0)
    weights = {"w": random.normal(size=(64, 64)), "v": random.normal(size=(64, 10))}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["y"]),
    ]
    source = tmp_path / "old.onnx"
    for opset, batch in ((9, "n"), (17, 4)):
        onnx.save(nets.model_of(nodes, weights, [batch, 64], opset), source)
        made = make(name, source)
        shape = made.model.graph.input[0].type.tensor_type.shape.dim[0]
        assert shape.dim_value == (4 if batch == 4 else 0)
        assert np.corrcoef(nets.scores(made.path).ravel(), nets.scores(source).ravel())[0, 1] > 0.98
    few = replace(nets.MATERIAL, calibration=nets.SEEN.head(3))
    if "static" in name or "mixed" in name:
        assert "at least 4 rows" in refused(make, name, source, few).message
