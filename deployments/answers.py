"""An inference server's answer as a table: what it decided first, probabilities as bars with their classes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

ROWS = 50
TOP, FEW = 5, 3  # classes shown of one row, and of each of several
VALUES = 6
LONGEST_MAP = 100_000
_LABELS = ("label", "class", "prediction", "predicted", "output_label")


def answer_table(document: Any, classes: list[str]) -> dict[str, Any] | None:
    """{"outputs": [names], "rows": [[cell, …]], "more": rows not shown}, or None when it is no V2 answer.

    A cell is {"value": text, "name": class} or {"bars": [{"name", "value", "percent"}], "more"} or {"scores":
    [{"name", "value"}], "more"} or {"list", "more"}. Outputs without one entry a row are not in the table but in
    "others": [{"name", "shape"}].
    """
    outputs = document.get("outputs") if isinstance(document, dict) else None
    if not isinstance(outputs, list) or not outputs or not all(_whole(one) for one in outputs):
        return None
    height = max((one["shape"][0] for one in outputs if one["shape"]), default=0)
    inside = [one for one in outputs if one["shape"] and one["shape"][0] == height and len(one["shape"]) <= 2]
    inside.sort(key=_rank)
    columns = [_column(one, classes) for one in inside]
    rows = [[column[row] for column in columns] for row in range(min(height, ROWS))]
    return {
        "outputs": [one["name"] for one in inside],
        "rows": rows,
        "more": max(0, height - ROWS),
        "others": [{"name": one["name"], "shape": one["shape"]} for one in outputs if one not in inside],
    }


def _whole(output: Any) -> bool:
    if not isinstance(output, dict) or not isinstance(output.get("name"), str):
        return False
    shape, data = output.get("shape"), output.get("data")
    if not isinstance(shape, list) or not isinstance(data, list):
        return False
    return all(type(dim) is int and dim >= 0 for dim in shape) and math.prod(shape) == len(data)


def _rank(output: dict[str, Any]) -> tuple[int, int]:
    """The label first, then what is small."""
    name, width = output["name"].lower(), math.prod(output["shape"][1:])
    return (0 if name in _LABELS else 1 if width == 1 else 2, width)


def _column(output: dict[str, Any], classes: list[str]) -> list[dict[str, Any]]:
    data, width = output["data"], math.prod(output["shape"][1:])
    height = min(output["shape"][0], ROWS)
    if width == 1 and output.get("datatype") == "BYTES" and (maps := _maps(data[:height])):
        return [_several(list(each.values()), list(each), TOP if height == 1 else FEW) for each in maps]
    if width == 1:
        index = output.get("datatype") != "BYTES" and output["name"].lower() in _LABELS
        return [_single(value, classes if index else []) for value in data[:height]]
    top = TOP if height == 1 else FEW
    return [_several(data[row * width : (row + 1) * width], classes, top) for row in range(height)]


def _maps(texts: list[Any]) -> list[dict[str, float]]:
    """A ZipMap's answer, {class: number} as JSON in each row; [] for any other texts."""
    found = []
    for text in texts:
        if not (isinstance(text, str) and text.startswith("{") and len(text) <= LONGEST_MAP):
            return []
        try:
            each = json.loads(text)
        except (ValueError, RecursionError):  # the latter of braces thousands deep
            return []
        if not all(type(value) in (int, float) for value in each.values()):
            return []
        found.append(each)
    return found


def _single(value: Any, classes: list[str]) -> dict[str, Any]:
    """One value; a class's number gets the class's name beside it, unless the names are numbers themselves."""
    named = bool(classes) and not all(name.lstrip("-").isdigit() for name in classes)
    name = classes[value] if named and type(value) is int and 0 <= value < len(classes) else ""
    return {"value": shown(value), "name": name}


def _several(values: list[Any], classes: list[str], top: int) -> dict[str, Any]:
    names = classes if len(classes) == len(values) else [str(place) for place in range(len(values))]
    if probabilities(values):
        best = sorted(zip(names, values, strict=True), key=lambda pair: -pair[1])
        bars = [{"name": name, "value": value, "percent": 100 * value} for name, value in best[:top]]
        return {"bars": bars, "more": len(values) - len(bars)}
    if len(classes) == len(values) and all(isinstance(value, int | float) for value in values):
        best = sorted(zip(names, values, strict=True), key=lambda pair: -pair[1])
        return {"scores": [{"name": n, "value": shown(v)} for n, v in best[:top]], "more": max(0, len(values) - top)}
    return {"list": [shown(value) for value in values[:VALUES]], "more": max(0, len(values) - VALUES)}


def probabilities(values: Iterable[Any]) -> bool:
    """Whether numbers are shares of one."""
    found = list(values)
    if len(found) < 2 or not all(isinstance(one, int | float) and 0 <= one <= 1.0001 for one in found):
        return False
    return abs(sum(found) - 1) < 0.01


def shown(value: Any) -> str:
    """A number with five significant digits, a text as it is, null as a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.5g}"
    return str(value)[:200]
