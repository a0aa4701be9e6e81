"""From requirements to a lock: names, versions and hashes of everything that is to be installed.

Uses the network and runs no code of a package, unless building from source is allowed.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from engine.errors import EngineError
from engine.export import bill, requirements
from engine.export.installing import Tools, command, has_gpu, uv

_SHA256 = re.compile(r"[0-9a-f]{64}")
_TORCH = ("torch", "torchvision", "torchaudio")  # only pip finds their CPU builds where it is told to look
_TELLING = re.compile(r"No matching distribution found for|Cannot install|depends on|The user requested")
_MOST_SAID = 400


def resolve(wanted: Sequence[str], tools: Tools, say: Callable[[str], None]) -> str:
    """A lock for `wanted` on this platform. EngineError(code="requirements") that names what cannot be had."""
    if has_gpu():
        return _resolved(list(wanted), tools, say)
    on_cpu = [requirements.for_cpu(each) for each in wanted]
    try:
        lock = _resolved(on_cpu, tools, say)
    except EngineError:
        if on_cpu == list(wanted):
            raise
        # Old releases have no CPU build under a name of its own: theirs bring no CUDA along.
        lock = _resolved(list(wanted), tools, say)
    _refuse_cuda(lock)
    return lock


def names_torch(names: Sequence[str]) -> bool:
    """Whether one of the packages is torch or goes with it."""
    return any(canonicalize_name(name) in _TORCH for name in names)


def _resolved(wanted: list[str], tools: Tools, say: Callable[[str], None]) -> str:
    with tempfile.TemporaryDirectory(prefix="slipway-resolve-") as name:
        folder = Path(name)
        asked = folder / "asked.txt"
        asked.write_text("\n".join(wanted) + "\n")
        if tools.installer == "uv" and not names_torch([Requirement(each).name for each in wanted]):
            lock = _by_uv(asked, folder / "lock.txt", tools, say)
            if not names_torch([each.name for each in bill.packages_of(lock)]):
                return lock
        return _by_pip(asked, folder / "report.json", tools, say)


def _by_uv(asked: Path, lock: Path, tools: Tools, say: Callable[[str], None]) -> str:
    compile_ = [str(uv()), "pip", "compile", "--quiet", "--generate-hashes", "--no-header", "--no-annotate"]
    compile_ += ["--no-emit-index-url", "--no-emit-find-links", "--python", sys.executable, "--output-file", str(lock)]
    _told([*compile_, *tools.wheels, str(asked)], say)
    return lock.read_text()


def _by_pip(asked: Path, report: Path, tools: Tools, say: Callable[[str], None]) -> str:
    install = [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--dry-run"]
    _told([*install, "--ignore-installed", "--report", str(report), *tools.wheels, "-r", str(asked)], say)
    found = [_pin(item) for item in json.loads(report.read_text())["install"]]
    return "".join(f"{name}=={version} \\\n    --hash=sha256:{digest}\n" for name, version, digest in sorted(found))


def _pin(item: dict[str, Any]) -> tuple[str, str, str]:
    """Name, version and hash; a package's own words are not trusted to be these."""
    name = canonicalize_name(str(item["metadata"]["name"]), validate=True)
    version = str(Version(str(item["metadata"]["version"])))
    digest = str(item.get("download_info", {}).get("archive_info", {}).get("hashes", {}).get("sha256", ""))
    if not _SHA256.fullmatch(digest):
        raise EngineError(f"The package index gives no hash for {name} {version}.", code="requirements")
    return name, version, digest


def _told(arguments: list[str], say: Callable[[str], None]) -> None:
    """Runs the resolver; its own words about what is in the way become the error's."""
    lines: list[str] = []

    def keep(line: str) -> None:
        lines.append(line)
        say(line)

    try:
        command(arguments, keep, "resolve the packages of")
    except EngineError as error:
        raise EngineError(_reason(lines), field="requirements", code="requirements") from error


def _reason(lines: list[str]) -> str:
    telling = [re.sub(r"^(ERROR:)?\s*", "", line) for line in lines if _TELLING.search(line)]
    if not telling:  # uv draws its reason as a tree
        start = next((at for at, line in enumerate(lines) if "No solution found" in line), None)
        rest = lines[start + 1 :] if start is not None else []
        end = next((at for at, line in enumerate(rest) if "hint:" in line), len(rest))
        telling = [line.strip(" ╰─▶│").removeprefix("cause: ") for line in rest[:end] if line.strip()]
    words = " ".join(dict.fromkeys(telling))[:_MOST_SAID] or "the log says why."
    return f"The packages that the version asks for cannot be had together here: {words}"


def _refuse_cuda(lock: str) -> None:
    """EngineError where a machine without a GPU would get gigabytes of CUDA."""
    packages = bill.packages_of(lock)
    cuda = [each.name for each in packages if each.name.startswith(("nvidia-", "cuda-")) or "+cu" in each.version]
    if cuda:
        torch = next((f"{each.name}=={each.version}" for each in packages if each.name == "torch"), "a package")
        raise EngineError(
            f"{torch} comes only with CUDA ({', '.join(cuda[:3])}), and there is no GPU here: set PIP_FIND_LINKS to a "
            "folder with the wheel of its CPU build, or PIP_EXTRA_INDEX_URL to PyTorch's own index of CPU builds.",
            field="requirements",
            code="requirements",
        )
