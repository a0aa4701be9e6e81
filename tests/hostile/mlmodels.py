"""Hostile MLmodel files (case 60), made by code."""

from __future__ import annotations

from collections.abc import Callable

from tests.engine.test_scan_source import BOMB

FLAVORS = "flavors:\n  sklearn: {pickled_model: model.pkl, sklearn_version: 1.9.0}\n"


def merges() -> str:
    """Maps merged into each other: twenty aliases, a thousand times the keys."""
    lines = ["a0: &a0 {" + ", ".join(f"k{number}: 1" for number in range(2000)) + "}"]
    lines += [f"a{number}: &a{number} {{<<: [*a{number - 1}, *a{number - 1}]}}" for number in range(1, 11)]
    return "\n".join(lines) + "\n" + FLAVORS


def loader(module: str) -> str:
    return FLAVORS + f"  python_function: {{loader_module: {module}}}\n"


# number, name, text of MLmodel, words of the cause
MLMODELS: list[tuple[int, str, Callable[[], str], str]] = [
    (60, "YAML bomb", lambda: BOMB + FLAVORS, "repeats itself"),
    (60, "bomb of merges", merges, "merges maps"),
    (60, "!!python tag", lambda: "flavors: !!python/object/apply:os.system ['touch /tmp/x']\n", "not plain YAML"),
    (60, "!!python name", lambda: FLAVORS + "x: !!python/name:os.system\n", "not plain YAML"),
    (60, "loader_module os", lambda: loader("os"), "loader_module os"),
    (60, "loader_module subprocess", lambda: loader("subprocess"), "loader_module subprocess"),
    # What YAML's own patterns and conversions take hours for.
    (60, "number to the base of 60", lambda: FLAVORS + "x: 1" + ":1" * 400_000 + "\n", "number of"),
    (60, "number of a million places", lambda: FLAVORS + "x: " + "9" * 900_000 + "\n", "number of"),
    (60, "pattern of underscores", lambda: FLAVORS + "x: 0." + "_" * 900_000 + "!\n", "number of"),
    (60, "pattern of a time", lambda: FLAVORS + "x: 2001-1-1" + " " * 900_000 + "!\n", "number of"),
]
