"""Environments of what the benches compare with: each peer has one of its own, under a folder, by its name."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Installed:
    """`packages` are pinned; the first one gives the version that is reported. `python` makes the environment."""

    packages: tuple[str, ...]
    python: str = field(default=sys.executable, kw_only=True)

    def version(self, home: Path) -> str | None:
        """The installed version; None when its environment is not there."""
        package = self.packages[0].partition("==")[0]
        code = f"import importlib.metadata; print(importlib.metadata.version({package!r}))"
        try:
            told = subprocess.run([home / "bin" / "python", "-c", code], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return told.stdout.strip()


def install(name: str, peer: Installed, into: Path) -> None:
    """Make the environment anew and fill it. Raises CalledProcessError."""
    home = into / name
    subprocess.run([peer.python, "-m", "venv", "--clear", "--without-pip", str(home)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python")]
    subprocess.run([*pip, "install", "--quiet", *peer.packages], check=True)
    print(f"{name} {peer.version(home)}", flush=True)


def main(peers: Mapping[str, Installed], description: str | None) -> int:
    """The whole of an `install.py`: its exit code."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0] if description else None)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(peers)}; default: all")
    parser.add_argument("--into", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    if unknown := set(options.names) - set(peers):
        parser.error(f"there are {', '.join(peers)}, not {', '.join(sorted(unknown))}")
    failed = []
    for name in options.names or list(peers):
        try:
            install(name, peers[name], options.into)
        except (subprocess.CalledProcessError, OSError) as error:
            failed.append(name)
            print(f"{name} could not be installed: {error}", file=sys.stderr)
    return 1 if failed else 0
