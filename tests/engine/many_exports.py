"""Several exports in one sandbox: its process imports a framework, or starts Java, once for all of them.

Each keeps its own folder and its own answer. The first of a process is as alone as the one of a worker.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.sandbox import Limits, run


@dataclass(frozen=True)
class Exports:
    """What the task said of each case, and where its files are."""

    said: dict[str, Any]
    files: Path

    def __getitem__(self, case: str) -> tuple[dict[str, Any], Path]:
        """(value, folder); raises the EngineError that the task raised."""
        said = self.said[case]
        if "refusal" in said:
            raise EngineError(said["refusal"], field=said["field"], code=said["code"])
        return said["value"], self.files / case


def exported(cases: dict[str, dict[str, Any]], folder: Path, python: Path, scratch: Path, **limits: Any) -> Exports:
    """Runs `cases` in the order given. {name: params of the task, with "source" and perhaps "rows" below `folder`}."""
    result = run(
        "many_exports:export_each",
        params={"cases": cases},
        inputs={"folder": folder},
        scratch=scratch,
        python=python,
        code=[Path(__file__).parent],
        limits=Limits(seconds=280, **limits),
    )
    return Exports(result.value, result.files)


def export_each(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """The sandboxed side."""
    from engine.export import tasks

    said: dict[str, Any] = {}
    for name, case in params["cases"].items():
        given = {each: inputs["folder"] / case[each] for each in ("source", "rows") if case.get(each)}
        (out / name).mkdir()
        try:
            said[name] = {"value": tasks.export(params=case, inputs=given, out=out / name)}
        except EngineError as error:
            said[name] = {"refusal": error.message, "field": error.field, "code": error.code}
    return said
