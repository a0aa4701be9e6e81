"""The JSON part of an inference request, read with simdjson and checked before any tensor is built.

Objects found here point into the parser's memory: they must be dropped before the same thread parses again.
"""

from __future__ import annotations

import json
import math
import threading
from dataclasses import dataclass, field
from typing import Any

import simdjson

from serving.protocol.errors import ServingError, bad_request, shown

# A parser keeps memory in proportion to the largest document it saw: beyond this it is thrown away.
KEEP_PARSER = 4 << 20
# Above this a refused document is not read a second time to name the guilty input.
EXPLAIN_LIMIT = 2 << 20

# A parsed value takes 16 bytes and more, whatever its text: a body of "1,1,1,…" would grow eightfold. Tensors
# beyond this have to come as binary data. Looked at in bodies that could hold so many only.
MAX_VALUES = 4_000_000
# No object of the protocol has more members than a handful.
MAX_KEYS = 64

_local = threading.local()


@dataclass(slots=True)
class RawInput:
    """One input as sent. `data` is a simdjson Array or a list; None when the tensor is binary."""

    name: str
    datatype: str
    shape: list[int]
    data: Any
    binary_size: int | None


@dataclass(slots=True)
class Envelope:
    """What the JSON of a request says. `outputs` maps a name to its binary_data (None: the default)."""

    id: str | None
    inputs: list[RawInput]
    outputs: dict[str, bool | None]
    binary_output: bool = False
    classes: dict[str, int] = field(default_factory=dict)  # outputs asked for as their k best classes
    asked: bool = False  # outputs is there, even if empty
    # The document itself, kept for as long as the inputs point into it.
    document: Any = field(default=None, repr=False)


def parse(body: bytes | bytearray | memoryview, max_inputs: int) -> Envelope:
    """Read the JSON of a request for a model with `max_inputs` inputs. Raises ServingError (400, 413)."""
    if len(body) > MAX_VALUES:
        text = bytes(body) if isinstance(body, memoryview) else body
        if text.count(b",") + text.count(b"[") + text.count(b"{") > MAX_VALUES:
            raise ServingError(413, f"the JSON has more than {MAX_VALUES} values; send such tensors as binary data")
    return _envelope(_document(body), max_inputs)


def _document(body: bytes | bytearray | memoryview) -> Any:
    parser = getattr(_local, "parser", None)
    if parser is None or len(body) > KEEP_PARSER:
        parser = simdjson.Parser()
        if len(body) <= KEEP_PARSER:
            _local.parser = parser
    try:
        return parser.parse(body)
    except UnicodeDecodeError:
        raise bad_request("the body is not valid UTF-8") from None
    except ValueError as error:
        return _reread(body, str(error))
    except RuntimeError as error:
        if "DEPTH" in str(error):
            raise bad_request("the JSON is nested too deeply") from None
        if "re-use" not in str(error):
            return _reread(body, str(error))
        # Someone still holds a piece of the former document (a traceback can): start a fresh parser.
        _local.parser = simdjson.Parser()
        try:
            return _local.parser.parse(body)
        except (ValueError, RuntimeError) as again:
            return _reread(body, str(again))


class _NotANumber(float):
    """Marks a NaN, Infinity or overflowing number with the text it was written as."""

    text: str


def _mark(text: str) -> _NotANumber:
    value = _NotANumber("nan")
    value.text = text
    return value


def _float(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _mark(text)


def _reread(body: bytes | bytearray | memoryview, reason: str) -> Any:
    """Second look with the standard parser at what simdjson refused: either it is valid after all (an
    integer of more than 64 bits), or the refusal can name the input."""
    if reason.startswith("EMPTY"):
        raise bad_request("the body is empty; a JSON inference request is expected")
    if len(body) > EXPLAIN_LIMIT:
        raise bad_request("the body is not valid JSON (NaN and Infinity are not JSON numbers)")
    try:
        document = json.loads(bytes(body), parse_constant=_mark, parse_float=_float)
    except RecursionError:
        raise bad_request("the JSON is nested too deeply") from None
    except ValueError as error:
        where = f" at byte {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise bad_request(f"the body is not valid JSON{where}") from None
    inputs = document.get("inputs") if isinstance(document, dict) else None
    for position, item in enumerate(inputs if isinstance(inputs, list) else ()):
        bad = _find_bad(item)
        if bad is not None:
            name = item.get("name", position) if isinstance(item, dict) else position
            raise bad_request(f"input {shown(name)!r}: {shown(bad.text)} is not a finite JSON number")
    if _find_bad(document) is not None:
        raise bad_request("the request has a number that is not finite")
    if isinstance(document, str):  # lone surrogates and the like: the standard parser is laxer
        raise bad_request("the request must be a JSON object")
    if reason.startswith("STRING"):
        raise bad_request("the request has a string that is not valid Unicode")
    return document


def _find_bad(value: Any) -> _NotANumber | None:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, _NotANumber):
            return item
        if isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, dict):
            stack.extend(item.values())
    return None


def _is_object(value: Any) -> bool:
    return isinstance(value, simdjson.Object | dict)


def _is_array(value: Any) -> bool:
    return isinstance(value, simdjson.Array | list)


def _keys(value: Any, what: str) -> list[str]:
    if len(value) > MAX_KEYS:
        raise bad_request(f"{what} has more than {MAX_KEYS} keys")
    keys = list(value.keys())
    if len(keys) != len(set(keys)):
        twice = next(key for i, key in enumerate(keys) if key in keys[:i])
        raise bad_request(f"{what} has the key {shown(twice)!r} twice")
    return keys


def _parameters(holder: Any, keys: list[str], what: str) -> dict[str, Any]:
    if "parameters" not in keys:
        return {}
    parameters = holder["parameters"]
    if not _is_object(parameters):
        raise bad_request(f"{what}: parameters must be an object")
    _keys(parameters, f"{what}: parameters")
    return parameters if isinstance(parameters, dict) else parameters.as_dict()


def _flag(parameters: dict[str, Any], key: str, what: str) -> bool | None:
    value = parameters.get(key)
    if value is None or isinstance(value, bool):
        return value
    raise bad_request(f"{what}: parameter {key} must be true or false")


def _envelope(document: Any, max_inputs: int) -> Envelope:
    if not _is_object(document):
        raise bad_request("the request must be a JSON object")
    keys = _keys(document, "the request")
    request_id: str | None = None
    if "id" in keys:
        request_id = document["id"]
        if not isinstance(request_id, str):
            raise bad_request("id must be a string")
        if len(request_id) > 1024:
            raise bad_request("id must have at most 1024 characters")
    parameters = _parameters(document, keys, "the request")
    binary_output = bool(_flag(parameters, "binary_data_output", "the request"))
    inputs: Any = document["inputs"] if "inputs" in keys else None
    if not _is_array(inputs):
        raise bad_request("inputs must be an array of tensors")
    raw: list[RawInput] = []
    seen: set[str] = set()
    # One more than the model has is enough to find an unknown or doubled one among them.
    for position in range(min(len(inputs), max_inputs + 1)):
        tensor = _input(inputs[position], position)
        if tensor.name in seen:
            raise bad_request(f"input {shown(tensor.name)!r} is given twice")
        seen.add(tensor.name)
        raw.append(tensor)
    classes: dict[str, int] = {}
    outputs = _outputs(document["outputs"], classes) if "outputs" in keys else {}
    return Envelope(request_id, raw, outputs, binary_output, classes, "outputs" in keys, document)


def _input(item: Any, position: int) -> RawInput:
    if not _is_object(item):
        raise bad_request(f"input {position} must be an object")
    keys = _keys(item, f"input {position}")
    name = item["name"] if "name" in keys else None
    if not isinstance(name, str):
        raise bad_request(f"input {position} has no name")
    what = f"input {shown(name)!r}"
    datatype = item["datatype"] if "datatype" in keys else None
    if not isinstance(datatype, str):
        raise bad_request(f"{what} has no datatype")
    shape: Any = item["shape"] if "shape" in keys else None
    if not _is_array(shape):
        raise bad_request(f"{what}: shape must be an array of whole numbers")
    if len(shape) > 32:
        raise bad_request(f"{what}: shape has more than 32 dimensions")
    dims = shape if isinstance(shape, list) else shape.as_list()
    for dim in dims:
        if type(dim) is not int:
            raise bad_request(f"{what}: shape must be an array of whole numbers")
        if dim < 0:
            raise bad_request(f"{what}: dimension {dim} of its shape is negative")
    size: int | None = None
    if "parameters" in keys:
        size = _parameters(item, keys, what).get("binary_data_size")
        if size is not None and (type(size) is not int or size < 0):
            raise bad_request(f"{what}: binary_data_size must be a whole number of bytes")
    if size is None:
        if "data" not in keys:
            raise bad_request(f"{what} has no data")
        data = item["data"]
        if not _is_array(data):
            raise bad_request(f"{what}: data must be an array")
        return RawInput(name, datatype, dims, data, None)
    if "data" in keys:
        raise bad_request(f"{what} has both data and binary_data_size")
    return RawInput(name, datatype, dims, None, size)


def _outputs(items: Any, classes: dict[str, int]) -> dict[str, bool | None]:
    if not _is_array(items):
        raise bad_request("outputs must be an array")
    if len(items) > 4096:
        raise bad_request("more than 4096 outputs are requested")
    wanted: dict[str, bool | None] = {}
    for position in range(len(items)):
        item = items[position]
        if not _is_object(item):
            raise bad_request(f"output {position} must be an object")
        keys = _keys(item, f"output {position}")
        name = item["name"] if "name" in keys else None
        if not isinstance(name, str):
            raise bad_request(f"output {position} has no name")
        if name in wanted:
            raise bad_request(f"output {shown(name)!r} is requested twice")
        parameters = _parameters(item, keys, f"output {shown(name)!r}")
        best = parameters.get("classification")
        if best is not None:
            if type(best) is not int or best < 0:
                raise bad_request(f"output {shown(name)!r}: classification must be a whole number")
            if best:
                classes[name] = best
        wanted[name] = _flag(parameters, "binary_data", f"output {shown(name)!r}")
    return wanted
