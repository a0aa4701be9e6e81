"""Open Inference Protocol V2 over REST: from rows that people have to tensors that the endpoint wants."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slipway.cli import output
from slipway.cli.client import Api, Json, decoded
from slipway.cli.errors import CliError, ExitCode
from slipway.cli.refs import segment

SHOWN = 10


def infer(
    api: Api, endpoint: str, *, data: str | None, file: Path | None, csv_file: Path | None, key: str | None
) -> Json:
    """One V2 call with what was given; the answer as it came."""
    if sum(each is not None for each in (data, file, csv_file)) != 1:
        raise CliError("Give exactly one of --data, --file and --csv.", ExitCode.USAGE)
    base = f"{api.connection.serving}/v2/models/{segment(endpoint)}"
    given = None if csv_file is not None else parsed(data if data is not None else text_of(file))
    if isinstance(given, dict) and "inputs" in given:
        body = given
    else:
        inputs = decoded(api.fetch("GET", base, repeat=True))["inputs"]
        tensors = csv_tensors(text_of(csv_file), inputs) if csv_file is not None else tensors_of(given, inputs)
        body = {"inputs": tensors}
    try:
        content = json.dumps(body, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise CliError(f"This cannot be sent as JSON: {error}.", ExitCode.INVALID) from None
    headers = {"Content-Type": "application/json", **({"X-Slipway-Key": key} if key else {})}
    return dict(decoded(api.fetch("POST", f"{base}/infer", content=content, headers=headers)))


def text_of(path: Path | None) -> str:
    """A file's text; `-` is stdin."""
    try:
        return sys.stdin.read() if path is None or str(path) == "-" else path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise CliError(f"{path} cannot be read: {error.strerror}.", ExitCode.USAGE) from None
    except UnicodeDecodeError:
        raise CliError(f"{path} is no UTF-8 text.", ExitCode.INVALID) from None


def parsed(text: str) -> Any:
    """JSON, or a sentence about where it is none."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise CliError(f"This is not JSON: {error.msg} ({where}).", ExitCode.INVALID) from None
    except RecursionError:
        raise CliError("This JSON is too deep.", ExitCode.INVALID) from None


def tensors_of(given: Any, inputs: Sequence[Json]) -> list[Json]:
    """V2 tensors of `rows` (one input) or of {input: rows}."""
    if isinstance(given, dict):
        known = {each["name"]: each for each in inputs}
        if unknown := [name for name in given if name not in known]:
            raise CliError(f"There is no input “{unknown[0]}”. It has: {', '.join(known)}.", ExitCode.INVALID)
        return [tensor(known[name], value) for name, value in given.items()]
    if len(inputs) != 1:
        names = ", ".join(each["name"] for each in inputs)
        raise CliError(f"The model has several inputs; give them by name: {names}.", ExitCode.INVALID)
    return [tensor(inputs[0], given)]


def tensor(meta: Json, value: Any) -> Json:
    """One V2 tensor: the shape is that of the nested lists, with leading ones up to the input's rank."""
    shape = _shape_of(value, meta["name"])
    flat: list[Any] = []
    _flatten(value, shape, flat, meta["name"])
    wanted = meta["shape"]
    if len(shape) == 1 and len(wanted) == 2 and wanted[1] == 1:
        shape = [*shape, 1]  # a column, as models of tables have
    shape = [1] * (len(wanted) - len(shape)) + shape
    return {"name": meta["name"], "shape": shape, "datatype": meta["datatype"], "data": flat}


def _shape_of(value: Any, name: str) -> list[int]:
    shape: list[int] = []
    while isinstance(value, list):
        shape.append(len(value))
        if not value:
            break
        if len(shape) > 32:
            raise CliError(f"{name}: this is nested too deep.", ExitCode.INVALID)
        value = value[0]
    return shape


def _flatten(value: Any, shape: Sequence[int], into: list[Any], name: str) -> None:
    if not shape:
        if isinstance(value, list | dict) or value is None:
            raise CliError(f"{name}: rows must be of one length, and hold values only.", ExitCode.INVALID)
        into.append(value)
        return
    if not isinstance(value, list) or len(value) != shape[0]:
        raise CliError(f"{name}: rows must be of one length.", ExitCode.INVALID)
    for each in value:
        _flatten(each, shape[1:], into, name)


def csv_tensors(text: str, inputs: Sequence[Json]) -> list[Json]:
    """Tensors of CSV rows: all columns for a single input, else one column for each input by its head."""
    try:
        rows = [row for row in csv.reader(text.splitlines()) if any(field.strip() for field in row)]
    except csv.Error as error:
        raise CliError(f"This CSV cannot be read: {error}.", ExitCode.INVALID) from None
    names = [field.strip() for field in rows[0]] if rows else []
    has_head = bool(rows) and _is_head(names, inputs)
    body = rows[1:] if has_head else rows
    if not body:
        raise CliError("The CSV has no rows.", ExitCode.INVALID)
    width, first = len(names), 2 if has_head else 1
    for number, row in enumerate(body, start=first):
        if len(row) != width:
            raise CliError(f"Row {number} has {len(row)} fields, the first one {width}.", ExitCode.INVALID)
    if len(inputs) == 1:
        datatype = inputs[0]["datatype"]
        table = [[_field(field, datatype, number) for field in row] for number, row in enumerate(body, start=first)]
        flat = width == 1 and len(inputs[0]["shape"]) == 1
        return [tensor(inputs[0], [row[0] for row in table] if flat else table)]
    if not has_head or set(names) != {each["name"] for each in inputs}:
        wanted = ", ".join(each["name"] for each in inputs)
        raise CliError(f"The model has several inputs; the head line must name them: {wanted}.", ExitCode.INVALID)
    tensors = []
    for each in inputs:
        column = names.index(each["name"])
        values = [_field(row[column], each["datatype"], number) for number, row in enumerate(body, start=first)]
        tensors.append(tensor(each, values))
    return tensors


def _is_head(names: Sequence[str], inputs: Sequence[Json]) -> bool:
    if set(names) == {each["name"] for each in inputs}:
        return True
    if any(each["datatype"] == "BYTES" for each in inputs):
        return False  # the first line may well be text

    def is_value(name: str) -> bool:
        try:
            float(name)
        except ValueError:
            return name.lower() in {"true", "false"}
        return True

    return not any(is_value(name) for name in names)


def _field(text: str, datatype: str, row: int) -> Any:
    text = text.strip()
    try:
        if datatype == "BYTES":
            return text
        if datatype == "BOOL":
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        if not datatype.startswith(("FP", "BF")):
            return int(text)
        value = float(text)
        if math.isfinite(value):
            return value
    except (ValueError, KeyError):
        pass
    raise CliError(f"Row {row}: “{text}” is no {datatype}.", ExitCode.INVALID)


def show(answer: Json) -> None:
    """One line per row, one column per output."""
    outputs = answer.get("outputs") or []
    names = [each["name"] for each in outputs]
    counts = {each["shape"][0] if each["shape"] else 1 for each in outputs}
    if len(counts) == 1:
        count = counts.pop()
        columns = [_rows_of(each, count) for each in outputs]
        output.table(("row", *names), zip(range(1, count + 1), *columns, strict=True), empty="No rows.")
    else:
        output.record((each["name"], _short(each["data"])) for each in outputs)
    output.note(f"answered by version {answer.get('model_version', '–')}")


def _rows_of(each: Json, count: int) -> list[Any]:
    step = len(each["data"]) // count if count else 0
    rows = [each["data"][row * step : (row + 1) * step] for row in range(count)]
    return [row[0] if len(row) == 1 else _short(row) for row in rows]


def _short(values: Sequence[Any]) -> str:
    shown = ", ".join(f"{value:.4g}" if isinstance(value, float) else output.cell(value) for value in values[:SHOWN])
    return f"{shown}, … ({len(values)})" if len(values) > SHOWN else shown
