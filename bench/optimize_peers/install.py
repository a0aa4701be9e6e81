"""Puts peers where `bench/optimize.py --peers DIR` looks for them, each in an environment of its own.

python bench/optimize_peers/install.py [NAME …] --into DIR
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:1] = [str(HERE.parents[1])]

from bench.peer_environments import Installed, main  # noqa: E402


@dataclass(frozen=True)
class Peer(Installed):
    """`script` runs in the environment."""

    script: str

    def command(self, home: Path, model: Path, train: Path, judge: Path, target: Path) -> list[str]:
        """What makes `target` of `model`, learning from `train` and choosing by `judge`; prints a line of JSON last:
        {"seconds", "tried", "chosen", "quality", "quality_before"}, where chosen is null when nothing was good enough.
        Quality is accuracy, or 1 / RMSE, of the rows of `judge`. --most-seconds bounds a search.
        """
        python = str(home / "bin" / "python")
        return [python, str(HERE / self.script), str(model), str(train), str(judge), str(target)]


PEERS = {
    # Imports requests without saying so. torch is a CPU build where pip is told of one (see docs/operating.md); that of
    # PyPI does as well, with gigabytes for CUDA.
    "olive": Peer(
        ("olive-ai==0.13.0", "requests", "torch==2.13.0", "onnx==1.23.2", "onnxruntime==1.32.0"), "olive_search.py"
    ),
    # Imports prettytable and scipy without saying so; breaks with numpy 2.
    "onnx-neural-compressor": Peer(
        ("onnx-neural-compressor==1.0", "prettytable", "scipy", "numpy==1.26.4", "onnx==1.23.2", "onnxruntime==1.32.0"),
        "compressor_autotune.py",
    ),
}


if __name__ == "__main__":
    sys.exit(main(PEERS, __doc__))
