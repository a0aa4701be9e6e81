"""Puts peers where `bench/serving.py --peers DIR` looks for them, each in an environment of its own.

python bench/serving_peers/install.py [NAME …] --into DIR
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:1] = [str(Path(__file__).resolve().parents[2])]

from bench.peer_environments import main  # noqa: E402
from bench.serving_peers.registry import PEERS  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(PEERS, __doc__))
