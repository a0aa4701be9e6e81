"""The one error of this room: its text is a plain sentence for the person at the terminal."""

from __future__ import annotations


class LaunchError(Exception):
    """Something that the person can act on; shown without a traceback."""
