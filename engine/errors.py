"""The one error whose text is meant for the user."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # sandboxed children start without what sentences are made of
    from engine.sentence import Sentence


class EngineError(Exception):
    """Something a person can act on: bad file, unsupported operator, out of tolerance.

    `message` is shown as it is. `field` names the input at fault (a form or JSON field),
    `code` is a stable word for programs. Given as a `Sentence`, it can be said in other languages.
    """

    def __init__(self, message: str | Sentence, *, field: str | None = None, code: str = "invalid") -> None:
        super().__init__(str(message))
        self.message = str(message)
        self.sentence = None if isinstance(message, str) else message
        self.field = field
        self.code = code

    def said(self, translate: Callable[[str], str]) -> str:
        """The message in the language that `translate` takes its texts to, where it can be said in another."""
        return self.message if self.sentence is None else self.sentence.said(translate)
