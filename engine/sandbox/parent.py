"""The parent's side of the sandbox: starts the child, watches it, ends it, reads its answer."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.sandbox.cgroup import MemoryGroup
from engine.sandbox.limits import Isolation, Limits, SandboxResult
from engine.sandbox.watch import Watch

CHILD = Path(__file__).with_name("child.py")
_ENGINE = CHILD.parents[1]


@functools.cache
def available() -> Isolation:
    """What the kernel offers, found by trying it once in a child; about 50 ms the first time."""
    probe = subprocess.run(
        [sys.executable, "-I", str(CHILD), "--probe"],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    if probe.returncode:
        return Isolation(namespaces=False, user_namespace=False, landlock=0, seccomp=False, own_proc=False)
    return Isolation(**json.loads(probe.stdout))


def run(
    task: str,
    *,
    params: Mapping[str, Any],
    inputs: Mapping[str, Path],
    scratch: Path,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    python: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
    code: Sequence[Path] = (),
) -> SandboxResult:
    """Runs `task` ("module:function") in an isolated child and returns what it returned.

    The function is called as f(params=dict, inputs={name: Path}, out=Path) and returns a JSON dict.
    inputs are files or folders it may read. Under `scratch`, `out` and `work` are made anew and are
    all it may write. `python` is the interpreter of a prepared environment, which need not have
    Slipway installed. `code` are further folders to read and import from. `on_line` gets its output line by
    line while it runs; `stop` ends it.

    Raises EngineError: the task's own with its text, field and code; or code `failed` (any other
    exception), `timeout`, `memory`, `disk`, `processes`, `crash`, `stopped`, `result` (an unusable
    answer) or `isolation` (the kernel offers too little and SLIPWAY_SANDBOX is not `off`; with `off`
    whatever it offers is still used).
    """
    spec = specification(task, params, inputs, scratch, limits, code, os.getpid())
    out, work = Path(spec["out"]), Path(spec["work"])
    result_read, result_write = os.pipe()
    spec["result_fd"] = result_write
    started = time.monotonic()
    try:
        with tempfile.TemporaryFile() as stdin:
            stdin.write(json.dumps(spec).encode())
            stdin.seek(0)
            child = subprocess.Popen(
                [str(python or sys.executable), "-I", "-u", str(CHILD)],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=work,
                env=environment_of(work, python, limits),
                pass_fds=(result_write,),
                start_new_session=True,
            )
    except BaseException:
        os.close(result_read)
        raise
    finally:
        os.close(result_write)
    group = MemoryGroup.make(limits.memory_mb * 1024**2)
    watch = Watch(child, result_read, limits, [out, work], on_line or (lambda line: None), stop, group)
    try:
        text = watch.until_end()
    finally:
        if group is not None:
            group.remove()
    value = _value(text, watch.exit_code)
    _check_files(out)
    return SandboxResult(value, out, time.monotonic() - started, watch.peak_bytes / 1024**2)


def specification(
    task: str,
    params: Mapping[str, Any],
    inputs: Mapping[str, Path],
    scratch: Path,
    limits: Limits,
    code: Sequence[Path],
    parent: int,
) -> dict[str, Any]:
    """What the child reads from its stdin, but for `result_fd`; makes the folders `out` and `work` anew."""
    scratch = scratch.resolve()
    out, work = _fresh(scratch / "out"), _fresh(scratch / "work")
    resolved = {name: str(path.resolve(strict=True)) for name, path in inputs.items()}
    folders = [str(path.resolve(strict=True)) for path in code]
    # A private /dev/shm would hide what lies in the real one.
    hidden = any(path.startswith("/dev/shm/") for path in [str(scratch), *resolved.values(), *folders])  # noqa: S108
    return {
        "task": task,
        "params": dict(params),
        "inputs": resolved,
        "out": str(out),
        "work": str(work),
        "code": folders,
        "readable": [str(_ENGINE), *resolved.values(), *folders],
        "writable": [str(out), str(work)],
        "limits": dataclasses.asdict(limits),
        "shared_memory_mb": 0 if hidden else min(256, limits.memory_mb // 4),
        "required": os.environ.get("SLIPWAY_SANDBOX") != "off",
        "parent": parent,
    }


def _fresh(folder: Path) -> Path:
    """An empty folder: what an earlier attempt left must not look like this one's output."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def environment_of(work: Path, python: Path | None, limits: Limits) -> dict[str, str]:
    """Variables of the child: none of ours."""
    binaries = Path(python or sys.executable).parent
    threads = str(limits.threads)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return {
        "PATH": f"{binaries}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(work),
        "TMPDIR": str(work),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "MPLBACKEND": "Agg",
        **dict.fromkeys(names, threads),
    }


def _value(text: bytes, exit_code: int) -> dict[str, Any]:
    """The task's dict out of the child's answer. The child is untrusted: every part is checked."""
    if not text:
        if exit_code > 128:
            if exit_code - 128 == signal.SIGXCPU:
                raise EngineError("The work used up its processor time.", code="timeout")
            raise EngineError(f"The work crashed ({_signal(exit_code - 128)}).", code="crash")
        raise EngineError(f"The work ended without a result (exit code {exit_code}).", code="crash")
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EngineError("The work gave back an unreadable result.", code="result") from error
    if isinstance(answer, dict) and isinstance(answer.get("value"), dict):
        return answer["value"]
    failure = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(failure, dict) or not isinstance(failure.get("message"), str):
        raise EngineError("The work gave back an unreadable result.", code="result")
    field = failure.get("field")
    raise EngineError(
        failure["message"][:2000],
        field=str(field) if field is not None else None,
        code=str(failure.get("code") or "invalid")[:40],
    )


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _check_files(out: Path) -> None:
    """Only plain files with one name: a link could make a later reader open something else."""
    for folder, folders, files in os.walk(out):
        for name in [*folders, *files]:
            mode = os.lstat(Path(folder, name))
            plain = stat.S_ISREG(mode.st_mode) and mode.st_nlink == 1
            if not plain and not stat.S_ISDIR(mode.st_mode):
                raise EngineError("The work left something that is not a plain file.", code="result")
