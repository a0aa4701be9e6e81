"""Collects findings and sums them up."""

from __future__ import annotations

from typing import Any, Literal

from engine.scan.names import printable

Level = Literal["info", "suspicious", "rejected"]
_MOST = 200


class Findings:
    """What was found, in order, at most 200; the verdict is that of the worst."""

    def __init__(self) -> None:
        self.items: list[dict[str, str]] = []
        self._levels: set[str] = set()

    def add(self, level: Level, file: str, message: str) -> None:
        self._levels.add(level)
        if len(self.items) < _MOST:
            # Names come from the files: nothing of them may begin a line of a log or turn its direction.
            self.items.append({"level": level, "file": printable(file, 200), "message": printable(message, 499)})

    @property
    def verdict(self) -> str:
        for level in ("rejected", "suspicious"):
            if level in self._levels:
                return level
        return "clean"

    def result(self) -> dict[str, Any]:
        return {"verdict": self.verdict, "findings": self.items}
