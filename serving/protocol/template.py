"""Requests of the usual form, read by what is already known of them.

A client sends the same JSON again and again with other numbers in it. Its text around the numbers was checked
once, by the full reader; when the same text comes again, only the numbers are read. Anything else (several
inputs with data, nested data, strings, an id of its own each time) goes the full way.
"""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import simdjson

from serving.model import Model
from serving.protocol.datatypes import BY_NAME, WIDE
from serving.protocol.envelope import KEEP_PARSER, Envelope
from serving.protocol.tensors import check_shape, narrow

# Texts remembered for an endpoint; all are forgotten when more come.
_REMEMBERED = 256
# The text around the numbers is short in a usual request.
_LONGEST = 2048

_local = threading.local()


class Known:
    """A text that the full reader accepted, and what it says."""

    __slots__ = ("_fits", "before", "behind", "count", "envelope")

    def __init__(self, before: bytes, behind: bytes, envelope: Envelope) -> None:
        self.before = before
        self.behind = behind
        # Without the parser's own objects, which point into memory that is gone.
        self.envelope = replace(envelope, document=None, inputs=[replace(envelope.inputs[0], data=None)])
        self.count = math.prod(envelope.inputs[0].shape)
        self._fits: set[Model] = set()

    def feeds(self, model: Model, body: bytes | bytearray, start: int, end: int) -> dict[str, np.ndarray] | None:
        """The tensor whose numbers lie in body[start:end]; None when the request has to be read in full after
        all, to say what is wrong with it or because something else than numbers is there. Raises BadInput."""
        raw = self.envelope.inputs[0]
        datatype = BY_NAME.get(raw.datatype)
        if datatype is None or datatype.buffer is None:
            return None
        if model not in self._fits:
            tensor = model.input_by_name.get(raw.name)
            if tensor is None or tensor.datatype is not datatype or len(model.inputs) != 1:
                return None
            check_shape(raw.name, raw.shape, tensor.shape)
            self._fits.add(model)
        # With its brackets it is one array: nothing but numbers is left in a buffer of numbers.
        wide = _numbers(body[start - 1 : end + 1], datatype.buffer)
        if wide is None or wide.size != self.count:
            return None
        return {raw.name: narrow(raw, wide, datatype).reshape(raw.shape)}


def _numbers(text: bytes | bytearray, kind: str) -> np.ndarray | None:
    parser = getattr(_local, "parser", None)
    if parser is None or len(text) > KEEP_PARSER:
        parser = simdjson.Parser()
        if len(text) <= KEEP_PARSER:
            _local.parser = parser
    try:
        array: Any = parser.parse(text)
        return np.frombuffer(array.as_buffer(of_type=kind), WIDE[kind])
    except (TypeError, ValueError, RuntimeError):
        return None


class Templates:
    """Known texts of one endpoint, the last one used first."""

    def __init__(self) -> None:
        self._last: Known | None = None
        self._held: dict[tuple[bytes, bytes], Known] = {}

    def find(self, body: bytes | bytearray) -> tuple[Known, int, int] | None:
        """What is known of a body's text, and where its numbers start and end."""
        last = self._last
        if last is not None and body.startswith(last.before) and body.endswith(last.behind):
            start, end = len(last.before), len(body) - len(last.behind)
            # Nested data would be flattened.
            if start < end and body.find(b"[", start, end) < 0:
                return last, start, end
        if not self._held:
            return None
        around = _around(body)
        if around is None:
            return None
        before, behind = around
        known = self._held.get((before, behind))
        if known is None:
            return None
        self._last = known
        return known, len(before), len(body) - len(behind)

    def learn(self, body: bytes | bytearray, envelope: Envelope) -> None:
        """Remember the text of a request that the full reader accepted, if it is of the usual form."""
        if envelope.id is not None or len(envelope.inputs) != 1 or envelope.inputs[0].binary_size is not None:
            return
        around = _around(body)
        if around is None:
            return
        if len(self._held) >= _REMEMBERED:
            self._held.clear()
        self._last = self._held[around] = Known(*around, envelope)


def _around(body: bytes | bytearray) -> tuple[bytes, bytes] | None:
    """The text before and behind the one flat run of numbers under the one key "data"; None without it."""
    at = body.find(b'"data"', 0, _LONGEST)
    while at >= 0:
        start = body.find(b"[", at + 6, at + 16) + 1
        if start and body[at + 6 : start - 1].strip() == b":":
            break
        at = body.find(b'"data"', at + 6, _LONGEST)
    else:
        return None
    end = body.find(b"]", start)
    if end < 0 or len(body) - end > _LONGEST or body.find(b"[", start, end) >= 0:
        return None
    before, behind = bytes(body[:start]), bytes(body[end:])
    # With another key of that name, or one written in escapes, these might not be the tensor's numbers.
    keys = before.count(b'"data"') - before.count(b':"data"') - before.count(b': "data"')
    if keys != 1 or b'"data"' in behind or b"\\" in before or b"\\" in behind:
        return None
    return before, behind
