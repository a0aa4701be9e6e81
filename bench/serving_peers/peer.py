"""A server of others that the bench can measure: what is installed for it, and how it is started."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bench.peer_environments import Installed
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
class Peer(Installed):
    """A server, and how it is started."""

    run: Callable[[Start], AbstractContextManager[Running]]
