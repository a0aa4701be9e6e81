"""Standalone: a folder of models as a routing table, with no control plane."""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path

from serving.document import EndpointSpec, Placement
from serving.model import Model, ModelError, load_model
from serving.table import Deployment, Endpoint, Table

log = logging.getLogger("serving.folder")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def scan(folder: Path) -> dict[str, dict[str, Path]]:
    """Model files by name and version: `NAME.onnx` is version 1, else `NAME/VERSION/model.onnx`.

    Raises OSError."""
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".onnx" and path.is_file() and _NAME.fullmatch(path.stem):
            found.setdefault(path.stem, {})["1"] = path
        elif path.is_dir() and _NAME.fullmatch(path.name):
            for version in sorted(path.iterdir()):
                file = version / "model.onnx"
                if _NAME.fullmatch(version.name) and file.is_file():
                    found.setdefault(path.name, {})[version.name] = file
    return found


def _rank(version: str) -> tuple[int, int, str]:
    return (1, int(version), "") if version.isdigit() else (0, 0, version)


def load_folder(folder: Path) -> Table:
    """Load every model of a folder. The highest version answers; the others do when their version is asked
    for. One that cannot be loaded is logged and left out. Raises OSError."""
    endpoints = {}
    for name, versions in scan(folder).items():
        deployments: list[Deployment] = []
        for version in sorted(versions, key=_rank, reverse=True):
            path = versions[version]
            data = path.read_bytes()
            model: Model | None = None
            reason = ""
            try:
                # By its path, so that it finds the weights that lie beside it in its own folder.
                model = load_model(path if path.name == "model.onnx" else data)
                model.warm()
            except ModelError as error:
                model, reason = None, str(error)
                log.error("model %s version %s is not served: %s", name, version, reason)
            live = model is not None and not any(d.placement.mode == "live" for d in deployments)
            placement = Placement(
                id=f"{name}-{version}",
                version=version,
                weight=100.0 if live else 0.0,
                mode="live" if live else "warm",
                sha256=hashlib.sha256(data).hexdigest(),
                format="onnx",
                size=len(data),
            )
            deployments.append(Deployment(name, placement, model, reason))
        placements = tuple(d.placement for d in deployments)
        endpoints[name] = Endpoint(EndpointSpec(name, "open", frozenset(), placements, {}), deployments)
    return Table(0, endpoints)
