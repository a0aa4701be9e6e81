"""Puts peers where `bench/serving.py --peers DIR` looks for them, each in an environment of its own.

python bench/serving_peers/install.py NAME … --into DIR
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

sys.path[:1] = [str(Path(__file__).resolve().parents[2])]

from bench.serving_peers.registry import PEERS  # noqa: E402


def install(name: str, into: Path) -> None:
    """Make the environment anew and fill it. Raises CalledProcessError."""
    peer = PEERS[name]
    home = into / name
    subprocess.run([peer.python, "-m", "venv", "--clear", "--without-pip", str(home)], check=True)
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
