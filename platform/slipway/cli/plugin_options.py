"""Options of plug-ins from `--option`: pairs become JSON, and texts where the API's schema says text."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from slipway.cli.client import Json
from slipway.cli.errors import CliError, ExitCode


def options_of(pairs: Iterable[str]) -> dict[str, Any]:
    """`per_channel=true rounds=3 mode=fast`: values are JSON where they can be, else text."""
    return {key: _value(text) for key, text in map(_parts, pairs)}


def options_by_exporter(ways: list[Json], exporters: list[str], pairs: list[str]) -> dict[str, dict[str, Any]]:
    """{exporter: options} of `opset=17` where one format is asked for, else of `onnx.opset=17`.

    ways: the API's formats of a version. What they do not know is passed on: the API says what is wrong with it.
    """
    schemas = {way["exporter"]: way["options"].get("properties", {}) for way in ways}
    found: dict[str, dict[str, Any]] = {}
    for key, text in map(_parts, pairs):
        exporter, dot, name = key.rpartition(".")
        if not dot:
            if len(set(exporters)) > 1:
                raise CliError(
                    f"--option {key}: say of which format, as in --option {exporters[0]}.{key}={text}.", ExitCode.USAGE
                )
            exporter = exporters[0]
        property_ = schemas.get(exporter, {}).get(name, {})
        found.setdefault(exporter, {})[name] = text if "string" in _kinds(property_) else _value(text)
    return found


def _kinds(described: Json) -> list[str]:
    """The types that a property of a JSON Schema may have, without null: `int | None` is anyOf."""
    several = [each.get("type") for each in described.get("anyOf", [described])]
    return [kind for kind in several if kind and kind != "null"]


def in_words(properties: Json) -> str:
    """`opset (integer, 11 to 30), level (basic or extended)`: what may be given, with defaults."""
    return "; ".join(f"{name} ({_limits(each)})" for name, each in properties.items())


def _limits(described: Json) -> str:
    one = next((each for each in described.get("anyOf", [described]) if each.get("type") != "null"), described)
    words = [" or ".join(map(str, one["enum"])) if "enum" in one else str(one.get("type", "any"))]
    if "minimum" in one and "maximum" in one:
        words.append(f"{one['minimum']} to {one['maximum']}")
    if described.get("default") is not None:
        words.append(f"without it {json.dumps(described['default']).strip(chr(34))}")
    return ", ".join(words)


def _parts(pair: str) -> tuple[str, str]:
    key, equals, text = pair.partition("=")
    if not key or not equals:
        raise CliError(f"--option {pair}: write it as KEY=VALUE.", ExitCode.USAGE)
    return key, text


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
