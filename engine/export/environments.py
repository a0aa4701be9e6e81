"""Prepared environments: a hash-pinned lock, installed once under its digest, used by many processes.

This runs outside the sandbox and is the only step that may use the network; it runs no code of a
model, only what the lock pins.

`locks/<name>.txt` is installed by uv. A file `locks/<name>.pip` beside it holds what only pip finds where it is
told to look (PIP_FIND_LINKS, PIP_EXTRA_INDEX_URL): builds that are not on the common index, pinned by hash as well.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from engine.errors import EngineError

_SECONDS = 1800
_ASTRAY = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_PYTHON")  # pip would install somewhere else
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
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return hashlib.sha256(text_of(lock).encode()).hexdigest()[:32] + f"-py{version}"


def is_prepared(lock: Path, root: Path) -> bool:
    return (root / digest_of(lock) / "bin" / "python").exists()


def prepare(lock: Path, root: Path, on_line: Callable[[str], None] | None = None, prove: tuple[str, ...] = ()) -> Path:
    """Interpreter of the environment of `lock` under `root`, made if it is not there yet.

    lock: requirements with hashes. prove: modules that must import before it counts as ready. Several processes
    may call at once: one builds, the others wait. EngineError(code="environment") when it cannot be made; what
    the installer said goes to `on_line`.
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
            _build(lock, building, say, prove)
            # Scripts keep the temporary folder in their first line; only the interpreter is used, and
            # it finds its own folder by where it lies.
            building.rename(final)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return python


def _build(lock: Path, folder: Path, say: Callable[[str], None], prove: tuple[str, ...]) -> None:
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        raise EngineError("uv is not installed beside Python, so no environment can be made.", code="environment")
    say(f"preparing the environment {lock.stem}")
    _command([str(uv), "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], say, "create")
    python = str(folder / "bin" / "python")
    if _for_pip(lock).exists():
        _install_by_pip(_for_pip(lock), python, say)
    install = [str(uv), "pip", "install", "--python", python, "--require-hashes"]
    # The sandbox cannot write byte code, and without it every start compiles all imports again.
    install += ["--compile-bytecode", "-r", str(lock)]
    _command(install, say, "install the packages of")
    if prove:
        # -B: byte code would be written with the temporary folder's name in it.
        _command([python, "-I", "-B", "-c", "import " + ", ".join(prove)], say, "use")


def _for_pip(lock: Path) -> Path:
    return lock.with_suffix(".pip")


def _install_by_pip(pinned: Path, python: str, say: Callable[[str], None]) -> None:
    """EngineError in one sentence that says how to give pip the build it lacks."""
    # The environment has no pip; ours installs into it. --no-deps: what it needs is in the lock, and CUDA's is not.
    install = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install", "--quiet"]
    install += ["--only-binary", ":all:", "--no-deps", "--require-hashes", "-r", str(pinned)]
    try:
        _command(install, say, "install the packages of")
    except EngineError as error:
        raise EngineError(
            f"pip found no build that {pinned.name} allows: set PIP_FIND_LINKS to a folder with its wheel, or "
            "PIP_EXTRA_INDEX_URL to PyTorch's own index of CPU builds.",
            code="environment",
        ) from error
    built: list[str] = []
    _command([python, "-I", "-B", "-c", _TORCH_BUILD], built.append, "use")
    if "".join(built).strip() and not has_gpu():
        raise EngineError(
            f"pip gave a CUDA build of torch, and there is no GPU here: let {pinned.name} name a CPU build, and "
            "set PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL to where its wheel lies.",
            code="environment",
        )


def has_gpu() -> bool:
    """Whether NVIDIA's driver is loaded."""
    return Path("/proc/driver/nvidia/version").exists()


def _command(command: list[str], say: Callable[[str], None], what: str) -> None:
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={name: value for name, value in os.environ.items() if not name.startswith(("SLIPWAY", "PYTHON", *_ASTRAY))},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            say(line.rstrip()[:2000])
        code = process.wait(timeout=_SECONDS)
    if code:
        raise EngineError(f"Could not {what} the environment (exit code {code}); the log says why.", code="environment")
