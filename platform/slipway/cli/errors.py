"""What can go wrong, and the exit code that says so to scripts."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """Documented in `slipway --help`: scripts may rely on these numbers."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    DENIED = 4
    MISSING = 5
    CONFLICT = 6
    INVALID = 7
    SERVER = 8
    INTERRUPTED = 130


MEANINGS = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "a job or rollout did not succeed, doctor found something bad, or you said no",
    ExitCode.USAGE: "wrong usage",
    ExitCode.UNREACHABLE: "cannot connect",
    ExitCode.DENIED: "not signed in, or not allowed",
    ExitCode.MISSING: "not found",
    ExitCode.CONFLICT: "conflict, or changed by somebody else",
    ExitCode.INVALID: "refused as not valid",
    ExitCode.SERVER: "error of the server",
    ExitCode.INTERRUPTED: "interrupted",
}


class CliError(Exception):
    """An error with a text for people: printed to stderr, no traceback. `lines` follow indented.

    `status` is that of the answer, 0 without one.
    """

    def __init__(self, text: str, code: ExitCode, lines: Sequence[str] = (), status: int = 0) -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        self.lines = list(lines)
        self.status = status


def code_of(status: int) -> ExitCode:
    """The exit code of an HTTP status."""
    if status in {401, 403}:
        return ExitCode.DENIED
    if status in {404, 410}:
        return ExitCode.MISSING
    if status in {409, 412, 428}:
        return ExitCode.CONFLICT
    if status == 429 or status >= 500:
        return ExitCode.SERVER
    return ExitCode.INVALID
