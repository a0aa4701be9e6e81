"""The child's side of the sandbox: `python -I child.py`, its specification as JSON on stdin.

Three processes. The *launcher* enters new namespaces and stays outside the rest; *process 1* of the new
PID namespace mounts a private /proc and reaps; the *task* gives up capabilities, takes its limits, closes the
file system and the system calls, and only then imports the code it was asked to run. The answer
goes back as one JSON object on the pipe `result_fd`, followed by a line with the largest resident size of
one process in kB. Uses nothing but the standard library and
`engine.sandbox`, because a prepared environment need not have anything else.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

_SYSTEM_READ = [
    "/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin",
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/timezone",
    "/etc/nsswitch.conf", "/etc/passwd", "/etc/group", "/etc/os-release", "/etc/alternatives",
    "/etc/mime.types", "/etc/fonts", "/etc/java", "/etc/ssl/openssl.cnf", "/etc/locale.alias",
    "/proc", "/sys/devices/system", "/sys/bus/pci/devices", "/sys/fs/cgroup", "/sys/kernel/mm/transparent_hugepage",
]  # fmt: skip
_DEVICES = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"]


def _load_engine() -> None:
    """Imports `engine` without leaving its parent folder on the path: that folder may be a whole
    site-packages of another environment, or a checkout with secrets beside the code."""
    root = str(Path(__file__).resolve().parents[2])
    sys.path.insert(0, root)
    importlib.import_module("engine.sandbox")
    importlib.import_module("engine.errors")
    sys.path.remove(root)


def _interpreter_folders() -> list[str]:
    """What this Python needs, and not all of its prefix: a home may lie in the same folder."""
    folders = []
    for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}:
        folders += [f"{prefix}/{part}" for part in ("bin", "lib", "lib64", "include", "share", "pyvenv.cfg")]
    return folders


def _fork(then: Any) -> int:
    """Forks; the new process runs `then()` and exits with what it returns, whatever happens."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        code = then()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _code_of(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


class Answer:
    """The one message to the parent."""

    def __init__(self, fd: int, most: int) -> None:
        self.fd, self.most = fd, most

    def value(self, value: Any) -> None:
        self._send({"value": value})

    def error(self, message: str, *, field: str | None = None, code: str = "invalid") -> None:
        self._send({"error": {"message": message, "field": field, "code": code}})

    def _send(self, message: dict[str, Any]) -> None:
        text = json.dumps(message, allow_nan=False).encode()
        if len(text) > self.most:
            text = json.dumps({"error": {"message": "The result is too large.", "code": "result"}}).encode()
        with os.fdopen(self.fd, "wb") as pipe:
            pipe.write(text)


def _close_walls(spec: dict[str, Any], way: str | None, read_only: bool, answer: Answer) -> bool:
    """Capabilities, limits, files, system calls, in that order. False: refused, and the answer says so."""
    from engine.sandbox import kernel, landlock, seccomp

    kernel.die_with_parent()
    kernel.drop_capabilities()
    kernel.no_new_privileges()
    kernel.set_limits(spec["limits"])
    if way == "user" and os.geteuid() != 0:
        # Counted per namespace there; elsewhere it would count everything else the user runs.
        most = spec["limits"]["processes"] * 8  # the kernel counts threads
        resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
    filtered = seccomp.supported()
    missing = []
    if way is None and not filtered:
        missing.append("network isolation")
    if landlock.version() < 1:
        missing.append("Landlock file rules")
    if missing and spec["required"]:
        answer.error(refusal(missing), code="isolation")
        return False
    if landlock.version() >= 1:
        landlock.restrict(
            read=[*_SYSTEM_READ, *_interpreter_folders(), *spec["readable"]],
            devices=_DEVICES,
            write=[*spec["writable"], *(["/dev/shm"] if way and spec["shared_memory_mb"] else [])],  # noqa: S108 - a private one
        )
    if filtered:
        seccomp.install(allow_inet=way is not None, fake_attributes=not read_only)
    return True


def refusal(missing: list[str]) -> str:
    return (
        f"This machine does not offer {' or '.join(missing)}, so untrusted models are not opened here. "
        "Set SLIPWAY_SANDBOX=off to accept that risk."
    )


def _find(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def _task(spec: dict[str, Any], way: str | None, read_only: bool) -> int:
    answer = Answer(spec["result_fd"], spec["limits"]["result_mb"] * 1024 * 1024)
    if not _close_walls(spec, way, read_only, answer):
        return 0
    from engine.errors import EngineError
    from engine.sandbox.text import neutral

    os.chdir(spec["work"])
    sys.path[:0] = spec["code"]
    inputs = {name: Path(path) for name, path in spec["inputs"].items()}
    try:
        value = _find(spec["task"])(params=spec["params"], inputs=inputs, out=Path(spec["out"]))
        if not isinstance(value, dict):
            raise TypeError(f"the task returned {type(value).__name__} instead of a dict")
        sys.stdout.flush()
        answer.value(value)
    except EngineError as error:
        if error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        answer.error(error.message, field=error.field, code=error.code)
    except MemoryError as error:
        traceback.print_exception(error)
        answer.error("The work needed more memory than it may use.", code="memory")
    except (Exception, SystemExit) as error:
        traceback.print_exception(error)
        answer.error(neutral(error), code="failed")
    return 0


def _process_one(spec: dict[str, Any], way: str | None) -> int:
    from engine.sandbox import kernel

    kernel.die_with_parent()
    read_only = False
    if way:
        read_only = kernel.read_only_mounts(spec["writable"])
        kernel.private_mounts(spec["shared_memory_mb"])
    task = _fork(lambda: _task(spec, way, read_only))
    os.close(spec["result_fd"])
    while True:
        pid, status = os.wait()
        if pid == task:
            return _code_of(status)


def _launch(spec: dict[str, Any]) -> int:
    from engine.sandbox import kernel, processes

    kernel.die_with_parent()
    if os.getppid() != spec["parent"]:
        return 70  # the parent died before the line above took effect
    kernel.adopt_orphans()
    way = kernel.enter_namespaces()
    first = _fork(lambda: _process_one(spec, way))
    code = _code_of(os.waitpid(first, 0)[1])
    if way is None:
        # Without a PID namespace nothing dies with process 1; what it left has come to us.
        processes.end_below(os.getpid())
    # The parent cannot ask the kernel for this: its figure for us counts the parent's own size before exec.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    os.write(spec["result_fd"], f"\n{peak}".encode())
    return code


def _probe() -> int:
    """Prints what the kernel offers by trying it."""
    from engine.sandbox import kernel, landlock, seccomp

    way = kernel.enter_namespaces()
    read, write = os.pipe()

    def inside() -> int:
        own = bool(way) and kernel.read_only_mounts([]) and kernel.private_mounts(1)
        os.write(write, json.dumps({"own_proc": own}).encode())
        return 0

    os.waitpid(_fork(inside), 0)
    found = {
        "namespaces": way is not None,
        "user_namespace": way == "user",
        "landlock": landlock.version(),
        "seccomp": seccomp.supported(),
        **json.loads(os.read(read, 200)),
    }
    print(json.dumps(found))
    return 0


def main() -> int:
    _load_engine()
    if sys.argv[1:] == ["--probe"]:
        return _probe()
    spec = json.loads(sys.stdin.buffer.read())
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return _launch(spec)


if __name__ == "__main__":
    sys.exit(main())
