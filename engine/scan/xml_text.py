"""Reads XML as plain elements: no document type, no entities, bounded size, depth and count.

Expat alone is enough: entities can only be declared inside a document type, and that is refused as soon as it
begins; nothing outside the text is ever opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.errors import EngineError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MAX_BYTES = 128 * 1024 * 1024
MAX_ELEMENTS = 2_000_000
MAX_DEPTH = 200  # also how deep those who walk the tree call themselves


def parse(content: bytes, what: str) -> tuple[Element, str]:
    """(root element with names without namespace, namespace of the root).

    what: of the document, for the sentences. EngineError(field="file", code="xml").
    """
    from xml.etree.ElementTree import TreeBuilder
    from xml.parsers import expat

    if len(content) > MAX_BYTES:
        raise _wrong(f"{what} is larger than {MAX_BYTES // 2**20} MB.")
    builder, parser = TreeBuilder(), expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    depth = count = 0
    spaces: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth, count
        depth, count = depth + 1, count + 1
        if depth > MAX_DEPTH or count > MAX_ELEMENTS:
            raise _wrong(f"{what} is nested too deep or has too many elements.")
        space, _, plain = name.rpartition("}")
        if count == 1:
            spaces.append(space)
        # What belongs to somebody else's namespace must not pass for an element of this document.
        builder.start(plain if space == spaces[0] else name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        space, _, plain = name.rpartition("}")
        builder.end(plain if space == spaces[0] else name)

    def refuse(*_: object) -> None:
        raise _wrong(f"{what} declares a document type or entities, which are not accepted.")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        reason = expat.errors.messages.get(error.code, "damaged")
        raise _wrong(f"{what} is not well-formed XML: {reason} in line {error.lineno}.") from error
    except (ValueError, LookupError) as error:
        raise _wrong(f"{what} is in an encoding that is not known.") from error
    return builder.close(), spaces[0]


def _wrong(message: str) -> EngineError:
    return EngineError(message, field="file", code="xml")
