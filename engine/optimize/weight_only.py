"""Weight-only integers: matrices of 4 or 8 bits that ONNX Runtime multiplies as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from engine.optimize.base import NOTHING
from engine.optimize.material import Material


class WeightOnly:
    """MatMulNBits of ONNX Runtime (domain com.microsoft): w' = scale * (q - 2^(bits-1)), one scale for each block of
    weights of one output, scale = s / -2^(bits-1) with s the weight of the largest magnitude in the block, so that it
    is met exactly (ONNX Runtime's symmetric `MlasQuantizeBlockwise`; the layout is in its ContribOperators.md).
    A Gemm becomes this MatMul and an Add first."""

    name = "weight-only"
    label = "Weight-only integers (int8, int4)"
    family = "quantization"
    needs = NOTHING
    environment = None

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        bits: Literal[4, 8] = Field(4, description="Bits of a weight: 4 is half the size of 8, and coarser.")
        block: Literal[16, 32, 64, 128, 256] = Field(
            32, description="Weights that share a scale: fewer are nearer to the original and take more space."
        )
        int8_activations: bool = Field(
            True, description="Multiply with activations rounded to 8 bits: faster. Otherwise they stay float32."
        )

    def optimize(self, model: Path, target: Path, options: Options, material: Material) -> list[str]:
        """EngineError(code="no-gain") without matrix multiplications by weights."""
        from engine.optimize.graph.gemm import split_gemms
        from engine.optimize.graph.model import no_gain, open_model, save, use_domain
        from engine.optimize.graph.weights import weights

        opened = open_model(model)
        split_gemms(opened)
        found = {
            each.name: each
            for each in weights(opened)
            if each.node.op_type == "MatMul" and len(each.tensor.dims) == 2 and each.axis == 1
        }
        changed = 0
        for node in opened.graph.node:
            if node.op_type == "MatMul" and node.input[1] in found:
                weight = found[node.input[1]]
                _become_nbits(opened, node, weight, options)
                changed += 1
        if not changed:
            raise no_gain("no matrix multiplications by stored weights")
        use_domain(opened, "com.microsoft")
        save(opened, target)
        return [f"{changed} matrix multiplications hold int{options.bits} weights in blocks of {options.block}."]


def _become_nbits(model: Any, node: Any, weight: Any, options: WeightOnly.Options) -> None:
    from onnx import helper, numpy_helper

    stored, scaled = f"{weight.name}/int{options.bits}", f"{weight.name}/scales"
    columns = weight.rows()
    if all(each.name != stored for each in model.graph.initializer):
        codes, scales = blockwise(columns, options.bits, options.block)
        model.graph.initializer.append(numpy_helper.from_array(codes, stored))
        model.graph.initializer.append(numpy_helper.from_array(scales, scaled))
    made = helper.make_node(
        "MatMulNBits",
        [node.input[0], stored, scaled],
        list(node.output),
        name=node.name,
        domain="com.microsoft",
        K=columns.shape[1],
        N=columns.shape[0],
        bits=options.bits,
        block_size=options.block,
        accuracy_level=4 if options.int8_activations else 1,
    )
    node.CopyFrom(made)


def blockwise(columns: Any, bits: int, block: int) -> tuple[Any, Any]:
    """(uint8 (N, blocks, block * bits / 8), float32 scales (N * blocks,)) of float32 (N, K)."""
    import numpy as np

    count, depth = columns.shape
    padded = np.pad(columns, ((0, 0), (0, -depth % block))).reshape(count, -1, block)
    middle = 2 ** (bits - 1)
    extreme = np.take_along_axis(padded, np.abs(padded).argmax(axis=2)[..., None], axis=2)
    scales = (extreme / -middle).astype(np.float32)
    codes = np.rint(padded / np.where(scales == 0, 1, scales)) + middle
    codes = np.clip(codes, 0, 2 * middle - 1).astype(np.uint8)
    if bits == 4:
        codes = codes[..., 0::2] | (codes[..., 1::2] << 4)
    return codes, scales.reshape(-1)
