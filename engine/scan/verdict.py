"""Collects findings and sums them up."""

from __future__ import annotations

from typing import Any, Literal

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
            self.items.append({"level": level, "file": file[:200], "message": message[:500]})

    @property
    def verdict(self) -> str:
        for level in ("rejected", "suspicious"):
            if level in self._levels:
                return level
        return "clean"

    def result(self) -> dict[str, Any]:
        return {"verdict": self.verdict, "findings": self.items}
