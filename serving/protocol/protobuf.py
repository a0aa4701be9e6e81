"""Message classes of open_inference.proto, made when this is imported: there is no generated file to keep in step.

They live in a descriptor pool of their own, so that a process may hold another client's classes of the same names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"
SOURCE = Path(__file__).with_name("open_inference.proto")

_Field = descriptor_pb2.FieldDescriptorProto
_TOKEN = re.compile(r"//[^\n]*|\w+|\"[^\"]*\"|[^\s\w]")
_SCALARS = {
    "bool": _Field.TYPE_BOOL,
    "bytes": _Field.TYPE_BYTES,
    "double": _Field.TYPE_DOUBLE,
    "float": _Field.TYPE_FLOAT,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "string": _Field.TYPE_STRING,
    "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64,
}


class _Reader:
    """The part of the language that the file uses: messages in messages, enums, maps, one choice of fields, rpcs."""

    def __init__(self, text: str) -> None:
        self._words = [word for word in _TOKEN.findall(text) if not word.startswith("//")]
        self._at = 0

    def file(self, name: str) -> descriptor_pb2.FileDescriptorProto:
        made = descriptor_pb2.FileDescriptorProto(name=name, syntax="proto3")
        while self._at < len(self._words):
            word = self._next()
            if word == "syntax":
                self._expect("=", '"proto3"', ";")
            elif word == "package":
                made.package = self._next()
                self._expect(";")
            elif word == "service":
                self._service(made.service.add())
            elif word == "enum":
                self._enum(made.enum_type.add())
            else:
                self._at -= 1
                self._expect("message")
                self._message(made.message_type.add())
        enums = set(_enum_names(made.enum_type, made.message_type))
        for message in made.message_type:
            _settle(message, f".{made.package}", enums)
        return made

    def _next(self) -> str:
        self._at += 1
        return self._words[self._at - 1]

    def _expect(self, *wanted: str) -> None:
        for word in wanted:
            if (found := self._next()) != word:
                raise ValueError(f"{word!r} was expected, not {found!r}, as word {self._at}")

    def _inside(self) -> Iterator[str]:
        self._expect("{")
        while (word := self._next()) != "}":
            yield word

    def _service(self, made: descriptor_pb2.ServiceDescriptorProto) -> None:
        made.name = self._next()
        for _ in self._inside():  # rpc
            method = made.method.add(name=self._next())
            method.client_streaming, method.input_type = self._side()
            self._expect("returns")
            method.server_streaming, method.output_type = self._side()
            self._expect(";")

    def _side(self) -> tuple[bool, str]:
        self._expect("(")
        word = self._next()
        streams = word == "stream"
        name = self._next() if streams else word
        self._expect(")")
        return streams, f".{PACKAGE}.{name}"

    def _enum(self, made: descriptor_pb2.EnumDescriptorProto) -> None:
        made.name = self._next()
        for name in self._inside():
            self._expect("=")
            made.value.add(name=name, number=int(self._next()))
            self._expect(";")

    def _message(self, made: descriptor_pb2.DescriptorProto) -> None:
        made.name = self._next()
        for word in self._inside():
            if word == "message":
                self._message(made.nested_type.add())
            elif word == "enum":
                self._enum(made.enum_type.add())
            elif word == "oneof":
                made.oneof_decl.add(name=self._next())
                for kind in self._inside():
                    self._field(made, kind, False).oneof_index = len(made.oneof_decl) - 1
            elif word == "map":
                self._map(made)
            else:
                self._field(made, self._next() if word == "repeated" else word, word == "repeated")

    def _field(self, made: descriptor_pb2.DescriptorProto, kind: str, repeated: bool) -> Any:
        field = made.field.add(name=self._next(), type_name=kind)
        field.label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
        self._expect("=")
        field.number = int(self._next())
        self._expect(";")
        return field

    def _map(self, made: descriptor_pb2.DescriptorProto) -> None:
        self._expect("<")
        key = self._next()
        self._expect(",")
        value = self._next()
        self._expect(">")
        # A map is a repeated message of that name, by the language's own rule.
        name = self._words[self._at].title().replace("_", "") + "Entry"
        entry = made.nested_type.add(name=name)
        entry.options.map_entry = True
        for number, (part, kind) in enumerate((("key", key), ("value", value)), start=1):
            entry.field.add(name=part, number=number, label=_Field.LABEL_OPTIONAL, type_name=kind)
        self._field(made, name, True)


def _enum_names(enums: Any, messages: Any) -> Iterator[str]:
    yield from (enum.name for enum in enums)
    for message in messages:
        yield from _enum_names(message.enum_type, message.nested_type)


def _settle(message: descriptor_pb2.DescriptorProto, scope: str, enums: set[str]) -> None:
    """Replace the words that stand for types by types, names by full names."""
    mine = f"{scope}.{message.name}"
    own = {part.name for part in (*message.nested_type, *message.enum_type)}
    for field in message.field:
        word = field.type_name
        if word in _SCALARS:
            field.ClearField("type_name")
            field.type = _SCALARS[word]
            continue
        field.type = _Field.TYPE_ENUM if word in enums else _Field.TYPE_MESSAGE
        field.type_name = f"{mine}.{word}" if word in own else f".{PACKAGE}.{word}"
    for part in message.nested_type:
        _settle(part, mine, enums)


def describe(text: str, name: str = "open_inference.proto") -> descriptor_pb2.FileDescriptorProto:
    """What a text in the language says. Raises ValueError for a word out of place."""
    return _Reader(text).file(name)


_pool = descriptor_pool.DescriptorPool()
_pool.Add(describe(SOURCE.read_text(encoding="utf-8")))


@cache
def message(name: str) -> Any:
    """The class of a message, such as `ModelInferRequest`."""
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))


def methods() -> dict[str, tuple[Any, Any]]:
    """The service's methods: classes of what each takes and gives."""
    service = _pool.FindServiceByName(SERVICE)
    return {m.name: (message(m.input_type.name), message(m.output_type.name)) for m in service.methods}
