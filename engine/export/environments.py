"""Prepared environments: a hash-pinned lock, installed once under its digest, used by many processes.

This runs outside the sandbox and is the only step that may use the network; it runs no code of a
model, only what the lock pins.

`locks/<name>.txt` is installed by pip, or by uv where that is chosen. A file `locks/<name>.pip` beside it holds what
only pip finds where it is told to look (PIP_FIND_LINKS, PIP_EXTRA_INDEX_URL): builds that are not on the common index,
pinned by hash as well. So is a lock that was resolved for a version and names torch.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from engine.errors import EngineError
from engine.export import bill
from engine.export.installing import Tools, command, empty_environment, has_gpu, install

# Read from the file instead of imported: a CUDA build does not even import without its libraries.
_TORCH_BUILD = """
import importlib.util, pathlib, runpy
spec = importlib.util.find_spec("torch")
version = pathlib.Path(spec.origin).with_name("version.py") if spec else None
print(runpy.run_path(str(version)).get("cuda") or "" if version else "")
"""


def text_of(lock: Path) -> str:
    """All pins of an environment: the lock, and what pip installs."""
    return lock.read_text() + (_for_pip(lock).read_text() if _for_pip(lock).exists() else "")


def digest_of(lock: Path) -> str:
    """Key of the environment: SHA-256 of its pins and the interpreter's version."""
    return digest_of_text(text_of(lock))


def digest_of_text(text: str) -> str:
    """`digest_of` for pins that are not in a file."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return hashlib.sha256(text.encode()).hexdigest()[:32] + f"-py{version}"


def written(text: str, name: str, root: Path) -> Path:
    """The file of a lock that was resolved for a version, under `root`; `name` is what people know it by."""
    folder = root / ".locks" / digest_of_text(text)
    folder.mkdir(parents=True, exist_ok=True)
    lock = folder / f"{name}.txt"
    if not lock.exists():
        with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".", delete=False) as file:
            file.write(text)
        os.replace(file.name, lock)  # noqa: PTH105
    return lock


def is_prepared(lock: Path, root: Path) -> bool:
    return (root / digest_of(lock) / "bin" / "python").exists()


def prepare(
    lock: Path,
    root: Path,
    on_line: Callable[[str], None] | None = None,
    prove: tuple[str, ...] = (),
    tools: Tools = Tools(),  # noqa: B008 - frozen
) -> Path:
    """Interpreter of the environment of `lock` under `root`, made if it is not there yet.

    lock: requirements with hashes. prove: modules that must import before it counts as ready. tools: who installs.
    Several processes may call at once: one builds, the others wait. EngineError(code="environment") when it cannot
    be made; what the installer said goes to `on_line`.
    """
    say = on_line or (lambda line: None)
    root.mkdir(parents=True, exist_ok=True)
    final = root / digest_of(lock)
    python = final / "bin" / "python"
    with (root / f".{final.name}.lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if python.exists():
            say(f"using the environment prepared for {lock.stem}")
            return python
        building = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=root))
        try:
            _build(lock, building, say, prove, tools)
            # Scripts keep the temporary folder in their first line; only the interpreter is used, and
            # it finds its own folder by where it lies.
            building.rename(final)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return python


def _build(lock: Path, folder: Path, say: Callable[[str], None], prove: tuple[str, ...], tools: Tools) -> None:
    say(f"preparing the environment {lock.stem} with {tools.installer}")
    python = empty_environment(folder, tools, say)
    if _for_pip(lock).exists():
        _install_torch(_for_pip(lock), python, say)
    if any(each.name == "torch" for each in bill.packages_of(lock.read_text())):
        install(lock, python, Tools("pip", tools.build), say)
        _refuse_cuda(lock, python, say)
    else:
        install(lock, python, tools, say)
    if prove:
        # -B: byte code would be written with the temporary folder's name in it.
        command([python, "-I", "-B", "-c", "import " + ", ".join(prove)], say, "use")


def _for_pip(lock: Path) -> Path:
    return lock.with_suffix(".pip")


def _install_torch(pinned: Path, python: str, say: Callable[[str], None]) -> None:
    """EngineError in one sentence that says how to give pip the build it lacks."""
    try:
        # --no-deps: what it needs is in the lock, and CUDA's is not.
        install(pinned, python, Tools("pip"), say, "--no-deps")
    except EngineError as error:
        raise EngineError(
            f"pip found no build that {pinned.name} allows: set PIP_FIND_LINKS to a folder with its wheel, or "
            "PIP_EXTRA_INDEX_URL to PyTorch's own index of CPU builds.",
            code="environment",
        ) from error
    _refuse_cuda(pinned, python, say)


def _refuse_cuda(pinned: Path, python: str, say: Callable[[str], None]) -> None:
    built: list[str] = []
    command([python, "-I", "-B", "-c", _TORCH_BUILD], built.append, "use")
    if "".join(built).strip() and not has_gpu():
        raise EngineError(
            f"pip gave a CUDA build of torch, and there is no GPU here: let {pinned.name} name a CPU build, and "
            "set PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL to where its wheel lies.",
            code="environment",
        )
