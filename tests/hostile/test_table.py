"""The table of hostile files is whole."""

from __future__ import annotations

from collections import Counter

from tests.hostile.table import CASES

DOORS = {"upload", "request", "ingest", "folder", "twice"}


def test_every_number_is_present_when_the_table_is_read() -> None:
    assert {case.number for case in CASES} == {*range(1, 51), 60}


def test_every_case_has_one_name_a_door_and_a_cause_when_the_table_is_read() -> None:
    assert [name for name, count in Counter(str(case) for case in CASES).items() if count > 1] == []
    assert {case.door for case in CASES} == DOORS
    # The second of two equal files is a version of its own.
    assert {case.number for case in CASES if not case.word} == {23}
