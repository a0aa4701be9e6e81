"""Reads the MLmodel file of an MLflow model as plain data: nothing it names is imported or run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.errors import EngineError

_MAX_BYTES = 1_000_000
_MAX_ALIASES, _MAX_DEPTH, _MAX_EVENTS = 20, 30, 100_000
_MAX_NUMBER = 400  # characters of a bare word that begins like a number

_VERSION_KEYS = {
    "sklearn": "sklearn_version",
    "onnx": "onnx_version",
    "pytorch": "pytorch_version",
    "tensorflow": "tensorflow_version",
    "keras": "keras_version",
    "xgboost": "xgb_version",
    "lightgbm": "lgb_version",
    "transformers": "transformers_version",
}


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """A YAML mapping of bounded size, depth and aliases, plain types only. EngineError(field="file")."""
    import yaml

    if path.stat().st_size > _MAX_BYTES:
        raise _wrong(f"{what} is larger than 1 MB.")
    try:
        text = path.read_bytes().decode("utf-8")
        _check_events(text, what)
        data = yaml.load(text, Loader=yaml.CSafeLoader)
    except UnicodeDecodeError as error:
        raise _wrong(f"{what} is not UTF-8 text.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = str(getattr(error, "problem", None) or "not readable as YAML")[:200]
        where = f" in line {mark.line + 1}" if mark else ""
        raise _wrong(f"{what} is not plain YAML{where}: {problem}.") from error
    if not isinstance(data, dict):
        raise _wrong(f"{what} is not a YAML mapping.")
    return data


def _check_events(text: str, what: str) -> None:
    """Counts before anything is built: aliases multiply, depth recurses."""
    import yaml

    aliases = depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.CSafeLoader)):
        aliases += isinstance(event, yaml.AliasEvent)
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if aliases > _MAX_ALIASES or depth > _MAX_DEPTH or count > _MAX_EVENTS:
            raise _wrong(f"{what} is too deep or repeats itself too often.")
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0]:
            _check_bare(event.value, what)


def _check_bare(word: str, what: str) -> None:
    """Words without quotes, which YAML takes for numbers and merges: both can multiply work without end."""
    # 1:1:1:… is a number to the base of 60; 500,000 places of it keep a processor busy for minutes.
    if len(word) > _MAX_NUMBER and word[0] in "+-.0123456789":
        raise _wrong(f"{what} holds a number of {len(word)} places.")
    # Merged into each other, maps grow by powers while the count of aliases stays small.
    if word == "<<":
        raise _wrong(f"{what} merges maps (<<), which no model needs.")


def flavor_of(mlmodel: dict[str, Any]) -> tuple[str, dict[str, Any], str | None]:
    """(framework, its flavor block, its version); "pyfunc" when python_function is all there is."""
    flavors = mlmodel.get("flavors")
    if not isinstance(flavors, dict) or not flavors:
        raise _wrong("MLmodel names no flavors.")
    for name, block in flavors.items():
        if name != "python_function" and isinstance(block, dict):
            version = block.get(_VERSION_KEYS.get(name, f"{name}_version"))
            return str(name), block, str(version)[:40] if version is not None else None
    return "pyfunc", {}, None


def model_path(source: Path, mlmodel: dict[str, Any]) -> Path:
    """The model file the flavor names, inside `source`. EngineError when it is missing or outside."""
    framework, block, _ = flavor_of(mlmodel)
    keys = ("pickled_model", "data", "model_data", "saved_model_dir")
    name = next((block[key] for key in keys if block.get(key)), None)
    if not isinstance(name, str):
        raise _wrong(f"MLmodel does not say where the {framework} model lies.")
    path = (source / name).resolve()
    if not path.is_relative_to(source.resolve()):
        raise _wrong("MLmodel points outside its folder.")
    if not path.exists():
        raise _wrong(f"The model file {Path(name).name} is missing.")
    return path


def _wrong(message: str) -> EngineError:
    return EngineError(message, field="file", code="mlmodel")
