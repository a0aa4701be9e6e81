"""Which versions registered in MLflow are not in our registry yet. Only plans; services take them in.

MLflow is asked for its versions newest first, 100 at a time, and each page is compared with our rows by one
query. Reading stops at the first page that holds nothing new and whose oldest version is `OVERLAP_MS` older
than the newest one seen, so a quiet tick costs one request and one query however many versions there are.

The overlap finds versions that became visible late (a long transaction, clocks apart). What it cannot find,
a version far down that could not be taken in before or that came back from a backup, is found by a full
reading: the first in a process and then every `FULL_EVERY` seconds, or on demand.

Versions still being copied (PENDING_REGISTRATION) are left for a later tick, failed ones and prompts for
good. A model renamed in MLflow is a new name here; our versions of the old name stay as they are.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import groupby

from django.db.models import Q

from registry.mlflow import gateway
from registry.mlflow.facts import MlflowVersion
from registry.models import Version

OVERLAP_MS = 10 * 60 * 1000
FULL_EVERY = 3600.0
FULL_PAGE = 1000
_last_full: dict[str, float] = {}


def versions_new(*, full: bool | None = None) -> list[MlflowVersion]:
    """Registered versions that we do not know, ascending by (name, version).

    `full` reads everything; None decides by the time since this process last did.
    """
    started = time.monotonic()
    if full is None:
        full = started - _last_full.get("at", -FULL_EVERY) >= FULL_EVERY
    missing: dict[tuple[str, int], MlflowVersion] = {}
    newest = None
    for page in gateway.version_pages(size=FULL_PAGE if full else gateway.PAGE):
        if not page:
            break
        newest = page[0].created if newest is None else newest
        unknown = _unknown(page)
        missing |= {(row.name, row.version): row for row in unknown}
        if not full and not unknown and page[-1].created < newest - OVERLAP_MS:
            break
    if full:
        _last_full["at"] = started
    return [missing[key] for key in sorted(missing)]


def _unknown(page: Iterable[MlflowVersion]) -> list[MlflowVersion]:
    """Those of a page that could be taken in and are not here, by one query."""
    rows = sorted((row for row in page if row.is_ready and not row.is_prompt), key=lambda row: (row.name, row.version))
    if not rows:
        return []
    wanted = Q()
    for name, group in groupby(rows, key=lambda row: row.name):
        wanted |= Q(model__mlflow_name=name, mlflow_version__in=[row.version for row in group])
    known = set(Version.objects.filter(wanted).values_list("model__mlflow_name", "mlflow_version"))
    return [row for row in rows if (row.name, row.version) not in known]
