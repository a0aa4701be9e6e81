"""Finds plug-ins: one class in one file, with `name`, `label` and a pydantic `Options`.

A room's package is scanned, then the entry-point group of installed packages. Third-party imports
belong inside a plug-in's methods: listing imports every file.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from typing import Any


class PluginError(Exception):
    """A plug-in that breaks the rules; a fault of its author, not of the user."""


def discover(package: str, group: str, methods: Sequence[str]) -> dict[str, Any]:
    """Instances of all plug-ins by name, in order of name.

    package: dotted name of the package to scan. group: entry-point group. methods: what each must
    have. PluginError for a duplicate name or a missing part.
    """
    found: dict[str, Any] = {}
    for kind in [*_in_package(package), *_in_entry_points(group)]:
        _check(kind, methods)
        if kind.name in found:
            other = type(found[kind.name])
            raise PluginError(
                f"Two plug-ins are named '{kind.name}': {other.__module__}.{other.__name__} and "
                f"{kind.__module__}.{kind.__name__}."
            )
        found[kind.name] = kind()
    return dict(sorted(found.items()))


def _in_package(package: str) -> Iterator[Any]:
    parent = importlib.import_module(package)
    for entry in pkgutil.iter_modules(parent.__path__):
        module = importlib.import_module(f"{package}.{entry.name}")
        for _, kind in inspect.getmembers(module, inspect.isclass):
            if kind.__module__ == module.__name__ and {"name", "label", "Options"} <= vars(kind).keys():
                yield kind


def _in_entry_points(group: str) -> Iterator[Any]:
    for point in entry_points(group=group):
        kind = point.load()
        if not inspect.isclass(kind):
            raise PluginError(f"The entry point {point.name} of {group} is not a class.")
        yield kind


def _check(kind: Any, methods: Sequence[str]) -> None:
    from pydantic import BaseModel

    where = f"{kind.__module__}.{kind.__name__}"
    for attribute in ("name", "label"):
        if not isinstance(getattr(kind, attribute, None), str):
            raise PluginError(f"{where} has no text `{attribute}`.")
    if not (inspect.isclass(getattr(kind, "Options", None)) and issubclass(kind.Options, BaseModel)):
        raise PluginError(f"{where} has no pydantic `Options`.")
    for method in methods:
        if not callable(getattr(kind, method, None)):
            raise PluginError(f"{where} has no method `{method}`.")


def options_of(plugin: Any, given: dict[str, Any], field: str = "options") -> Any:
    """The plug-in's Options from plain data. EngineError naming the first wrong field, below `field`."""
    from pydantic import ValidationError

    from engine.errors import EngineError

    try:
        return plugin.Options.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise EngineError(f"{where}: {first['msg']}", field=f"{field}.{where}", code="options") from error
