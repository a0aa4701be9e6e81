"""Waits for `up` to end, by whatever means, and kills what is left of its processes.

The kernel's death signal reaches only direct children; MLflow's, Celery's and the sandbox's own
children are found by the mark in their environment. Started by `up` with a pipe as its input.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from slipway.launch import processes

PATIENCE = 3.0


def main(key: str) -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.read(0, 1)  # returns when `up`, the only writer, is gone

    def left() -> list[int]:
        return processes.marked(f"{key}:")

    processes.end(left(), signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE
    while left() and time.monotonic() < deadline:
        time.sleep(0.05)
    processes.end_all(left)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
