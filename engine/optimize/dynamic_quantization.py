"""Dynamic int8: weights are stored as 8-bit integers, activations are quantized call by call."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from engine.errors import EngineError
from engine.optimize.base import NOTHING
from engine.optimize.material import Material


class DynamicQuantization:
    """Good for matrix multiplications; slower than before for convolutions, which are left alone by default."""

    name = "dynamic-quantization"
    label = "Dynamic int8 quantization"
    family = "quantization"
    needs = NOTHING
    environment = None

    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid")
        per_channel: bool = Field(False, description="One scale for each column of weights: finer, a little slower.")
        reduce_range: bool = Field(False, description="7 bits, for CPUs without VNNI.")
        convolutions: bool = Field(False, description="Quantize convolutions too: smaller, usually slower.")

    def optimize(self, model: Path, target: Path, options: Options, material: Material) -> list[str]:
        """EngineError(code="no-gain") when there is nothing in the model that could be quantized."""
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
        from onnxruntime.quantization.shape_inference import quant_pre_process

        operators = ["MatMul", "Gemm", "Attention", "LSTM", "EmbedLayerNormalization", "Gather"]
        if options.convolutions:
            operators.append("Conv")
        graph = onnx.load(str(model), load_external_data=False).graph
        if not any(node.op_type in operators for node in graph.node):
            raise _nothing()
        notes = []
        with tempfile.TemporaryDirectory() as folder:
            prepared = Path(folder, "prepared.onnx")
            try:
                quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
            except Exception as error:
                # Preparation folds constants and names shapes; it helps and is not needed.
                print(f"preparation failed: {type(error).__name__}")
                notes.append("The graph could not be prepared, so fewer parts may be quantized.")
                prepared = model
            before = Counter(node.op_type for node in onnx.load(str(prepared)).graph.node)
            quantize_dynamic(
                str(prepared),
                str(target),
                op_types_to_quantize=operators,
                per_channel=options.per_channel,
                reduce_range=options.reduce_range,
                # Behind operators of other domains (a scikit-learn scaler) shape inference knows no types.
                extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
                # Signed weights for convolutions would need ConvInteger with s8 weights, which CPUs lack.
                weight_type=QuantType.QUInt8 if options.convolutions else QuantType.QInt8,
            )
        variant = onnx.load(str(target))
        _drop_unused_domains(variant)
        onnx.save(variant, str(target))
        after = Counter(node.op_type for node in variant.graph.node)
        changed = sum(max(0, before[name] - after[name]) for name in operators)
        if not changed:
            raise _nothing()
        notes.append(f"{changed} operators quantized to int8.")
        return notes


def _drop_unused_domains(model: Any) -> None:
    """ONNX Runtime declares every operator set it knows; the check (rightly) wants to see only what is used."""
    from engine.scan.onnx_structure import graphs

    used = {node.domain for graph, _ in graphs(model) for node in graph.node} | {""}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _nothing() -> EngineError:
    return EngineError("This model has no matrix multiplications to quantize.", field="optimizer", code="no-gain")
