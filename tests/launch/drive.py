"""Runs the real `up` on a Procfile of small processes, without Django's commands."""

import sys
from pathlib import Path

from slipway.launch import supervisor
from slipway.launch.up import Up, plainly

supervisor.SETTLED = 0.3

if __name__ == "__main__":
    sys.exit(plainly(lambda: Up(Path(sys.argv[1]), commands=()).run()))
