"""Runs untrusted work (parsing, converting, training) in a child that can reach nothing but its inputs.

Scanners are not a boundary; this room is. `run` is the whole interface, `available` tells what the
kernel offers. See `child.py` for the order in which the walls go up.
"""

from engine.sandbox.limits import Isolation, Limits, SandboxResult
from engine.sandbox.parent import available, run

__all__ = ["Isolation", "Limits", "SandboxResult", "available", "run"]
