"""Printing: JSON as the API gave it, or tables. Nothing that comes from a server reaches the terminal raw."""

from __future__ import annotations

import datetime as dt
import json
import re
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


class Output(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"


# Controls (C0, DEL, C1), bidirectional overrides, line separators and lone surrogates: they can move the
# cursor, rename the window, reorder or hide text. JSON escapes C0 by itself.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_IN_JSON = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_WIDE = 100_000  # no wrapping where nobody looks: a pipe gets one line per row
_STYLES = {
    "green": {"succeeded", "ready", "live", "promoted", "approved", "clean", "resolved", "good"},
    "yellow": {"running", "progressing", "baking", "paused", "warm", "shadow", "suspicious", "pending", "attention"},
    "red": {"failed", "rejected", "firing", "rolled-back", "aborted", "declined", "bad", "error"},
}


def _visible(match: re.Match[str]) -> str:
    point = ord(match[0])
    if point < 0x20:
        return chr(0x2400 + point)  # ␛ for escape
    return "␡" if point == 0x7F else f"\\u{point:04x}"


def clean(value: Any) -> str:
    """Text with every control character made visible; line breaks and tabs stay."""
    return _CONTROL.sub(_visible, str(value))


def cell(value: Any) -> str:
    """One line of clean text: what a table shows of a value."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False) if value else "–"
    return " ".join(clean(value).split())


def as_json(value: Any) -> str:
    """The API's JSON, readable, with everything a terminal could obey escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    return _IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def say(text: str = "") -> None:
    """A line on stdout."""
    print(clean(text))


def note(text: str) -> None:
    """A line on stderr: stdout is for results."""
    print(clean(text), file=sys.stderr)


def console(stderr: bool = False) -> Console:
    """A rich console on the present stdout or stderr; endless lines where it is no terminal."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, highlight=False, soft_wrap=False, width=None if stream.isatty() else _WIDE)


def styled(text: str) -> Text:
    """Clean text; a word of a known state gets its colour."""
    from rich.text import Text

    shown = cell(text)
    return Text(shown, style=next((style for style, words in _STYLES.items() if shown in words), ""), overflow="fold")


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], empty: str = "Nothing here.") -> None:
    """Rows below a head; an empty table is a sentence on stderr."""
    from rich.table import Table

    listed = [[styled(value) for value in row] for row in rows]
    if not listed:
        note(empty)
        return
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in columns:
        made.add_column(name)
    for row in listed:
        made.add_row(*row)
    console().print(made)


def record(pairs: Iterable[tuple[str, Any]]) -> None:
    """Names and values, one below the other; what is empty is left out."""
    from rich.table import Table

    made = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    made.add_column(style="bold", no_wrap=True)
    made.add_column()
    for name, value in pairs:
        if value not in (None, "", [], {}):
            made.add_row(name, styled(value))
    console().print(made)


def when(text: Any) -> str:
    """An API time in the reader's own zone."""
    if not text:
        return ""
    try:
        return dt.datetime.fromisoformat(str(text)).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return str(text)


def size(count: Any) -> str:
    """Bytes for people."""
    amount = float(count or 0)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def percent(share: Any) -> str:
    """A share as percent."""
    return "" if share is None else f"{100 * float(share):.0f} %"


def short(digest: Any) -> str:
    """The part of a digest that people compare."""
    return str(digest or "")[:12]
