"""Tasks that try to get out of the sandbox, run by the sandbox tests inside it."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from engine.errors import EngineError


def _tried(action: Any) -> str:
    """What came of it: "done", or the exception's name."""
    try:
        action()
    except Exception as error:
        return type(error).__name__
    return "done"


def echo(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    (out / "file.txt").write_text("written")
    print("first line")
    print("second line", file=sys.stderr)
    return {"params": params, "texts": {name: path.read_text() for name, path in inputs.items()}}


def connect(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    def unix() -> None:
        socket.socket(socket.AF_UNIX).connect(params["unix"])

    def abstract() -> None:
        socket.socket(socket.AF_UNIX).connect("\0" + params["abstract"])

    return {
        "tcp": _tried(lambda: socket.create_connection(("127.0.0.1", params["port"]), timeout=2)),
        "udp": _tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("8.8.8.8", 53))),
        "unix": _tried(unix),
        "abstract": _tried(abstract),
        "vsock": _tried(lambda: socket.socket(socket.AF_VSOCK)),
    }


def read_files(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    return {path: _tried(lambda path=path: Path(path).open("rb").read(1)) for path in params["paths"]} | {
        "list:" + path: _tried(lambda path=path: os.listdir(path)) for path in params["folders"]
    }


def write_files(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    tried = {path: _tried(lambda path=path: Path(path, "x").write_text("x")) for path in params["folders"]}
    tried["input"] = _tried(lambda: inputs["file"].write_text("changed"))
    tried["unlink"] = _tried(inputs["file"].unlink)
    tried["chmod"] = _tried(lambda: os.chmod(inputs["file"], 0o777))
    tried["utime"] = _tried(lambda: os.utime(inputs["file"], (1, 1)))
    tried["chmod folder"] = _tried(lambda: os.chmod(inputs["file"].parent, 0o777))
    return tried


def environment(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    seen = [pid for pid in os.listdir("/proc") if pid.isdigit()]
    parents = {pid: _tried(lambda pid=pid: Path(f"/proc/{pid}/environ").read_bytes()) for pid in seen}
    return {"environment": dict(os.environ), "processes": len(seen), "parents": parents, "uid": os.getuid()}


def climb(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    libc = ctypes.CDLL(None, use_errno=True)

    def call(*args: Any) -> str:
        return "done" if libc.syscall(*args) >= 0 else "refused"

    status = Path("/proc/self/status").read_text()
    return {
        "user_namespace": call(272, 0x10000000),
        "clone_user_namespace": call(56, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0),
        "mount": call(165, b"tmpfs", b"/tmp", b"tmpfs", 0, None),
        "io_uring": call(425, 4, ctypes.create_string_buffer(240)),
        "bpf": call(321, 0, 0, 0),
        "x32": call(0x40000000 + 41, 1, 1, 0),
        "kill_parent": _tried(lambda: os.kill(os.getppid(), 0)) if os.getppid() > 1 else "none",
        "chown": _tried(lambda: os.chown("/etc/passwd", 0, 0)),
        "no_new_privileges": "NoNewPrivs:\t1" in status,
        "capabilities": next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff")),
    }


def sleep(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    print("sleeping", flush=True)
    time.sleep(600)
    return {}


def busy(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    while True:
        pass


def eat_slowly(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Several children together pass the limit, none of them alone."""
    for _ in range(4):
        if os.fork() == 0:
            kept = bytearray(100 * 1024 * 1024)
            kept[::4096] = b"x" * len(kept[::4096])
            time.sleep(60)
    time.sleep(60)
    return {}


def eat_at_once(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    return {"length": len(bytearray(64 * 1024**3))}


def fork_away(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Leaves a grandchild in a session of its own that goes on writing."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while True:
                Path("alive.txt").write_text(str(time.time()))
                time.sleep(0.02)
        os._exit(0)
    time.sleep(0.3)
    return {}


def fork_bomb(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    while True:
        try:
            os.fork()
        except OSError:
            time.sleep(0.01)


def crash(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    os.kill(os.getpid(), getattr(signal, params["signal"]))
    time.sleep(5)
    return {}


def leave(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    os._exit(3)


def own_error(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    raise EngineError("Too wide.", field="width", code="wide")


def other_error(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    raise ValueError(f"cannot open {out}/secret/name.bin")


def bad_result(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    values = {"nan": {"x": float("nan")}, "list": [1], "object": {"x": object()}, "large": {"x": "x" * 20_000_000}}
    return values[params["kind"]]  # type: ignore[return-value]


def forged(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Writes its own answer to every descriptor it holds."""
    for fd in range(3, 32):
        try:
            os.write(fd, params["text"].encode())
        except OSError:
            continue
    os._exit(0)


def link(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    kind = params["kind"]
    if kind == "symlink":
        (out / "x").symlink_to("/etc/passwd")
    elif kind == "fifo":
        os.mkfifo(out / "x")
    else:
        (out / "a").write_text("x")
        os.link(out / "a", out / "b")
    return {}


def flood(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    print("x" * 1_000_000)
    for number in range(50_000):
        print(number)
    return {}


def fill_disk(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    for number in range(1000):
        (out / str(number)).write_bytes(b"x" * 1_000_000)
        time.sleep(0.02)
    return {}


def big_file(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    (out / "big").write_bytes(b"x" * 20_000_000)
    return {}


def subprocess_python(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", "print(6 * 7)"], capture_output=True, text=True, check=True)
    return {"output": done.stdout.strip()}


def endless(*, params: dict[str, Any], inputs: dict[str, Path], out: Path) -> dict[str, Any]:
    """Native code that does not return, without the clock that the check has of its own."""
    import numpy as np

    from engine.scan import onnx_run

    onnx_run.session(inputs["file"].read_bytes()).run(None, {"x": np.zeros((1, 2), np.float32)})
    return {}
