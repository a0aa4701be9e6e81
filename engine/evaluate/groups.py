"""The sandboxed task that sorts evaluation rows into groups whose quality is guarded, and keeps from the model the
columns that only say which group a row is of."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

from engine.errors import EngineError

MOST_VALUES = 50
# A column of numbers with more of them than this goes by quarters.
_FEW = 10
_NOTHING = "∅"
# Rows hold numbers as float32, which keeps whole ones apart up to here.
_EXACT = 2**24


def grouped(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Writes groups.json, which `read` understands, for inputs["evaluation"]; and where one of params["slices"]
    is no input of a model with params["signature"], each file of the inputs (evaluation, calibration, training)
    without it, as <name>.parquet. params: slices (names of columns), signature, target.

    {"aside": [columns that are no inputs], "rows": {name: rows, of each file written}}.
    EngineError(field="slices") for a column that is missing, is the target, or has more than 50 values.
    """
    from engine.evaluate import rows

    target, names = str(params.get("target") or "target"), [str(name) for name in params["slices"]]
    loaded = {name: rows.load(file, target, beside=names) for name, file in inputs.items()}
    if target in names:
        raise _wrong(f"“{target}” is the target: its classes are guarded already.")
    judging = loaded["evaluation"]
    for name in names:
        if name not in judging.columns:
            raise _wrong(f"The evaluation set has no column “{name[:60]}”.")
    found = {name: _of_column(name, judging.column(name)) for name in names}
    (out / "groups.json").write_text(json.dumps(found))
    aside = _aside(params["signature"], judging, names)
    if not aside:
        return {"aside": [], "rows": {}}
    if len(aside) == len(judging.columns):
        raise _wrong("No column is left for the model.")
    for name, data in loaded.items():
        rows.save(data.without(aside), target, out / f"{name}.parquet")
    return {"aside": aside, "rows": {name: len(data) for name, data in loaded.items()}}


def read(file: Path) -> dict[str, tuple[list[str], Any]]:
    """{column: (names of its groups, the place of each row's group among them (n,))}."""
    import numpy as np

    found = json.loads(file.read_text())
    return {name: (one["names"], np.asarray(one["of"], dtype=int)) for name, one in found.items()}


def _of_column(column: str, values: Any) -> dict[str, Any]:
    """{"names", "of"}: texts and a few numbers as they are, many numbers by the quarters that they fall into."""
    import numpy as np

    if values.dtype != object:
        there = values[~np.isnan(values)]
        if len(np.unique(there)) > _FEW:
            return _quarters(values, there)
        if len(there) and np.abs(there).max() > _EXACT:
            raise _wrong(
                f"“{column[:60]}” has numbers beyond {_EXACT:,}, which are no longer told apart: give them as texts."
            )
        values = np.array([_number(value) for value in values.tolist()], dtype=object)
    values = np.where(values == "", _NOTHING, values).astype(str)
    names, codes = np.unique(values, return_inverse=True)
    if len(names) > MOST_VALUES:
        raise _wrong(
            f"“{column[:60]}” has {len(names)} values; at most {MOST_VALUES} can be guarded, or a column of numbers."
        )
    return {"names": [str(name)[:100] for name in names], "of": codes.tolist()}


def _number(value: float) -> str:
    """Of float32: as many digits as it takes to tell it from others."""
    if math.isnan(value):
        return _NOTHING
    return f"{value:.0f}" if value.is_integer() else f"{value:.7g}"


def _quarters(values: Any, there: Any) -> dict[str, Any]:
    import numpy as np

    edges = np.unique(np.quantile(there, [0.25, 0.5, 0.75]))
    told = [_number(edge) for edge in edges.tolist()]
    names = [f"≤ {told[0]}", *(f"{low} – {high}" for low, high in itertools.pairwise(told)), f"> {told[-1]}"]
    codes = np.searchsorted(edges, values, side="left")
    if len(there) < len(values):
        names.append(_NOTHING)
        codes[np.isnan(values)] = len(names) - 1
    return {"names": names, "of": codes.tolist()}


def _aside(signature: dict[str, Any], data: Any, names: list[str]) -> list[str]:
    """Those of the columns that a model with this signature does not take. One with a single input takes as many
    columns as its shape says; one with several takes those named like its inputs."""
    inputs = signature["inputs"]
    taken = {each["name"] for each in inputs}
    shape = inputs[0]["shape"][1:]
    if len(inputs) > 1 or (taken <= set(data.columns) and not shape):
        return [name for name in names if name not in taken]
    texts = [name for name in names if data.column(name).dtype == object and len(data.columns) > 1]
    if not all(size > 0 for size in shape):
        return texts
    over = len(data.columns) - len(texts) - math.prod(shape)
    numbers = [name for name in names if name not in texts]
    if 0 < over < len(numbers):
        listed = ", ".join(f"“{name[:60]}”" for name in numbers)
        raise _wrong(f"The model takes some of the columns {listed}, and it cannot be told which.")
    return [*texts, *(numbers if over > 0 else [])]


def _wrong(message: str) -> EngineError:
    return EngineError(message, field="slices", code="rows")
