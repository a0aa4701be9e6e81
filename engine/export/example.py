"""Rows to compare a model with when nobody gave any: its recorded example, else invented ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.evaluate.rows import Rows, from_frame, load
from engine.formats import signature
from engine.scan import mlmodel

_INVENTED = 256
_SEED = 20251125
_MAX_BYTES = 64 * 1024 * 1024


def rows_for(source: Path, given: Path | None, target: str) -> tuple[Rows, str]:
    """(rows, where they are from): "rows" as given, "example" of the MLflow model, or "synthesized"."""
    if given is not None:
        return load(given, target), "rows"
    data = mlmodel.read_yaml(source / "MLmodel", "MLmodel") if source.is_dir() and (source / "MLmodel").exists() else {}
    example = _example(source, data)
    if example is not None:
        return example, "example"
    described = signature.of_mlflow(data.get("signature"))
    if not described["inputs"]:
        raise EngineError(
            "The model has neither an input example nor a signature: give rows to compare with.",
            field="rows",
            code="rows",
        )
    return synthesize(described), "synthesized"


def synthesize(described: signature.Signature, values: dict[str, list[str]] | None = None) -> Rows:
    """256 rows of normal numbers, whole numbers 0..9 and short words, always the same.

    values: {input: what it may be} for inputs that take nothing else.
    """
    import numpy as np
    import pandas

    random = np.random.default_rng(_SEED)
    inputs = described["inputs"]
    columns: dict[str, Any] = {}
    for each in inputs:
        width = 1
        for size in each["shape"][1:]:
            width *= max(1, size)
        for index in range(width):
            name = each["name"] if width == 1 else f"x{index}" if len(inputs) == 1 else f"{each['name']}_{index}"
            if values and name in values:
                chosen = random.choice(values[name], _INVENTED)
                columns[name] = chosen if each["datatype"] == "BYTES" else chosen.astype(np.float64)
            elif each["datatype"] == "BYTES":
                columns[name] = random.choice(["alpha", "beta", "gamma delta"], _INVENTED)
            elif each["datatype"].startswith("FP"):
                columns[name] = random.normal(size=_INVENTED)
            else:
                columns[name] = random.integers(0, 10, _INVENTED)
    return from_frame(pandas.DataFrame(columns), None)


def _example(source: Path, data: dict[str, Any]) -> Rows | None:
    import numpy as np
    import pandas

    info = data.get("saved_input_example_info")
    if not isinstance(info, dict) or not isinstance(info.get("artifact_path"), str):
        return None
    path = (source / info["artifact_path"]).resolve()
    if not path.is_relative_to(source.resolve()) or not path.is_file() or path.stat().st_size > _MAX_BYTES:
        return None
    try:
        content = json.loads(path.read_text("utf-8"))
        if info.get("type") == "dataframe" and isinstance(content, dict):
            return from_frame(pandas.DataFrame(content["data"], columns=content.get("columns")), None)
        matrix = np.asarray(content["inputs"] if isinstance(content, dict) else content, dtype=np.float32)
        flat = matrix.reshape(len(matrix), -1)
        return from_frame(pandas.DataFrame(flat, columns=[f"x{i}" for i in range(flat.shape[1])]), None)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise EngineError("The model's input example cannot be read.", field="rows", code="rows") from error
