"""Puts peers where `bench/optimize.py --peers DIR` looks for them, each in an environment of its own.

python bench/optimize_peers/install.py [NAME …] --into DIR
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Peer:
    """`packages` are pinned; the first gives the version that is reported. `script` runs in the environment."""

    packages: tuple[str, ...]
    script: str

    def command(self, home: Path, model: Path, train: Path, judge: Path, target: Path) -> list[str]:
        """What makes `target` of `model`, learning from `train` and choosing by `judge`; prints a line of JSON last:
        {"seconds", "tried", "chosen", "quality", "quality_before"}, where chosen is null when nothing was good enough.
        Quality is accuracy, or 1 / (1 + RMSE), of the rows of `judge`. --most-seconds bounds a search.
        """
        python = str(home / "bin" / "python")
        return [python, str(HERE / self.script), str(model), str(train), str(judge), str(target)]

    def version(self, home: Path) -> str | None:
        """The installed version; None when its environment is not there."""
        package = self.packages[0].partition("==")[0]
        code = f"import importlib.metadata; print(importlib.metadata.version({package!r}))"
        try:
            told = subprocess.run([home / "bin" / "python", "-c", code], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return told.stdout.strip()


PEERS = {
    # Imports requests without saying so. Torch is that of the project's own environment.
    "olive": Peer(
        ("olive-ai==0.13.0", "requests", "torch==2.13.0", "onnx==1.23.2", "onnxruntime==1.32.0"), "olive_search.py"
    ),
    # Imports prettytable and scipy without saying so; breaks with numpy 2.
    "onnx-neural-compressor": Peer(
        ("onnx-neural-compressor==1.0", "prettytable", "scipy", "numpy==1.26.4", "onnx==1.23.2", "onnxruntime==1.32.0"),
        "compressor_autotune.py",
    ),
}


def install(name: str, into: Path) -> None:
    """Make the environment anew and fill it. Raises CalledProcessError."""
    peer = PEERS[name]
    home = into / name
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(home)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python")]
    subprocess.run([*pip, "install", "--quiet", *peer.packages], check=True)
    print(f"{name} {peer.version(home)}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(PEERS)}; default: all")
    parser.add_argument("--into", type=Path, required=True, metavar="DIR")
    options = parser.parse_args()
    if unknown := set(options.names) - set(PEERS):
        parser.error(f"there are {', '.join(PEERS)}, not {', '.join(sorted(unknown))}")
    failed = []
    for name in options.names or list(PEERS):
        try:
            install(name, options.into)
        except (subprocess.CalledProcessError, OSError) as error:
            failed.append(name)
            print(f"{name} could not be installed: {error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
