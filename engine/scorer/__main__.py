"""Entry point of `python -m engine.scorer`: holds the environment, then becomes the sandboxed scorer."""

from __future__ import annotations

import argparse
import errno
import fcntl
import os
from pathlib import Path

from engine.sandbox import Limits
from engine.sandbox.resident import become

# What the virtual machine needs beside its heap: classes, compiled code, threads, and Python itself.
_BESIDE_HEAP_MB = 1536
_FOR_EVER_S = 1 << 30


def main() -> None:
    """Never returns; whatever is in the way ends in the file `--result` as the sandbox's error."""
    parser = argparse.ArgumentParser(prog="python -m engine.scorer", description="PMML scorer of an inference server.")
    parser.add_argument("--python", type=Path, required=True, help="interpreter of the prepared environment")
    parser.add_argument("--socket-fd", type=int, required=True, help="listening Unix socket")
    parser.add_argument("--heap-mb", type=int, required=True, help="largest Java heap")
    parser.add_argument("--run-s", type=float, required=True, help="the most that one run may take, in seconds")
    parser.add_argument("--scratch", type=Path, required=True, help="folder it may write to")
    parser.add_argument("--result", type=Path, required=True, help="file that tells why it ended")
    parser.add_argument("--parent", type=int, required=True, help="process to end with")
    given = parser.parse_args()
    _hold(given.python)
    become(
        "engine.scorer.server:serve",
        params={"socket_fd": given.socket_fd, "heap_mb": given.heap_mb, "run_s": given.run_s},
        scratch=given.scratch,
        limits=Limits(
            seconds=_FOR_EVER_S,
            cpu_seconds=_FOR_EVER_S,
            data_mb=given.heap_mb + _BESIDE_HEAP_MB,
            file_mb=64,
            processes=128,
            result_mb=1,
        ),
        python=given.python,
        result=given.result,
        parent=given.parent,
    )


def _hold(python: Path) -> None:
    """As `environment_store.held`, for as long as this process lives: nobody takes the environment away."""
    folder = python.parents[1]
    try:
        handle = os.open(folder.parent / f".{folder.name}.use", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES):
            raise
        return  # read-only for us: on a server of its own it is put there by hand, and nobody removes it
    fcntl.flock(handle, fcntl.LOCK_SH)
    os.set_inheritable(handle, True)


if __name__ == "__main__":
    main()
