"""A server of others that the bench can measure: what is installed for it, and how it is started."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bench.serving_parts.processes import Running

APPS = Path(__file__).resolve().parent / "apps"


@dataclass(frozen=True)
class Start:
    """What a peer is started with: its environment, the model's name, a folder for its files, processes."""

    home: Path
    model: str
    folder: Path
    processes: int

    @property
    def python(self) -> str:
        return str(self.home / "bin" / "python")

    @property
    def log(self) -> Path:
        return self.folder / "server.log"


@dataclass(frozen=True)
class Peer:
    """`packages` are pinned; the first one gives the version that is reported. `python` makes the environment."""

    packages: tuple[str, ...]
    run: Callable[[Start], AbstractContextManager[Running]]
    python: str = sys.executable

    def version(self, home: Path) -> str | None:
        """The installed version; None when its environment is not there."""
        package = self.packages[0].partition("==")[0]
        code = f"import importlib.metadata; print(importlib.metadata.version({package!r}))"
        try:
            told = subprocess.run([home / "bin" / "python", "-c", code], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return told.stdout.strip()
