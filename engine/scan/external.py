"""Why a tensor that keeps its data outside the model is refused, in words that name the trick."""

from __future__ import annotations

from typing import Any

from engine.scan.names import printable

# What ONNX defines; libraries set whatever key they find as an attribute of an object (`__class__` too).
_KEYS = {"location", "offset", "length", "checksum", "basepath"}


def reason(tensor: Any, what: str) -> str:
    """A sentence about the external data of `tensor`. No external data is taken; some of it is an attack."""
    found = {entry.key: entry.value for entry in tensor.external_data}
    for key in found:
        if key not in _KEYS:
            return f"The {what} has data in another file under the unknown key '{printable(key)}'."
    # ONNX Runtime takes such a location for an address in its own memory.
    if found.get("location", "").startswith("*/"):
        return f"The {what} names an address in memory instead of data in another file."
    for key in ("offset", "length"):
        if key in found and not (found[key].isascii() and found[key].isdigit() and len(found[key]) < 14):
            return f"The {what} has an impossible {key} of data in another file: {printable(found[key], 30)}."
    return f"The {what} keeps its data in another file; upload a model in a single file."
