"""Whether a data set has the columns that a goal names, said at once where its file is CSV: text, and no more is read
here. Of other files the search's own first look says it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from django.utils.translation import gettext as _

from engine.evaluate.groups import MOST_VALUES
from registry import storage
from registry.examples import LARGEST
from registry.models import Dataset
from slipway.api.problems import Problem

FIELD = "goal.slices"


def slices_check(dataset: Dataset, names: Sequence[str]) -> None:
    """Problem for a column that is missing, is the target, or has more texts than can be guarded."""
    if dataset.target in names:
        raise Problem(_("“%(column)s” is the target: its classes are guarded already.") % {"column": dataset.target},
                      field=FIELD)  # fmt: skip
    if not names or not dataset.file_name.endswith(".csv") or dataset.size > LARGEST:
        return
    path = storage.fetch_file(dataset.uri, sha256=dataset.sha256, size_limit=LARGEST)
    try:
        counts = _texts(path, names)
    except (ValueError, csv.Error):  # UnicodeDecodeError is a ValueError
        return  # the search's first look reads more kinds of CSV, and says what is wrong with it
    for name in names:
        if name not in counts:
            raise Problem(_("The evaluation set has no column “%(column)s”.") % {"column": name}, field=FIELD)
        if counts[name] > MOST_VALUES:
            text = _("“%(column)s” has more than %(most)d values; only so many can be guarded, or a column of numbers.")
            raise Problem(text % {"column": name, "most": MOST_VALUES}, field=FIELD)


def _texts(path: Path, names: Sequence[str]) -> dict[str, int]:
    """{column: how many texts it has, counted to one beyond what is allowed; 0 for a column of numbers}."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        lines = csv.reader(stream)
        header = next(lines, [])
        places = {name: header.index(name) for name in names if name in header}
        found: dict[str, set[str]] = {name: set() for name in places}
        texts: set[str] = set()
        for line in lines:
            for name, place in places.items():
                value = line[place] if place < len(line) else ""
                if name not in texts and not _number(value):
                    texts.add(name)
                if len(found[name]) <= MOST_VALUES:
                    found[name].add(value)
    return {name: len(values) if name in texts else 0 for name, values in found.items()}


# What pandas takes for a missing number.
_MISSING = {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "1.#IND", "1.#QNAN"}
_MISSING |= {"<NA>", "N/A", "NA", "NULL", "None", "n/a", "null"}


def _number(text: str) -> bool:
    try:
        float(0 if text in _MISSING else text)
    except ValueError:
        return False
    return True
