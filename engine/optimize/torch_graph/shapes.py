"""Operators that move values and make none."""

from __future__ import annotations

import math
from typing import Any

from engine.optimize.torch_graph.table import Call, operator, unsupported


@operator("Identity", "Dropout")
def identity(call: Call, x: Any, *unused: Any) -> Any:
    """Dropout too: a stored graph is one for answering."""
    return x


@operator("Constant")
def constant(call: Call) -> Any:
    """Tensors are taken by the graph itself; here are the short forms."""
    for name, kind in (("value_float", "float32"), ("value_floats", "float32"), ("value_int", "int64"),
                       ("value_ints", "int64")):  # fmt: skip
        if name in call.attributes:
            return call.torch.tensor(call.attributes[name], dtype=getattr(call.torch, kind))
    raise unsupported("A Constant without numbers cannot be trained.")


@operator("ConstantOfShape")
def constant_of_shape(call: Call, shape: Any) -> Any:
    import onnx

    value = call.get("value")
    filled = call.torch.zeros(1) if value is None else call.torch.tensor(onnx.numpy_helper.to_array(value))
    return filled.expand(shape.tolist())


@operator("Shape")
def shape(call: Call, x: Any) -> Any:
    return call.torch.tensor(list(x.shape)[call.get("start", 0) : call.get("end")], dtype=call.torch.int64)


@operator("Flatten")
def flatten(call: Call, x: Any) -> Any:
    axis = call.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@operator("Reshape")
def reshape(call: Call, x: Any, wanted: Any) -> Any:
    """0 copies a dimension."""
    sizes = wanted.tolist()
    if not call.get("allowzero", 0):
        sizes = [x.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return x.reshape(sizes)


@operator("Transpose")
def transpose(call: Call, x: Any) -> Any:
    return x.permute(call.get("perm", list(reversed(range(x.ndim)))))


@operator("Squeeze")
def squeeze(call: Call, x: Any, axes: Any = None) -> Any:
    chosen = call.numbers("axes", axes)
    return x.squeeze() if chosen is None else x.squeeze(tuple(chosen))


@operator("Unsqueeze")
def unsqueeze(call: Call, x: Any, axes: Any = None) -> Any:
    chosen = call.numbers("axes", axes) or []
    for axis in sorted(axis % (x.ndim + len(chosen)) for axis in chosen):
        x = x.unsqueeze(axis)
    return x


@operator("Concat")
def concat(call: Call, *inputs: Any) -> Any:
    return call.torch.cat(inputs, call.get("axis"))


@operator("Split")
def split(call: Call, x: Any, sizes: Any = None) -> Any:
    axis = call.get("axis", 0)
    chosen = call.numbers("split", sizes)
    return x.split(chosen if chosen is not None else -(-x.shape[axis] // call.outputs), axis)


@operator("Slice")
def slice_(call: Call, x: Any, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None) -> Any:
    """torch slices forwards only; the places are picked where a step is negative."""
    first, last = call.numbers("starts", starts) or [], call.numbers("ends", ends) or []
    dims = call.numbers("axes", axes) or list(range(len(first)))
    strides = call.numbers("steps", steps) or [1] * len(first)
    for start, end, axis, step in zip(first, last, dims, strides, strict=True):
        size = x.shape[axis]
        if step > 0:
            x = x[(slice(None),) * (axis % x.ndim) + (slice(start, end, step),)]
        else:
            places = range(size)[start:end:step]
            x = x.index_select(axis, call.torch.tensor(list(places), dtype=call.torch.int64))
    return x


@operator("Gather")
def gather(call: Call, x: Any, indices: Any) -> Any:
    axis = call.get("axis", 0) % x.ndim
    places = call.torch.where(indices < 0, indices + x.shape[axis], indices)
    found = x.index_select(axis, places.reshape(-1).long())
    return found.reshape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])


@operator("Expand")
def expand(call: Call, x: Any, wanted: Any) -> Any:
    """Both ways: a 1 in the wanted shape keeps what is there."""
    return x.expand(call.torch.broadcast_shapes(x.shape, wanted.tolist()))


@operator("Tile")
def tile(call: Call, x: Any, repeats: Any) -> Any:
    return x.repeat(repeats.tolist())


@operator("Pad")
def pad(call: Call, x: Any, pads: Any = None, value: Any = None, axes: Any = None) -> Any:
    """Constant padding of any dimension; reflected and repeated ones as far as torch has them."""
    given = call.numbers("pads", pads) or []
    dims = [axis % x.ndim for axis in call.numbers("axes", axes) or range(x.ndim)]
    sides = {axis: (given[i], given[i + len(dims)]) for i, axis in enumerate(dims)}
    pairs = [size for axis in reversed(range(x.ndim)) for size in sides.get(axis, (0, 0))]
    mode = call.get("mode", "constant")
    if mode == "constant":
        return call.f.pad(x, pairs, value=call.get("value", 0.0) if value is None else value.item())
    if mode not in ("reflect", "edge") or x.ndim < 3 or any(pairs[-4:]):
        raise unsupported(f"Pad with the mode {mode[:20]} cannot be trained.")
    return call.f.pad(x, pairs[:-4], mode="replicate" if mode == "edge" else mode)
