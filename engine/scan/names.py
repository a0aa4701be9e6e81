"""Names inside archives, and what a person may read of them."""

from __future__ import annotations

import posixpath
import unicodedata

LONGEST = 1024  # bytes; no model format comes near, and file systems take 255 of them a part
# Control and format characters (right-to-left marks among them), surrogates, line and paragraph separators.
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def printable(text: str, most: int = 60) -> str:
    """A foreign name, short and on one line, for use in a sentence."""
    shown = "".join(ch if ch.isprintable() else "?" for ch in text[:most])
    return shown + ("…" if len(text) > most else "")


class Names:
    """Every name of one archive, each looked at once."""

    def __init__(self) -> None:
        self._seen: dict[str, str] = {}

    def problem(self, name: str) -> str | None:
        """Why an archive must not hold `name`; None when it may."""
        if len(name.encode("utf-8", "replace")) > LONGEST:
            return f"It holds a name longer than {LONGEST} bytes."
        if any(unicodedata.category(ch) in _UNSEEN for ch in name):
            return f"The name '{printable(name)}' holds characters that cannot be seen."
        if name.startswith(("/", "\\")) or name[1:2] == ":":
            return f"The name '{printable(name)}' is absolute: it leads outside."
        if "\\" in name or ".." in name.split("/"):
            return f"The name '{printable(name)}' leads outside."
        if not name.strip("/ "):
            return "It holds an entry without a name."
        return self._twice(name)

    def _twice(self, name: str) -> str | None:
        same = unicodedata.normalize("NFC", posixpath.normpath(name)).casefold()
        before = self._seen.get(same)
        self._seen[same] = name
        if before is None:
            return None
        if posixpath.normpath(before) == posixpath.normpath(name):
            return f"It holds the same name '{printable(name)}' twice."
        return f"It holds the same name twice but for case: '{printable(before)}' and '{printable(name)}'."
