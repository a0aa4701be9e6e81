"""Message classes made from the vendored .proto when it is first needed.

The description is read by a parser of just the proto3 that it is written in, into a pool of its own: nothing is
generated, no version of a generator has to fit the installed protobuf, and other copies of the same service in
the process do not clash.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FILE = Path(__file__).with_name("grpc_predict_v2.proto")
_TOKEN = re.compile(r"[A-Za-z_][\w.]*|\d+|\"[^\"]*\"|[{}()<>=;,]")
_SCALARS = {
    "bool": 8,
    "bytes": 12,
    "double": 1,
    "float": 2,
    "int32": 5,
    "int64": 3,
    "string": 9,
    "uint32": 13,
    "uint64": 4,
}
_MESSAGE, _REPEATED, _SINGLE = 11, 3, 1


class _Parser:
    """Recursive descent over the tokens of one file."""

    def __init__(self, text: str) -> None:
        self._tokens = _TOKEN.findall(re.sub(r"//[^\n]*", "", text))
        self._at = 0
        self.file = descriptor_pb2.FileDescriptorProto(name=_FILE.name, syntax="proto3")
        # rpc -> (request, response, streamed request, streamed response)
        self.methods: dict[str, tuple[str, str, bool, bool]] = {}

    def _next(self) -> str:
        self._at += 1
        return str(self._tokens[self._at - 1])

    def _peek(self) -> str:
        return str(self._tokens[self._at])

    def _skip(self, *wanted: str) -> None:
        for token in wanted:
            found = self._next()
            if found != token:
                raise ValueError(f"{_FILE.name}: {token!r} expected, {found!r} found")

    def parse(self) -> None:
        """Read the whole file into `file` and `methods`."""
        while self._at < len(self._tokens):
            word = self._next()
            if word == "syntax":
                self._skip("=", '"proto3"', ";")
            elif word == "package":
                self.file.package = self._next()
                self._skip(";")
            elif word == "message":
                self._message(self.file.message_type.add())
            elif word == "service":
                self._service()
            else:
                raise ValueError(f"{_FILE.name}: {word!r} is not understood")

    def _service(self) -> None:
        self._next()
        self._skip("{")
        while self._peek() != "}":
            self._skip("rpc")
            name = self._next()
            request, streamed = self._side()
            self._skip("returns")
            response, streams = self._side()
            self._skip("{", "}")
            self.methods[name] = (request, response, streamed, streams)
        self._skip("}")

    def _side(self) -> tuple[str, bool]:
        self._skip("(")
        streamed = self._peek() == "stream"
        if streamed:
            self._next()
        name = self._next()
        self._skip(")")
        return name, streamed

    def _message(self, made: Any) -> None:
        made.name = self._next()
        self._skip("{")
        while self._peek() != "}":
            word = self._next()
            if word == "message":
                self._message(made.nested_type.add())
            elif word == "oneof":
                made.oneof_decl.add(name=self._next())
                self._skip("{")
                while self._peek() != "}":
                    self._field(made, self._next(), _SINGLE).oneof_index = len(made.oneof_decl) - 1
                self._skip("}")
            elif word == "map":
                self._map(made)
            elif word == "repeated":
                self._field(made, self._next(), _REPEATED)
            else:
                self._field(made, word, _SINGLE)
        self._skip("}")

    def _field(self, made: Any, kind: str, label: int) -> Any:
        name = self._next()
        self._skip("=")
        field = made.field.add(name=name, number=int(self._next()), label=label)
        self._skip(";")
        self._typed(field, kind)
        return field

    def _typed(self, field: Any, kind: str) -> None:
        if kind in _SCALARS:
            field.type = _SCALARS[kind]
        else:
            field.type, field.type_name = _MESSAGE, kind  # resolved by the pool, from the inside out

    def _map(self, made: Any) -> None:
        self._skip("<")
        key = self._next()
        self._skip(",")
        value = self._next()
        self._skip(">")
        name = self._next()
        entry = made.nested_type.add(name="".join(part.title() for part in name.split("_")) + "Entry")
        entry.options.map_entry = True
        self._typed(entry.field.add(name="key", number=1, label=_SINGLE), key)
        self._typed(entry.field.add(name="value", number=2, label=_SINGLE), value)
        self._skip("=")
        made.field.add(
            name=name, number=int(self._next()), label=_REPEATED, type=_MESSAGE, type_name=f"{made.name}.{entry.name}"
        )
        self._skip(";")


_parser = _Parser(_FILE.read_text(encoding="utf-8"))
_parser.parse()
_pool = descriptor_pool.DescriptorPool()
_pool.AddSerializedFile(_parser.file.SerializeToString())

SERVICE = f"{_parser.file.package}.GRPCInferenceService"
METHODS = dict(_parser.methods)


def message(name: str) -> Any:
    """The class of a message, e.g. `ModelInferRequest`. Raises KeyError."""
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_parser.file.package}.{name}"))
