"""Convolutions and pooling, with the ways of padding that ONNX has."""

from __future__ import annotations

from typing import Any

from engine.optimize.torch_graph.table import Call, operator, unsupported


def pads_of(call: Call, sizes: list[int], kernel: list[int]) -> tuple[list[int], list[int]]:
    """(before, after) for each dimension. SAME: ceil(size / stride) results, the odd one after (UPPER) or before."""
    count = len(kernel)
    mode = call.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", "VALID"):
        pads = call.get("pads", [0] * 2 * count) if mode == "NOTSET" else [0] * 2 * count
        return list(pads[:count]), list(pads[count:])
    strides, dilations = call.get("strides", [1] * count), call.get("dilations", [1] * count)
    totals = [
        max(0, (-(-size // stride) - 1) * stride + (width - 1) * dilation + 1 - size)
        for size, stride, width, dilation in zip(sizes, strides, kernel, dilations, strict=True)
    ]
    return _halves(totals, upper=mode == "SAME_UPPER")


def _halves(totals: list[int], upper: bool) -> tuple[list[int], list[int]]:
    less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return (less, more) if upper else (more, less)


def padded(call: Call, x: Any, before: list[int], after: list[int], value: float = 0.0) -> Any:
    """torch names the last dimension first."""
    pairs = [size for pair in zip(reversed(before), reversed(after), strict=True) for size in pair]
    return call.f.pad(x, pairs, value=value) if any(pairs) else x


def _dimensional(call: Call, name: str, x: Any) -> Any:
    """torch's function for the number of spatial dimensions, such as conv2d."""
    if not 1 <= x.ndim - 2 <= 3:
        raise unsupported(f"{name} of {x.ndim - 2} dimensions cannot be trained.")
    return getattr(call.f, f"{name}{x.ndim - 2}d")


@operator("Conv")
def conv(call: Call, x: Any, weight: Any, bias: Any = None) -> Any:
    kernel = list(weight.shape[2:])
    before, after = pads_of(call, list(x.shape[2:]), kernel)
    if before != after:
        x, before = padded(call, x, before, after), [0] * len(kernel)
    ones = [1] * len(kernel)
    return _dimensional(call, "conv", x)(
        x, weight, bias, call.get("strides", ones), before, call.get("dilations", ones), call.get("group", 1)
    )


@operator("ConvTranspose")
def conv_transpose(call: Call, x: Any, weight: Any, bias: Any = None) -> Any:
    """Everything is computed, then the pads are cut off: torch has only equal ones."""
    kernel, sizes = list(weight.shape[2:]), list(x.shape[2:])
    ones = [1] * len(kernel)
    strides, dilations = call.get("strides", ones), call.get("dilations", ones)
    extra = call.get("output_padding", [0] * len(kernel))
    asked, mode = call.get("output_shape"), call.get("auto_pad", "NOTSET")
    if mode.startswith("SAME") and asked is None:
        asked = [size * stride for size, stride in zip(sizes, strides, strict=True)]
    whole = _dimensional(call, "conv_transpose", x)(x, weight, bias, strides, 0, extra, call.get("group", 1), dilations)
    if asked is None:
        before, after = pads_of(call, sizes, kernel)
    else:
        totals = [have - want for have, want in zip(whole.shape[2:], asked[-len(kernel) :], strict=True)]
        before, after = _halves(totals, upper=mode == "SAME_UPPER")
    return padded(call, whole, [-size for size in before], [-size for size in after])


@operator("MaxPool")
def max_pool(call: Call, x: Any) -> Any:
    if call.outputs > 1:
        raise unsupported("MaxPool with indices cannot be trained.")
    kernel = call.get("kernel_shape")
    before, after = pads_of(call, list(x.shape[2:]), kernel)
    if before != after or any(pad > size // 2 for pad, size in zip(before, kernel, strict=True)):
        x, before = padded(call, x, before, after, -float("inf")), [0] * len(kernel)
    ones = [1] * len(kernel)
    return _dimensional(call, "max_pool", x)(
        x, kernel, call.get("strides", ones), before, call.get("dilations", ones), bool(call.get("ceil_mode", 0))
    )


@operator("AveragePool")
def average_pool(call: Call, x: Any) -> Any:
    """Uneven pads that do not count: the mean over what is there is the mean of x over the mean of ones."""
    kernel = call.get("kernel_shape")
    if any(size != 1 for size in call.get("dilations", [])):
        raise unsupported("AveragePool with dilations cannot be trained.")
    before, after = pads_of(call, list(x.shape[2:]), kernel)
    pool, strides = _dimensional(call, "avg_pool", x), call.get("strides", [1] * len(kernel))
    ceil, count = bool(call.get("ceil_mode", 0)), bool(call.get("count_include_pad", 0))
    if before == after and all(pad <= size // 2 for pad, size in zip(before, kernel, strict=True)):
        return pool(x, kernel, strides, before, ceil, count)
    mean = pool(padded(call, x, before, after), kernel, strides, 0, ceil)
    if count:
        return mean
    return mean / pool(padded(call, call.torch.ones_like(x[:1, :1]), before, after), kernel, strides, 0, ceil)


@operator("GlobalAveragePool")
def global_average_pool(call: Call, x: Any) -> Any:
    return x.mean(list(range(2, x.ndim)), keepdim=True)


@operator("GlobalMaxPool")
def global_max_pool(call: Call, x: Any) -> Any:
    return x.amax(list(range(2, x.ndim)), keepdim=True)
