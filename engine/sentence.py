"""A sentence that can be said in another language: the English text with places for figures, and the figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pydantic import BaseModel, model_validator

AND = "%(before)s and %(after)s"
THEN = "%(before)s, then %(after)s"


class Sentence(BaseModel):
    """text: English, with %(name)s where a figure belongs; it is the message's id in a catalogue. figures: what belongs
    there, by name; a Sentence among them is a part that is said in the same language."""

    text: str
    figures: dict[str, str | Sentence] = {}

    @model_validator(mode="before")
    @classmethod
    def _of_plain_text(cls, given: Any) -> Any:
        """What was stored before sentences had figures is said as it is."""
        return {"text": given.replace("%", "%%")} if isinstance(given, str) else given

    @classmethod
    def of_stored(cls, text: str) -> Sentence:
        """Of what `model_dump_json` gave, or of a plain text that was stored before sentences had figures."""
        return cls.model_validate_json(text) if text.startswith("{") else cls.model_validate(text)

    def said(self, translate: Callable[[str], str] = str) -> str:
        """The sentence in the language that `translate` takes its texts to."""
        figures = {
            name: value.said(translate) if isinstance(value, Sentence) else value
            for name, value in self.figures.items()
        }
        return translate(self.text) % figures

    def __str__(self) -> str:
        return self.said()


def say(text: str, /, **figures: str | Sentence) -> Sentence:
    """A sentence with its figures, each already rounded to what it is worth."""
    return Sentence(text=text, figures=figures)


def in_turn(names: Iterable[str]) -> Sentence:
    """One or more things that are done one after the other."""
    return chained([Sentence(text=name.replace("%", "%%")) for name in names], THEN)


def chained(parts: list[Sentence], text: str) -> Sentence:
    """One or more parts in a row. text: how two of them are put together, `AND` or `THEN`."""
    found = parts[0]
    for part in parts[1:]:
        found = say(text, before=found, after=part)
    return found
