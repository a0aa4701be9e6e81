"""`make test` finds every test: marked ones where its second run looks, long ones where its order names them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.order import LONGEST_FIRST

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"e2e", "chaos"}


def test_marks_of_the_second_run_stay_in_its_folders() -> None:
    marked = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "tests").rglob("test_*.py")
        if re.search(r"mark\.(e2e|chaos)\b", path.read_text())
    }
    assert marked and {name.split("/")[1] for name in marked} == FOLDERS
    makefile = (ROOT / "Makefile").read_text()
    assert re.findall(r'-m "e2e or chaos" (.*) \$\(PYTEST_ARGS\)', makefile) == ["tests/e2e tests/chaos"]


def test_files_that_begin_first_are_there() -> None:
    assert [name for name in LONGEST_FIRST if not (ROOT / name).exists()] == []
    assert len(set(LONGEST_FIRST)) == len(LONGEST_FIRST)
