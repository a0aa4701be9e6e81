"""The one error whose text is meant for the user."""

from __future__ import annotations


class EngineError(Exception):
    """Something a person can act on: bad file, unsupported operator, out of tolerance.

    `message` is shown as it is. `field` names the input at fault (a form or JSON field),
    `code` is a stable word for programs.
    """

    def __init__(self, message: str, *, field: str | None = None, code: str = "invalid") -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.code = code
