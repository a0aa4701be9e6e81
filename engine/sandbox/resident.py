"""A sandboxed child that stays: this process becomes it, and whoever started this process watches it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from engine.sandbox.limits import Limits
from engine.sandbox.parent import CHILD, environment_of, specification


def become(
    task: str,
    *,
    params: Mapping[str, Any],
    scratch: Path,
    limits: Limits,
    python: Path,
    result: Path,
    parent: int,
) -> NoReturn:
    """Replaces this process by the sandbox's launcher, which runs `task` (see `run`) and ends with it.

    Descriptors that are inheritable stay open in the task. result: file that holds what `run` would have
    returned or raised, once it has ended by itself; empty until then. parent: id of the process whose end ends the
    child. Nobody watches seconds, memory_mb and disk_mb: the kernel's limits hold, those alone.
    """
    result_fd = os.open(result, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.set_inheritable(result_fd, True)
    spec = {**specification(task, params, {}, scratch, limits, [], parent), "result_fd": result_fd}
    stdin = os.memfd_create("specification")
    os.write(stdin, json.dumps(spec).encode())
    os.lseek(stdin, 0, os.SEEK_SET)
    os.dup2(stdin, 0)
    os.chdir(spec["work"])
    command = [str(python), "-I", "-u", str(CHILD)]
    os.execve(command[0], command, environment_of(Path(spec["work"]), python, limits))  # noqa: S606
