"""Normalizations; only BatchNormalization behaves otherwise while training."""

from __future__ import annotations

from typing import Any

from engine.optimize.torch_graph.table import Call, operator


@operator("BatchNormalization")
def batch_normalization(call: Call, x: Any, scale: Any, bias: Any, mean: Any, variance: Any) -> Any:
    """Training: statistics of the batch, and running = momentum running + (1 - momentum) batch, in place.

    One value for each channel has no variance; such a batch goes by the running statistics.
    """
    training = call.training and x.numel() > x.shape[1]
    return call.f.batch_norm(
        x, mean, variance, scale, bias, training, 1 - call.get("momentum", 0.9), call.get("epsilon", 1e-5)
    )


@operator("LayerNormalization")
def layer_normalization(call: Call, x: Any, scale: Any, bias: Any = None) -> Any:
    axis = call.get("axis", -1) % x.ndim
    normal = call.f.layer_norm(x, x.shape[axis:], None, None, call.get("epsilon", 1e-5)) * scale
    return normal if bias is None else normal + bias


@operator("InstanceNormalization")
def instance_normalization(call: Call, x: Any, scale: Any, bias: Any) -> Any:
    return call.f.instance_norm(x, weight=scale, bias=bias, eps=call.get("epsilon", 1e-5))


@operator("LpNormalization")
def lp_normalization(call: Call, x: Any) -> Any:
    return call.f.normalize(x, p=call.get("p", 2), dim=call.get("axis", -1), eps=0.0)
