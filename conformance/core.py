"""Checks, their registry, and how one is run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conformance.target import Target

REQUIRED = "required"
EXTENSION = "extension"
PASS, FAIL, NOT_OFFERED = "pass", "fail", "not offered"
EVIDENCE_LENGTH = 160

# What a check does: raises Failed or NotOffered, or returns its line of evidence.
Body = Callable[["Target"], str]


class Failed(Exception):
    """The server does otherwise than the check says; the text is the evidence."""


class NotOffered(Exception):
    """The server does not have what the check is about; the text says how that was found."""


@dataclass(frozen=True)
class Check:
    """One line of the matrix. `level` is REQUIRED (the protocol's own API, or HTTP/1.1 and gRPC under it) or
    EXTENSION (a published extension, or what the protocol leaves open)."""

    name: str
    level: str
    says: str
    body: Body


@dataclass(frozen=True)
class Outcome:
    """What a check found; `seconds` is how long it took."""

    check: Check
    result: str
    evidence: str
    seconds: float

    def as_dict(self) -> dict[str, object]:
        """The outcome as the JSON report has it."""
        return {
            "check": self.check.name,
            "level": self.check.level,
            "says": self.check.says,
            "result": self.result,
            "evidence": self.evidence,
            "seconds": round(self.seconds, 4),
        }


_CHECKS: dict[str, Check] = {}


def register(name: str, level: str, says: str, body: Body) -> None:
    """Add a check; a name may be there once only. What it says is its docstring as well."""
    if name in _CHECKS:
        raise ValueError(f"check {name} is there twice")
    body.__doc__ = body.__doc__ or f"{says}."
    _CHECKS[name] = Check(name, level, says, body)


def required(name: str, says: str) -> Callable[[Body], Body]:
    """Decorator of a required check."""
    return _decorator(name, REQUIRED, says)


def extension(name: str, says: str) -> Callable[[Body], Body]:
    """Decorator of a check of an extension."""
    return _decorator(name, EXTENSION, says)


def _decorator(name: str, level: str, says: str) -> Callable[[Body], Body]:
    def add(body: Body) -> Body:
        register(name, level, says, body)
        return body

    return add


def all_checks() -> list[Check]:
    """Every check, in the order of the modules that define them."""
    from conformance import checks  # noqa: F401 - importing it registers them

    return list(_CHECKS.values())


def expect(condition: object, evidence: str) -> None:
    """Raises Failed with the evidence unless the condition holds."""
    if not condition:
        raise Failed(evidence)


def one_line(text: str) -> str:
    """Evidence on one line, shortened, printable."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= EVIDENCE_LENGTH else line[: EVIDENCE_LENGTH - 1] + "…"


def _shown(error: Exception) -> str:
    code, details = getattr(error, "code", None), getattr(error, "details", None)
    if callable(code) and callable(details):  # gRPC's, whose own text takes several lines
        return f"{getattr(code(), 'name', code())} {details()}"
    return f"{type(error).__name__}: {error}"


def run_one(check: Check, target: Target) -> Outcome:
    """Run a check. Whatever it raises is a failure and never ends the run."""
    start = time.perf_counter()
    try:
        result, evidence = PASS, check.body(target)
    except NotOffered as reason:
        result, evidence = NOT_OFFERED, str(reason)
    except Failed as reason:
        result, evidence = FAIL, str(reason)
    except Exception as error:  # a server may break a client in any way
        result, evidence = FAIL, _shown(error)
    return Outcome(check, result, one_line(evidence), time.perf_counter() - start)


def run_all(target: Target, checks: Iterable[Check]) -> list[Outcome]:
    """Run checks one after the other."""
    return [run_one(check, target) for check in checks]
