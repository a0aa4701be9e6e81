"""`python -m conformance.compare NAME=REPORT.json …`: JSON reports of several servers as one Markdown table."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_SHORT = {"pass": "pass", "fail": "**fail**", "not offered": "–", "": "left out"}


def table(reports: dict[str, list[dict[str, Any]]]) -> str:
    """One line per check, one column per server; the first report gives the order of the checks."""
    results = {name: {row["check"]: row["result"] for row in rows} for name, rows in reports.items()}
    first = next(iter(reports.values()))
    lines = [f"| check | what it holds | level | {' | '.join(reports)} |", "|---" * (3 + len(reports)) + "|"]
    for row in first:
        cells = " | ".join(_SHORT[results[name].get(row["check"], "")] for name in reports)
        says = row["says"].replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")
        lines.append(f"| `{row['check']}` | {says} | {row['level']} | {cells} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Entry point; the exit code."""
    pairs = [argument.partition("=") for argument in arguments]
    if not pairs or any(not path for _, _, path in pairs):
        print("usage: python -m conformance.compare NAME=REPORT.json …", file=sys.stderr)
        return 2
    print(
        table({name: json.loads(Path(path).read_text(encoding="utf-8"))["checks"] for name, _, path in pairs}), end=""
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
