"""The first rows of a version's data, for people who want to try it. Only CSV is read here: text, and no more."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import Any

from django.utils.translation import gettext as _

from engine.errors import EngineError
from registry import storage
from registry.models import Dataset, DatasetRole, Version

LARGEST = 64 * 1024 * 1024  # beyond this a page would wait too long for the file
LONGEST_LINE = 1_000_000


def dataset_of(version: Version) -> Dataset | None:
    """The rows held out for evaluation, else those of training: of the version, then of its model."""
    for rows in (version.datasets.all(), Dataset.objects.filter(versions__model=version.model_id)):
        for role in (DatasetRole.EVALUATION, DatasetRole.TRAINING):
            found = rows.filter(role=role, file_name__endswith=".csv").order_by("-id").first()
            if found is not None:
                return found
    return None


def example_rows(dataset: Dataset, count: int = 5) -> dict[str, Any]:
    """{"columns": [names], "rows": [[text, …]], "target": [text, …]}; the target's column is apart."""
    if dataset.size > LARGEST:
        raise EngineError(_("The data set is too large to be read for a page."), code="too_large")
    path = storage.fetch_file(dataset.uri, sha256=dataset.sha256, size_limit=LARGEST)
    try:
        header, *rows = _lines(path, count + 1)
    except (ValueError, csv.Error) as error:  # UnicodeDecodeError is a ValueError
        raise EngineError(_("The data set cannot be read as CSV."), code="rows") from error
    if any(len(row) != len(header) for row in rows):
        raise EngineError(_("The data set cannot be read as CSV."), code="rows")
    keep = [place for place, name in enumerate(header) if name != dataset.target]
    aim = header.index(dataset.target) if dataset.target in header else None
    return {
        "columns": [header[place] for place in keep],
        "rows": [[row[place] for place in keep] for row in rows],
        "target": [row[aim] for row in rows] if aim is not None else [],
    }


def _lines(path: Path, count: int) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        text = stream.read(LONGEST_LINE)
    return list(itertools.islice(csv.reader(text.splitlines(keepends=True)), count))
