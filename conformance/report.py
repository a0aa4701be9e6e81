"""Outcomes as a table for people, as JSON, and as Markdown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from conformance.core import FAIL, NOT_OFFERED, PASS, REQUIRED, Outcome

_MARK = {PASS: "pass", FAIL: "**fail**", NOT_OFFERED: "not offered"}


def required_failures(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Failed checks that are required."""
    return [o for o in outcomes if o.result == FAIL and o.check.level == REQUIRED]


def summary(outcomes: Sequence[Outcome]) -> str:
    """One line of counts."""
    counts = Counter((o.check.level, o.result) for o in outcomes)
    parts = []
    for level in sorted({o.check.level for o in outcomes}, reverse=True):
        counted = ", ".join(f"{counts[level, result]} {result}" for result in (PASS, FAIL, NOT_OFFERED))
        parts.append(f"{level}: {counted}")
    return "; ".join(parts)


def as_text(outcomes: Sequence[Outcome]) -> str:
    """The matrix with aligned columns, and the counts below it."""
    width = max((len(o.check.name) for o in outcomes), default=5)
    lines = [f"{o.check.name:<{width}}  {o.check.level:<9}  {o.result:<11}  {o.evidence}" for o in outcomes]
    return "\n".join([*lines, "", summary(outcomes)])


def as_json(target: str, outcomes: Sequence[Outcome]) -> str:
    """The matrix as a JSON document."""
    found = {"target": target, "summary": summary(outcomes), "checks": [o.as_dict() for o in outcomes]}
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def as_markdown(outcomes: Sequence[Outcome]) -> str:
    """The matrix as a Markdown table."""
    lines = ["| check | says | level | result | evidence |", "|---|---|---|---|---|"]
    lines += [
        f"| `{o.check.name}` | {_cell(o.check.says)} | {o.check.level} | {_MARK[o.result]} | {_cell(o.evidence)} |"
        for o in outcomes
    ]
    return "\n".join([*lines, "", summary(outcomes), ""])


def _cell(text: str) -> str:
    for plain, escaped in (("\\", "\\\\"), ("|", "\\|"), ("*", "\\*"), ("<", "&lt;"), ("`", "'")):
        text = text.replace(plain, escaped)
    return text
