"""Residual blocks that are found, and networks that still answer without them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from engine.errors import EngineError
from engine.optimize.graph.blocks import Blocks
from engine.optimize.survey import survey
from tests.engine.onnx_files import ENDLESS_LOOP
from tests.engine.pruning_nets import NETS, Net, depthwise, mlp, noise, prune, residual, saved, transformer


def answers(model: onnx.ModelProto, shape: list[int]) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: noise(shape, 32).matrix.reshape(-1, *shape)})[0]


def pruned(model: onnx.ModelProto, shape: list[int], folder: Path, amount: float) -> tuple[onnx.ModelProto, list[str]]:
    target, notes = prune("prune-blocks", saved(model, folder), folder, noise(shape, 32), amount=amount)
    return onnx.load(target), notes


def silenced(model: onnx.ModelProto, block: int) -> onnx.ModelProto:
    """The residual net with a block that adds nothing."""
    join = [node for node in model.graph.node if node.op_type == "Add"][block]
    last = next(node for node in model.graph.node if node.output[0] == join.input[0])
    for tensor in model.graph.initializer:
        if tensor.name in last.input[1:]:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 0, tensor.name))
    return model


@pytest.mark.parametrize("block", [0, 1])
def test_block_goes_that_changes_least(block: int, tmp_path: Path) -> None:
    model = silenced(residual(1), block)
    result, notes = pruned(model, [2, 6, 6], tmp_path, 0.5)
    np.testing.assert_allclose(answers(result, [2, 6, 6]), answers(model, [2, 6, 6]), atol=1e-5)
    joins = [node.name for node in model.graph.node if node.op_type == "Add"]
    assert notes == [f"1 of 2 residual blocks removed, with 2 layers: {joins[block]}."]
    # Three convolutions are left, and no second ReLU behind the one that stays.
    kinds = [node.op_type for node in result.graph.node]
    assert (kinds.count("Conv"), kinds.count("Relu"), kinds.count("Add")) == (3, 3, 1)


def test_branches_of_a_transformer_leave_one_by_one(tmp_path: Path) -> None:
    model = transformer(2)
    assert [block.layers for block in Blocks(model).all] == [6, 2]
    half, _ = pruned(model, [4, 6], tmp_path, 0.5)
    none, notes = pruned(model, [4, 6], tmp_path, 1.0)
    assert len(model.graph.node) > len(half.graph.node) > len(none.graph.node)
    assert answers(none, [4, 6]).shape == answers(model, [4, 6]).shape and notes[0].startswith("2 of 2")
    kinds = {node.op_type for node in none.graph.node}
    assert "LayerNormalization" in kinds and "Softmax" not in kinds


def test_shortcut_with_a_layer_of_its_own_stays(tmp_path: Path) -> None:
    net = Net(3)
    x = net.add("Relu", net.conv("x", 2, 8))
    inner = net.conv(net.add("Relu", net.conv(x, 8, 12)), 12, 12)
    short = net.conv(x, 8, 12, k=1)
    y = net.add("Flatten", net.add("GlobalAveragePool", net.add("Relu", net.add("Add", inner, short))))
    model = net.done(net.add("Gemm", y, net.weight(12, 5)), [2, 6, 6])
    result, _ = pruned(model, [2, 6, 6], tmp_path, 0.5)
    shapes = [list(each.dims) for each in result.graph.initializer if len(each.dims) == 4]
    assert shapes == [[8, 2, 3, 3], [12, 8, 1, 1]]


def test_output_keeps_its_name_when_a_block_gives_it(tmp_path: Path) -> None:
    net = Net(4)
    x = net.add("Relu", net.dense("x", 7, 5))
    y = net.add("Add", net.add("MatMul", x, net.weight(5, 5)), x)
    model = net.done(y, [7])
    result, _ = pruned(model, [7], tmp_path, 1.0)
    assert [each.name for each in result.graph.output] == [y]
    assert (answers(result, [7]) >= 0).all()


def test_block_stays_when_nothing_comes_out_without_it(tmp_path: Path) -> None:
    net = Net(9)
    x = net.add("Relu", net.dense("x", 7, 6))
    needed = net.add("Add", net.add("MatMul", x, net.weight(6, 6)), x)
    # What is less than nothing has no logarithm: without the second block there is nothing to see.
    low = net.add("Neg", net.add("Exp", needed))
    high = net.add("Exp", net.add("MatMul", net.add("Exp", low), net.weight(6, 6)))
    lifted = net.add("Add", net.add("Mul", high, net.store(np.full(6, 1e3, np.float32))), low)
    model = net.done(net.add("MatMul", net.add("Log", lifted), net.weight(6, 5)), [7])
    blocks = [block.out for block in Blocks(model).all]
    assert blocks == [needed, lifted]
    assert np.isfinite(answers(model, [7])).all()
    result, _ = pruned(model, [7], tmp_path, 0.5)
    assert np.isfinite(answers(result, [7])).all()


def test_weights_that_are_inputs_too_leave_with_their_block(tmp_path: Path) -> None:
    model = residual(10)
    for each in model.graph.initializer:
        model.graph.input.append(onnx.helper.make_tensor_value_info(each.name, each.data_type, list(each.dims)))
    blocks = Blocks(model)
    left = blocks.without({block.out for block in blocks.all})
    onnx.checker.check_model(left)
    assert len(left.graph.input) == 1 + len(left.graph.initializer) < len(model.graph.input)
    result, _ = pruned(model, [2, 6, 6], tmp_path, 0.5)
    assert answers(result, [2, 6, 6]).shape == (32, 5)


def test_many_blocks_are_looked_at_once_each(tmp_path: Path) -> None:
    net = Net(11)
    x = net.add("Relu", net.dense("x", 7, 6))
    for _ in range(20):
        x = net.add("Relu", net.add("Add", net.add("MatMul", x, net.weight(6, 6)), x))
    model = net.done(net.dense(x, 6, 5), [7])
    result, notes = pruned(model, [7], tmp_path, 0.25)
    assert notes[0].startswith("5 of 20 residual blocks removed, with 5 layers")
    assert len(Blocks(result).all) == 15


def test_control_flow_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError) as caught:
        pruned(onnx.load_from_string(ENDLESS_LOOP(rounds=3)), [2], tmp_path, 0.5)
    assert caught.value.code == "control-flow"


def test_two_towers_and_biases_are_no_blocks(tmp_path: Path) -> None:
    assert not Blocks(mlp(0)).all and not Blocks(depthwise(0)).all
    net = Net(5)
    left, right = (net.add("MatMul", net.add(kind, "x"), net.weight(7, 5)) for kind in ("Sin", "Cos"))
    towers = net.done(net.add("Add", left, right), [7])
    # Both begin at the input: either may go.
    assert len(Blocks(towers).all) == 1
    towers.graph.input.add().CopyFrom(towers.graph.input[0])
    towers.graph.input[1].name = "z"
    towers.graph.node[2].input[0] = "z"
    onnx.checker.check_model(towers)
    assert not Blocks(towers).all
    with pytest.raises(EngineError) as caught:
        pruned(mlp(0), [7], tmp_path, 0.5)
    assert caught.value.code == "no-gain"


@pytest.mark.parametrize("net", NETS)
def test_graph_without_its_blocks_is_valid(net: str, tmp_path: Path) -> None:
    model = NETS[net](6)
    blocks = Blocks(model)
    onnx.checker.check_model(blocks.without({block.out for block in blocks.all}), full_check=True)
    onnx.save(model, tmp_path / "model.onnx")
    assert survey(tmp_path / "model.onnx")["blocks"] == len(blocks.all)


def test_blocks_are_found_when_sizes_are_open_and_nothing_was_stretched() -> None:
    model = residual(7)
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.ClearField("dim_value")
    assert len(Blocks(model).all) == 2
    net = Net(8)
    x = net.add("Relu", net.conv("x", 2, 4))
    pooled = net.add("GlobalAveragePool", x)
    wide = net.add("Add", net.conv(x, 4, 4), pooled)
    y = net.add("Gemm", net.add("Flatten", net.add("GlobalAveragePool", wide)), net.weight(4, 5))
    stretched = net.done(y, [2, 6, 6])
    for dim in stretched.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.ClearField("dim_value")
    # Without the convolution the sum would be one number for each channel.
    assert not Blocks(stretched).all
