"""What a person fills in to call a model: a table, JSON, an image or text, told from the model's metadata."""

from __future__ import annotations

import re
from typing import Any

from registry.models import Version

MOST_COLUMNS = 1000
MOST_ROWS = 100
IMAGE_CHANNELS = (1, 3)
DEFAULT_SIDE = 224
LARGEST_SIDE = 2048


def inputs_of(signature: dict[str, Any], version: Version | None) -> dict[str, Any]:
    """{"kinds", "first", "inputs"} and, for each kind that the signature allows, how the request is built.

    "table": {"style": "matrix" | "columns", "columns": [{"name", "datatype"}]}; one tensor of rows × features, or
    one tensor for each feature. "image": {"layouts", "layout", "channels", "height", "width"}, sides of None are
    free. "text": {"rank", "rows"}: BYTES of one string a row.
    """
    inputs = [
        {"name": str(one["name"]), "datatype": str(one["datatype"]), "shape": list(one.get("shape") or [])}
        for one in signature.get("inputs") or []
    ]
    found: dict[str, Any] = {"inputs": inputs}
    if table := _table(inputs, version):
        found["table"] = table
    if len(inputs) == 1:
        if image := _image(inputs[0]):
            found["image"] = image
        if text := _text(inputs[0]):
            found["text"] = text
    found["kinds"] = [kind for kind in ("table", "image", "text") if kind in found] + ["json"]
    found["first"] = next((kind for kind in ("text", "image", "table") if kind in found), "json")
    return found


def _free(dim: Any) -> bool:
    return dim is None or dim < 1


def _table(inputs: list[dict[str, Any]], version: Version | None) -> dict[str, Any] | None:
    if len(inputs) == 1 and inputs[0]["datatype"] != "BYTES" and len(inputs[0]["shape"]) == 2:
        width = inputs[0]["shape"][1]
        if _free(width) or width > MOST_COLUMNS or (_rows(inputs[0]["shape"][0]) or 1) > MOST_ROWS:
            return None
        names = column_names(version, width)
        kind = inputs[0]["datatype"]
        columns = [{"name": name, "datatype": kind} for name in names or [f"x{n}" for n in range(width)]]
        return {"style": "matrix", "columns": columns, "named": bool(names), "rows": _rows(inputs[0]["shape"][0])}
    if 1 < len(inputs) <= MOST_COLUMNS and all(_is_column(one["shape"]) for one in inputs):
        columns = [{"name": one["name"], "datatype": one["datatype"]} for one in inputs]
        return {"style": "columns", "columns": columns, "named": True, "rows": _rows(inputs[0]["shape"][0])}
    return None


def _rows(dim: Any) -> int | None:
    """How many rows a request must have; None is any."""
    return None if _free(dim) else int(dim)


def _is_column(shape: list[Any]) -> bool:
    return len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)


def column_names(version: Version | None, width: int) -> list[str] | None:
    """Names of the features in the order of the tensor, where the version tells it for certain."""
    if version is None:
        return None
    recorded = (version.signature or {}).get("inputs") or []
    if len(recorded) == width and all(_is_column(one.get("shape") or [-1]) for one in recorded) and width > 1:
        return [str(one["name"]) for one in recorded]
    # PostgreSQL keeps no order of keys: only numbered names have one of their own.
    names = list((version.baseline or {}).get("features") or {})
    numbered = [re.fullmatch(r"(\D*)(\d+)", name) for name in names]
    if len(names) == width and all(numbered) and len({match[1] for match in numbered if match}) == 1:
        return sorted(names, key=lambda name: int(re.sub(r"\D", "", name)))
    return None


def _image(tensor: dict[str, Any]) -> dict[str, Any] | None:
    """The layouts that a tensor can have as an image, the likelier first."""
    shape, free = tensor["shape"], _free
    if tensor["datatype"] in {"BYTES", "BOOL", "INT8"} or len(shape) not in (3, 4):
        return None
    if not (free(shape[0]) or shape[0] == 1) and len(shape) == 4:
        return None
    layouts = []
    for layout in ("NCHW", "NHWC") if len(shape) == 4 else ("CHW", "HWC", "NHW"):
        sizes = dict(zip(layout, shape, strict=True))
        channels = sizes.get("C", 1)
        if channels not in IMAGE_CHANNELS and not (free(channels) and len(shape) == 4):
            continue
        if not all(free(sizes[side]) or 4 <= sizes[side] <= LARGEST_SIDE for side in "HW"):
            continue
        if "N" in sizes and not free(sizes["N"]) and sizes["N"] != 1:
            continue
        layouts.append(
            {
                "name": layout,
                "channels": 3 if free(channels) else channels,
                "height": None if free(sizes["H"]) else sizes["H"],
                "width": None if free(sizes["W"]) else sizes["W"],
            }
        )
    layouts.sort(key=lambda one: _free(dict(zip(one["name"], shape, strict=True)).get("C", 1)))
    return {"layouts": layouts, "side": DEFAULT_SIDE} if layouts else None


def _text(tensor: dict[str, Any]) -> dict[str, Any] | None:
    if tensor["datatype"] != "BYTES" or not _is_column(tensor["shape"]):
        return None
    return {"rank": len(tensor["shape"]), "rows": _rows(tensor["shape"][0])}


def class_names(artifact: Any, version: Version | None) -> list[str]:
    """Names of the classes in the order of the scores: as the exporter recorded them, or numbered ones."""
    labels = artifact.recipe.get("labels") if artifact is not None else None
    parent = artifact.parent if artifact is not None else None
    if not labels and parent is not None:
        labels = parent.recipe.get("labels")
    if isinstance(labels, list) and labels:
        return [str(label) for label in labels]
    seen = list(((version.baseline or {}).get("target") or {}) if version is not None else {})
    return sorted(seen, key=int) if seen and all(name.isascii() and name.isdigit() for name in seen) else sorted(seen)
