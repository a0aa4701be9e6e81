"""First step of `make up` and `make test`: is this Python new enough? Then `install.py` does the rest.

The only file that the system's Python runs. Its syntax is that of Python 2.7, so that an old
interpreter prints a sentence and not a syntax error.
"""

import os
import sys

OLDEST = (3, 11)
NEWEST = (3, 13)


def complaint(version, platform="linux"):
    """What is wrong with an interpreter of this (major, minor) version; empty when nothing is."""
    found = ".".join(str(part) for part in version[:2])
    if platform == "win32":
        return "Slipway runs on Linux and macOS; on Windows, use WSL."
    if tuple(version[:2]) < OLDEST:
        return (
            "Slipway needs Python 3.11, 3.12 or 3.13, but this is Python "
            + found
            + "; install a newer one and run: make PYTHON=python3.12 up"
        )
    if tuple(version[:2]) > NEWEST:
        return (
            "Slipway's packages are pinned for Python 3.11, 3.12 and 3.13, and this is Python "
            + found
            + "; run: make PYTHON=python3.13 up"
        )
    return ""


def main(arguments):
    problem = complaint(sys.version_info, sys.platform)
    if problem:
        sys.stderr.write("slipway: " + problem + "\n")
        return 1
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    import install

    return install.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
