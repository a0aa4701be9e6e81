"""PyTorch's archives (.pt, .pth, .pt2) as data: which pickles lie inside and what they refer to.

torch.save and TorchScript write one zip with `data.pkl`; torch.export writes a zip whose weights are raw bytes and
whose constants and example inputs are zips of torch.save, which torch.export.load unpickles without a question.
Names are compared without case, as torch's own reader does.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path
from typing import IO

from engine.scan import pickles
from engine.scan.magic import kind_of
from engine.scan.verdict import Findings

SUFFIXES = {".pt", ".pth", ".pt2"}
_MAX_PICKLE = 64 * 1024 * 1024
_MAX_NESTED = 512 * 1024 * 1024
_MAX_CONFIG = 16 * 1024 * 1024
_CLOUDPICKLE = "The pickle carries code of its own: log the model with serialization_format='pt2', which needs none."
# What torch reads as text or JSON, or only on request.
_PLAIN = re.compile(
    r"(\.data/.*|byteorder|version|archive_format|archive_version|\.format_version|\.storage_alignment|.*\.json|extra/.*)"
)
_CONFIG = re.compile(r"data/(weights|constants)/[^/]+_config\.json")
_RAW = ("weight_", "tensor_")


def scan_torch(path: Path, name: str, findings: Findings) -> None:
    """Adds what the archive at `path` holds, which `archives.problem` has found fit, with the archives within it;
    anything that torch would unpickle and nobody can follow is rejected."""
    with path.open("rb") as file:
        _scan(file, name, findings, exported=path.suffix.lower() == ".pt2")


def _scan(file: IO[bytes], name: str, findings: Findings, exported: bool) -> None:
    if kind_of(file.read(512)) != "zip archive":
        # Before 1.6 torch wrote pickles and tars with raw numbers between, which no reader of pickles follows.
        findings.add("rejected", name, "This is no archive of PyTorch 1.6 or newer: save it again with torch.save.")
        return
    file.seek(0)
    try:
        with zipfile.ZipFile(file) as archive:
            (_scan_program if exported else _scan_saved)(archive, name, findings)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        # A damaged or encrypted entry: zlib's and zipfile's errors are of all these kinds.
        findings.add("rejected", name, f"The archive is damaged ({type(error).__name__}).")


def _scan_saved(archive: zipfile.ZipFile, name: str, findings: Findings) -> None:
    """What torch.save or TorchScript wrote: every entry named .pkl; the rest are numbers, text, and the program that
    TorchScript's own reader takes."""
    found = [entry for entry in archive.infolist() if entry.filename.casefold().endswith(".pkl")]
    if not any(_inner(entry) == "data.pkl" for entry in found):
        findings.add("rejected", name, "The archive has no data.pkl, so torch did not write it.")
    for entry in found:
        part = f"{name}:{entry.filename}"
        content = _read(archive, entry, _MAX_PICKLE, part, findings)
        if content is None:
            continue
        pickles.scan_stream(io.BytesIO(content), part, findings)
        if b"cloudpickle" in content:
            findings.add("rejected", part, _CLOUDPICKLE)


def _scan_program(archive: zipfile.ZipFile, name: str, findings: Findings) -> None:
    """What torch.export wrote: all that is neither text nor raw numbers must be an archive of torch.save."""
    raw = _raw_parts(archive)
    for entry in archive.infolist():
        inner = _inner(entry)
        if entry.is_dir() or inner in raw or _PLAIN.fullmatch(inner):
            continue
        part = f"{name}:{entry.filename}"
        content = _read(archive, entry, _MAX_NESTED, part, findings)
        if content is not None:
            _scan(io.BytesIO(content), part, findings, exported=False)


def _raw_parts(archive: zipfile.ZipFile) -> set[str]:
    """Entries whose configuration says that they are read as plain bytes; a contradiction counts against them."""
    raw: set[str] = set()
    pickled: set[str] = set()
    for entry in archive.infolist():
        inner = _inner(entry)
        if not _CONFIG.fullmatch(inner) or entry.file_size > _MAX_CONFIG:
            continue
        described = json.loads(archive.read(entry))
        parts = described.get("config") if isinstance(described, dict) else None
        for each in parts.values() if isinstance(parts, dict) else []:
            path = each.get("path_name") if isinstance(each, dict) else None
            if not isinstance(path, str) or "/" in path:
                continue
            plain = each.get("use_pickle") is False and path.startswith(_RAW)
            (raw if plain else pickled).add(f"{inner.rpartition('/')[0]}/{path.casefold()}")
    return raw - pickled


def _inner(entry: zipfile.ZipInfo) -> str:
    """The name below the archive's one folder."""
    return entry.filename.casefold().partition("/")[2]


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int, part: str, findings: Findings) -> bytes | None:
    if entry.file_size > most:
        findings.add("suspicious", part, "This part of the archive is too large to look into.")
        return None
    return archive.read(entry)
