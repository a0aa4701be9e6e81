"""What of a foreign exception a person may read."""

from __future__ import annotations

import re

_PATH = re.compile(r"(?:/[\w.+@=~-]+){2,}")


def neutral(error: BaseException) -> str:
    """One line: class and message, folders cut off, at most 300 characters."""
    text = _PATH.sub(lambda found: found.group().rsplit("/", 1)[1], str(error))
    text = "".join(ch for ch in " ".join(text.split())[:300] if ch.isprintable())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
