"""The packages that a model says it needs, read as plain data and compared with packages that are there.

Whoever logs a model writes these files, so only plain named requirements count: an address, a folder or an option
would have the installer fetch and run what it names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from engine.errors import EngineError
from engine.sentence import Sentence, say

MOST = 200
LONGEST = 300
_MOST_BYTES = 100_000
# The same modules by the same people without CUDA, which no machine without a GPU has a use for.
CPU_BUILDS = {"xgboost": "xgboost-cpu", "tensorflow": "tensorflow-cpu"}


# Why a line is not taken; `text` is its beginning.
REASONS = {
    "long": f"“%(text)s…” is longer than {LONGEST} characters.",
    "characters": "“%(text)s” holds characters that no requirement has.",
    "option": "“%(text)s” is an option for the installer, and only named packages are taken.",
    "variable": "“%(text)s” names an environment variable, and only named packages are taken.",
    "form": "“%(text)s” is not a package with versions, such as numpy>=2.",
    "address": "“%(text)s” names an address, and only named packages are taken.",
    "texts": "“%(text)s” compares versions as texts (===); write == instead.",
}


PLACE = "%(where)s, line %(line)s: %(reason)s"


def sentence_of(refusal: str) -> Sentence:
    """A refusal of `Recorded` as it was stored, as a sentence for other languages; words that nobody knows stay."""
    for reason in REASONS.values():
        before, _, after = reason.partition("%(text)s")
        form = rf"(?P<where>.+), line (?P<line>\d+): {re.escape(before)}(?P<text>.*){re.escape(after)}"
        if found := re.fullmatch(form, refusal, re.DOTALL):
            return say(PLACE, where=found["where"], line=found["line"], reason=say(reason, text=found["text"]))
    return say("%(words)s", words=refusal)


@dataclass(frozen=True, slots=True)
class Fault:
    """A line that is no plain requirement. line: its number from 1; text: its beginning; reason: of `REASONS`."""

    line: int
    text: str
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason % {'text': self.text}}"


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a model's folder says of its environment. lines: plain requirements; python: its version, "" unknown;
    refused: a sentence for each line that is not plain."""

    lines: list[str]
    python: str
    refused: list[str]


def recorded(folder: Path) -> Recorded:
    """requirements.txt (or the pip section of conda.yaml where there is none) and the version of Python from
    python_env.yaml or conda.yaml. EngineError for a YAML file that is not plain."""
    conda = _yaml(folder / "conda.yaml")
    lines, python = _of_conda(conda)
    where = "conda.yaml"
    listed = folder / "requirements.txt"
    if listed.is_file():
        where = "requirements.txt"
        if listed.stat().st_size > _MOST_BYTES:
            return Recorded([], "", [f"requirements.txt is larger than {_MOST_BYTES // 1000} kB."])
        lines = listed.read_text("utf-8", "replace").splitlines()
    python = str(_yaml(folder / "python_env.yaml").get("python") or python)
    meant = list(_meant(lines))
    wrong = {fault.line: f"{where}, {fault}" for fault in _faults(meant)}
    plain, refused = [text for number, text in meant if number not in wrong], list(wrong.values())
    if len(plain) > MOST:
        return Recorded([], "", [f"{where} names more than {MOST} packages."])
    return Recorded(plain, python if _is_version(python) else "", refused)


def parsed(lines: Iterable[str], where: str) -> list[Requirement]:
    """The requirements of a list. EngineError(code="requirements") naming the first line that is not plain."""
    meant = list(_meant(lines))
    for fault in _faults(meant):
        raise _wrong(f"{where}, {fault}")
    if len(meant) > MOST:
        raise _wrong(f"{where}: there are more than {MOST} packages.")
    return [Requirement(text) for _, text in meant]


def faults(lines: Iterable[str]) -> list[Fault]:
    """All lines that are not plain."""
    return list(_faults(_meant(lines)))


def needed(requirements: Iterable[Requirement]) -> list[Requirement]:
    """Those that this platform needs for loading the model. MLflow, which every model logged with it names, is not
    among them: models are loaded without it, and it brings a hundred packages along."""
    return [
        each
        for each in requirements
        if (each.marker is None or each.marker.evaluate({"extra": ""}))
        and canonicalize_name(each.name).split("-")[0] != "mlflow"
    ]


def unmet(requirements: Iterable[Requirement], version_of: Callable[[str], str | None]) -> list[str]:
    """The requirements that packages which are there do not satisfy. version_of: of a package by its canonical name,
    None where it is not there. Which extras are there nobody knows, so one with extras is not satisfied."""
    return [str(each) for each in requirements if each.extras or not _is_met(each, version_of)]


def merged(requirements: Iterable[Requirement], ours: Iterable[Requirement]) -> list[str]:
    """What a model needs, and of our own needs those that it does not name itself: its word goes first."""
    theirs = list(requirements)
    names = {_cpu_name(each.name) for each in theirs}
    more = [each for each in needed(ours) if _cpu_name(each.name) not in names]
    return sorted({_bare(each) for each in [*theirs, *more]})


@cache
def installed(name: str) -> str | None:
    """Version of a package of this very interpreter."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def for_cpu(requirement: str) -> str:
    """The requirement with the name of the CPU build, where one goes by another name."""
    parsed_one = Requirement(requirement)
    parsed_one.name = CPU_BUILDS.get(canonicalize_name(parsed_one.name), parsed_one.name)
    return str(parsed_one)


def _is_met(requirement: Requirement, version_of: Callable[[str], str | None]) -> bool:
    name = canonicalize_name(requirement.name)
    version = version_of(name) or version_of(CPU_BUILDS.get(name, name))
    return version is not None and requirement.specifier.contains(version, prereleases=True)


def _cpu_name(name: str) -> str:
    name = canonicalize_name(name)
    return CPU_BUILDS.get(name, name)


def _bare(requirement: Requirement) -> str:
    """Without its marker, which was answered for this platform already."""
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{canonicalize_name(requirement.name)}{extras}{requirement.specifier}"


def _meant(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    """(number, text) of the lines that are neither empty nor a comment."""
    for number, line in enumerate(lines, 1):
        text = "" if line.lstrip().startswith("#") else line.split(" #")[0].strip()
        if text:
            yield number, text


def _faults(meant: Iterable[tuple[int, str]]) -> Iterator[Fault]:
    for number, text in meant:
        if reason := _reason(text):
            shown = "".join(sign if sign.isprintable() else "?" for sign in text[:80])
            yield Fault(number, shown, REASONS[reason])


def _reason(text: str) -> str:
    """Key of `REASONS`, "" for a plain requirement."""
    if len(text) > LONGEST:
        return "long"
    if not text.isascii() or not text.isprintable():
        return "characters"
    if text.startswith("-"):
        return "option"
    if "$" in text:
        return "variable"
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return "form"
    if requirement.url is not None:
        return "address"
    return "texts" if any(each.operator == "===" for each in requirement.specifier) else ""


def _yaml(path: Path) -> dict[str, Any]:
    from engine.scan import mlmodel

    return mlmodel.read_yaml(path, path.name) if path.is_file() else {}


def _of_conda(conda: dict[str, Any]) -> tuple[list[str], str]:
    """(the lines of its pip section, the version of Python). What else conda installs has no name in pip's world."""
    lines: list[str] = []
    python = ""
    dependencies = conda.get("dependencies")
    for entry in dependencies if isinstance(dependencies, list) else []:
        if isinstance(entry, str) and entry.startswith("python="):
            python = entry.removeprefix("python").strip("=")
        elif isinstance(entry, dict) and isinstance(entry.get("pip"), list):
            lines += [str(line) for line in entry["pip"]]
    return lines, python


def _is_version(text: str) -> bool:
    parts = text.split(".")
    return len(text) < 20 and len(parts) in (2, 3) and all(part.isascii() and part.isdigit() for part in parts)


def _wrong(message: str) -> EngineError:
    return EngineError(message, field="requirements", code="requirements")
