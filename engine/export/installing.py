"""pip and uv: how packages get into a prepared environment, and what a machine can use of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.errors import EngineError

INSTALLERS = ("pip", "uv")
_SECONDS = 1800
_ASTRAY = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_PYTHON")  # pip would install somewhere else
_PRIVATE = ("SLIPWAY", "PYTHON", "DATABASE_URL", "REDIS_URL")  # nothing that an installer has to know


@dataclass(frozen=True, slots=True)
class Tools:
    """installer: one of INSTALLERS. build: whether packages without a wheel may be built, which runs their code
    outside the sandbox."""

    installer: str = "pip"
    build: bool = False

    def __post_init__(self) -> None:
        if self.installer not in INSTALLERS:
            raise EngineError(f"SLIPWAY_INSTALLER is “{self.installer[:20]}”; it may be pip or uv.", code="environment")

    @property
    def wheels(self) -> list[str]:
        """The option that keeps source packages out, in both installers' spelling."""
        return [] if self.build else ["--only-binary", ":all:"]


def uv() -> Path:
    """EngineError where it is not installed beside Python."""
    found = Path(sys.executable).with_name("uv")
    if not found.exists():
        raise EngineError("uv is not installed beside Python: set SLIPWAY_INSTALLER to pip.", code="environment")
    return found


def empty_environment(folder: Path, tools: Tools, say: Callable[[str], None]) -> str:
    """Makes an environment without packages; its interpreter."""
    if tools.installer == "uv":
        command([str(uv()), "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], say, "create")
    else:
        command([sys.executable, "-I", "-m", "venv", "--without-pip", "--clear", str(folder)], say, "create")
    return str(folder / "bin" / "python")


def install(pinned: Path, python: str, tools: Tools, say: Callable[[str], None], *more: str) -> None:
    """Installs what a file pins by hash. The sandbox cannot write byte code, and without it every start compiles all
    imports again: pip compiles by itself, uv is told to."""
    if tools.installer == "uv":
        start = [str(uv()), "pip", "install", "--python", python, "--compile-bytecode"]
    else:
        # The environment has no pip; ours installs into it.
        start = [sys.executable, "-I", "-m", "pip", "--python", python, "--disable-pip-version-check", "install"]
        start += ["--quiet"]
    command([*start, *tools.wheels, *more, "--require-hashes", "-r", str(pinned)], say, "install the packages of")


def has_gpu() -> bool:
    """Whether NVIDIA's driver is loaded."""
    return Path("/proc/driver/nvidia/version").exists()


def command(arguments: list[str], say: Callable[[str], None], what: str) -> None:
    """Runs to the end, its words to `say`. EngineError(code="environment") for any other end than a good one."""
    left_out = (*_PRIVATE, *_ASTRAY)
    with subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={name: value for name, value in os.environ.items() if not name.startswith(left_out)},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            say(line.rstrip()[:2000])
        code = process.wait(timeout=_SECONDS)
    if code:
        raise EngineError(f"Could not {what} the environment (exit code {code}); the log says why.", code="environment")
