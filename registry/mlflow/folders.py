"""Folders of MLflow's artifact store: every name is looked at before anything is fetched."""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import EngineError
from registry.mlflow import client


@dataclass(frozen=True)
class FolderLimits:
    """What a folder may hold."""

    files: int = 2000
    depth: int = 8
    total_bytes: int = 4 * 1024**3


def listing(root: str, limits: FolderLimits) -> list[str]:
    """Paths of all files below `root`, every name looked at before anything is fetched."""
    files: list[str] = []
    seen: set[str] = set()
    total = 0
    folders = [("", 1)]
    while folders:
        folder, depth = folders.pop()
        if depth > limits.depth:
            raise EngineError(f"The folder is deeper than {limits.depth} levels.", code="too_large")
        answer = client.call(
            "GET",
            "artifacts",
            doing="listing a folder",
            params={"path": f"{root}/{folder}".rstrip("/")},
            api="2.0/mlflow-artifacts",
        )
        for row in answer.get("files", []):
            path = f"{folder}/{row['path']}" if folder else str(row["path"])
            _check_name(str(row["path"]), path)
            if path.casefold() in seen:
                raise EngineError(f"The folder holds {path!r} twice (names may not differ by case only).", code="name")
            seen.add(path.casefold())
            if row.get("is_dir"):
                folders.append((path, depth + 1))
            else:
                files.append(path)
                total += int(row.get("file_size", 0))
            if len(seen) > limits.files:
                raise EngineError(f"The folder holds more than {limits.files} files.", code="too_large")
            if total > limits.total_bytes:
                raise too_large(limits.total_bytes)
    return files


def _check_name(name: str, path: str) -> None:
    bad = (
        name in {"", ".", ".."}
        or "/" in name
        or "\\" in name
        or len(name.encode()) > 255
        or any(ord(character) < 32 or ord(character) == 127 for character in name)
    )
    if bad:
        raise EngineError(f"The folder holds a file with a name that is not safe: {path[:200]!r}.", code="name")


def too_large(limit: int) -> EngineError:
    """The error for more bytes than a caller takes."""
    return EngineError(f"The file is larger than {limit / 1024**2:.0f} MiB.", code="too_large")
