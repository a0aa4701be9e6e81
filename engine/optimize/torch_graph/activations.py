"""Activations, as the ONNX operator specification defines them."""

from __future__ import annotations

from typing import Any

from engine.optimize.torch_graph.table import Call, operator


@operator("Relu")
def relu(call: Call, x: Any) -> Any:
    return call.f.relu(x)


@operator("Sigmoid")
def sigmoid(call: Call, x: Any) -> Any:
    return x.sigmoid()


@operator("Tanh")
def tanh(call: Call, x: Any) -> Any:
    return x.tanh()


@operator("Softplus")
def softplus(call: Call, x: Any) -> Any:
    return call.f.softplus(x)


@operator("Softsign")
def softsign(call: Call, x: Any) -> Any:
    return call.f.softsign(x)


@operator("Mish")
def mish(call: Call, x: Any) -> Any:
    return call.f.mish(x)


@operator("LeakyRelu")
def leaky_relu(call: Call, x: Any) -> Any:
    return call.f.leaky_relu(x, call.get("alpha", 0.01))


@operator("PRelu")
def prelu(call: Call, x: Any, slope: Any) -> Any:
    """The slope broadcasts from the right, unlike torch's, which goes by channel."""
    return call.torch.where(x >= 0, x, slope * x)


@operator("Elu")
def elu(call: Call, x: Any) -> Any:
    return call.f.elu(x, call.get("alpha", 1.0))


@operator("Celu")
def celu(call: Call, x: Any) -> Any:
    return call.f.celu(x, call.get("alpha", 1.0))


@operator("Selu")
def selu(call: Call, x: Any) -> Any:
    alpha, gamma = call.get("alpha", 1.67326319217681884765625), call.get("gamma", 1.05070102214813232421875)
    return gamma * call.f.elu(x, alpha)


@operator("HardSigmoid")
def hard_sigmoid(call: Call, x: Any) -> Any:
    return (call.get("alpha", 0.2) * x + call.get("beta", 0.5)).clamp(0, 1)


@operator("HardSwish")
def hard_swish(call: Call, x: Any) -> Any:
    return call.f.hardswish(x)


@operator("Gelu")
@operator("Gelu", domain="com.microsoft")
def gelu(call: Call, x: Any) -> Any:
    return call.f.gelu(x, approximate=call.get("approximate", "none"))


def _over_axis(call: Call, x: Any, function: Any) -> Any:
    """Before operator set 13 all dimensions from `axis` on are one."""
    if call.opset >= 13:
        return function(x, dim=call.get("axis", -1))
    axis = call.get("axis", 1) % x.ndim
    rows = 1
    for size in x.shape[:axis]:
        rows *= size
    return function(x.reshape(rows, -1), dim=1).reshape(x.shape)


@operator("Softmax")
def softmax(call: Call, x: Any) -> Any:
    return _over_axis(call, x, call.torch.softmax)


@operator("LogSoftmax")
def log_softmax(call: Call, x: Any) -> Any:
    return _over_axis(call, x, call.torch.log_softmax)
