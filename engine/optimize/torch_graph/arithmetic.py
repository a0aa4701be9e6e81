"""Operators of numbers: elementwise, reductions, products of matrices."""

from __future__ import annotations

import functools
import operator as python
from collections.abc import Callable
from typing import Any

from engine.optimize.torch_graph.table import Call, operator, unsupported

# Operators that are one function of torch, by its name there.
_SAME = {
    "Sqrt": "sqrt", "Exp": "exp", "Log": "log", "Neg": "neg", "Abs": "abs", "Erf": "erf", "Reciprocal": "reciprocal",
    "Floor": "floor", "Ceil": "ceil", "Round": "round", "Sign": "sign", "Sin": "sin", "Cos": "cos",
    "Not": "logical_not", "And": "logical_and", "Or": "logical_or", "Where": "where", "MatMul": "matmul",
    "Add": "add", "Sub": "sub", "Mul": "mul", "Equal": "eq", "Greater": "gt", "Less": "lt", "GreaterOrEqual": "ge",
    "LessOrEqual": "le",
}  # fmt: skip
_REDUCTIONS: dict[str, Callable[[Call, Any, list[int], bool], Any]] = {
    "ReduceMean": lambda call, x, axes, keep: x.mean(axes, keepdim=keep),
    "ReduceSum": lambda call, x, axes, keep: x.sum(axes, keepdim=keep),
    "ReduceMax": lambda call, x, axes, keep: x.amax(axes, keepdim=keep),
    "ReduceMin": lambda call, x, axes, keep: x.amin(axes, keepdim=keep),
    "ReduceL1": lambda call, x, axes, keep: x.abs().sum(axes, keepdim=keep),
    "ReduceL2": lambda call, x, axes, keep: x.square().sum(axes, keepdim=keep).sqrt(),
    "ReduceSumSquare": lambda call, x, axes, keep: x.square().sum(axes, keepdim=keep),
    "ReduceLogSumExp": lambda call, x, axes, keep: x.logsumexp(axes, keepdim=keep),
}


def _enter() -> None:
    def same(name: str, call: Call, *inputs: Any) -> Any:
        return getattr(call.torch, name)(*inputs)

    def reduction(function: Callable[..., Any], call: Call, x: Any, axes: Any = None) -> Any:
        chosen = call.numbers("axes", axes)
        if not chosen and call.get("noop_with_empty_axes", 0):
            return x
        return function(call, x, chosen or list(range(x.ndim)), bool(call.get("keepdims", 1)))

    for name, there in _SAME.items():
        operator(name)(functools.partial(same, there))
    for name, function in _REDUCTIONS.items():
        operator(name)(functools.partial(reduction, function))


_enter()


@operator("Div")
def div(call: Call, a: Any, b: Any) -> Any:
    """Whole numbers are cut off, as in C."""
    return a / b if a.is_floating_point() else call.torch.div(a, b, rounding_mode="trunc")


@operator("Pow")
def power(call: Call, a: Any, b: Any) -> Any:
    return call.torch.pow(a, b).to(a.dtype)


@operator("Sum")
def total(call: Call, *inputs: Any) -> Any:
    return functools.reduce(python.add, inputs)


@operator("Max")
def largest(call: Call, *inputs: Any) -> Any:
    return functools.reduce(call.torch.maximum, inputs)


@operator("Min")
def smallest(call: Call, *inputs: Any) -> Any:
    return functools.reduce(call.torch.minimum, inputs)


@operator("Clip")
def clip(call: Call, x: Any, low: Any = None, high: Any = None) -> Any:
    least = call.get("min") if low is None else low.item()
    most = call.get("max") if high is None else high.item()
    return x if least is None and most is None else x.clamp(least, most)


@operator("Gemm")
def gemm(call: Call, a: Any, b: Any, c: Any = None) -> Any:
    """alpha A' B' + beta C."""
    a = a.T if call.get("transA", 0) else a
    b = b.T if call.get("transB", 0) else b
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    if c is not None and alpha == beta == 1 and c.ndim == 1:
        return call.torch.addmm(c, a, b)
    product = alpha * (a @ b)
    return product if c is None else product + beta * c


@operator("Einsum")
def einsum(call: Call, *inputs: Any) -> Any:
    return call.torch.einsum(call.get("equation"), *inputs)


@operator("ArgMax")
def argmax(call: Call, x: Any) -> Any:
    if call.get("select_last_index", 0):
        raise unsupported("ArgMax of the last index cannot be trained.")
    return x.argmax(call.get("axis", 0), keepdim=bool(call.get("keepdims", 1)))


@operator("Cast", "CastLike")
def cast(call: Call, x: Any, like: Any = None) -> Any:
    if like is not None:
        return x.to(like.dtype)
    import onnx

    number = call.get("to")
    name = onnx.helper.tensor_dtype_to_np_dtype(number).name
    if name not in {"float32", "float64", "float16", "int8", "int16", "int32", "int64", "uint8", "bool"}:
        raise unsupported(f"A Cast to {name} cannot be trained.")
    return x.to(getattr(call.torch, name))


@operator("Scaler", domain="ai.onnx.ml")
def scaler(call: Call, x: Any) -> Any:
    """(x - offset) scale."""
    offset, scale = (
        call.torch.tensor(call.get(name, [default])) for name, default in (("offset", 0.0), ("scale", 1.0))
    )
    return (x.float() - offset) * scale


@operator("Normalizer", domain="ai.onnx.ml")
def normalizer(call: Call, x: Any) -> Any:
    """Each row over its largest value, its sum of magnitudes, or its length; a row of zeros stays."""
    kind = call.get("norm", "MAX")
    if kind == "MAX":
        size = x.amax(-1, keepdim=True)
    else:
        size = x.abs().sum(-1, keepdim=True) if kind == "L1" else x.square().sum(-1, keepdim=True).sqrt()
    return x / call.torch.where(size == 0, call.torch.ones_like(size), size)
