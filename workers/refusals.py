"""A registered version that is not taken in: what is wrong with its files becomes its finding and its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.sandbox import Limits
from registry.models import Verdict, Version, VersionState
from registry.services import version_move
from slipway.jobs.context import JobContext
from slipway.jobs.kinds import Done
from workers.common import sandboxed

# The first things a sandboxed child gets: imports of scikit-learn alone take a second of CPU.
SCAN_LIMITS = Limits(seconds=60, memory_mb=3072)
# What a scan's own limits say of a model is a finding; the clock is not, for on a slow machine no model would be fit.
SCAN_ENDED = {"memory", "disk", "processes"}
FOLDER_REFUSED = {"name", "too_large"}


def scanned_source(job: JobContext, source: Path, scratch: Path) -> dict[str, Any]:
    """What the scan found. A folder that it cannot make sense of is rejected, with the reason as its finding."""
    try:
        found = sandboxed(
            job,
            "engine.scan.tasks:scan_source",
            params={},
            inputs={"source": source},
            scratch=scratch,
            limits=SCAN_LIMITS,
        ).value
    except EngineError as error:
        if error.field != "file" and error.code not in SCAN_ENDED:
            raise
        finding = {"level": "rejected", "file": "", "message": error.message[:500]}
        found = {
            "verdict": Verdict.REJECTED.value,
            "findings": [finding],
            "framework": "",
            "signature": {"inputs": [], "outputs": []},
            "requirements": [],
            "requirements_refused": [],
            "python": "",
        }
    for each in found["findings"]:
        if each["level"] == "rejected":
            job.log(": ".join(filter(None, [each["file"], each["message"]])), level="error")
    return found


def refused(version: Version, error: EngineError) -> Done:
    """The end of a version whose files are refused by their names, number or size before one is fetched."""
    if error.code not in FOLDER_REFUSED:
        raise error

    def commit() -> dict[str, Any]:
        version_move(version=version, state=VersionState.REJECTED, reason=error.message)
        return {"state": VersionState.REJECTED.value}

    return Done({}, commit=commit)
