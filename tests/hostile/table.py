"""Every hostile file: its number in the list of what Slipway must survive, the door it comes by, the cause to hear.

Doors: `upload` posts a file to the API of a real server; `request` sends bytes to it; `ingest` registers a folder in
a real MLflow and runs the job that takes it in; `folder` scans a folder in the sandbox, for what MLflow's store
cannot hold (links, devices); `twice` is case 23, which has a test of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.engine.onnx_files import relu
from tests.hostile.archives import ARCHIVES
from tests.hostile.mlmodels import MLMODELS
from tests.hostile.models import FOLDERS, PICKLES, TENSORS, UPLOADS
from tests.hostile.requests import REQUESTS

PICKLE = b"\x80\x04K\x01."  # the number 1


@dataclass(frozen=True)
class Case:
    number: int
    name: str
    door: str
    make: Callable[..., Any]
    word: str

    def __str__(self) -> str:
        return f"{self.number}-{self.name.replace(' ', '-')}"


def described(model: str) -> bytes:
    flavors = {"sklearn": {"pickled_model": model, "sklearn_version": "1.9.0"}}
    return json.dumps({"flavors": flavors}).encode()


def archive(suffix: str, make: Callable[[], bytes]) -> Callable[[], dict[str, bytes]]:
    return lambda: {"MLmodel": described(f"model{suffix}"), f"model{suffix}": make()}


def beside(name: str, make: Callable[[], bytes]) -> Callable[[], dict[str, bytes]]:
    """A folder with this file and a model that is fit."""
    return lambda: {"MLmodel": described("model.pkl"), "model.pkl": PICKLE, name: make()}


def described_by(text: Callable[[], str]) -> Callable[[], dict[str, bytes]]:
    return lambda: {"MLmodel": text().encode(), "model.pkl": PICKLE}


_KINDS = {".mar": "archive", ".keras": "zip archive", ".skops": "zip archive", ".npz": "zip archive"}
# One archive of each number is uploaded too: it is told by its first bytes, and that is where it ends.
_FIRST = {number: (name, suffix, make) for number, name, suffix, make, _ in reversed(ARCHIVES)}

CASES: list[Case] = [
    *(Case(number, name, "ingest", archive(suffix, make), word) for number, name, suffix, make, word in ARCHIVES),
    *(
        Case(number, f"{name} uploaded", "upload", make, _KINDS[suffix])
        for number, (name, suffix, make) in sorted(_FIRST.items())
    ),
    Case(1, "zip of another name", "ingest", beside("more.zip", _FIRST[1][2]), "zip archive inside a model"),
    *(Case(number, name, "request", make, word) for number, name, make, word in REQUESTS),
    Case(23, "same digest twice at once", "twice", relu().SerializeToString, ""),
    *(Case(number, name, "upload", make, word) for number, name, make, word in UPLOADS),
    *(Case(number, name, "ingest", beside("model.safetensors", make), word) for number, name, make, word in TENSORS),
    *(Case(number, name, "ingest", beside(file, make), word) for number, name, file, make, word in PICKLES),
    *(Case(number, name, "folder", make, word) for number, name, make, word in FOLDERS),
    *(Case(number, name, "ingest", described_by(text), word) for number, name, text, word in MLMODELS),
]


def by(door: str) -> list[Case]:
    return [case for case in CASES if case.door == door]
