"""System calls the standard library lacks: namespaces, mounts, capabilities, process attributes.

Runs in the child under any interpreter, so it uses nothing but the standard library.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from pathlib import Path
from typing import Any

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
_SPACES = CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_REC, _MS_PRIVATE = 2, 4, 8, 16384, 1 << 18
_MS_BIND, _AT_RECURSIVE, _MOUNT_SETATTR, _READ_ONLY = 4096, 0x8000, 442, 1
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP = 1, 4, 24
_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 36, 38, 47
_CAPABILITY_VERSION_3, _CAP_SETPCAP = 0x20080522, 8

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> int:
    """The result of a C call, or OSError with its errno."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def prctl(option: int, value: int = 0, third: int = 0, fourth: int = 0) -> None:
    args = [ctypes.c_ulong(each) for each in (value, third, fourth, 0)]
    check(libc.prctl(ctypes.c_int(option), *args), f"prctl {option}")


def die_with_parent() -> None:
    prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def adopt_orphans() -> None:
    """Orphaned grandchildren become children of this process, so that none escapes the final kill."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def no_new_privileges() -> None:
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def enter_namespaces() -> str | None:
    """Moves this process into namespaces of its own; its next child is process 1 of them.

    Returns "root" or "user" for the way that worked, None where the kernel refuses both.
    """
    if os.geteuid() == 0 and libc.unshare(_SPACES) == 0:
        return "root"
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(_SPACES | CLONE_NEWUSER) != 0:
        return None
    try:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    except PermissionError:
        # Root without capabilities may not map itself. Files are still ours (the kernel compares the
        # real owner); only our own number reads as "nobody".
        return "user"
    return "user"


def _mount(kind: bytes, where: bytes, flags: int, data: bytes | None = None) -> bool:
    return libc.mount(kind, where, kind, ctypes.c_ulong(flags), data) == 0


class _MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns_fd")]


def _set_read_only(path: str, *, read_only: bool, below: bool) -> bool:
    attributes = _MountAttributes(_READ_ONLY, 0, 0, 0) if read_only else _MountAttributes(0, _READ_ONLY, 0, 0)
    flags = _AT_RECURSIVE if below else 0
    here = ctypes.c_int(-100)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    return libc.syscall(_MOUNT_SETATTR, here, path.encode(), ctypes.c_uint(flags), ctypes.byref(attributes), size) == 0


def read_only_mounts(writable: list[str]) -> bool:
    """Makes every mount of this namespace read-only but for the folders `writable`.

    Landlock does not cover chmod, chown, extended attributes and times; a read-only mount does. False where
    the kernel refuses (before 5.12); the caller then fakes those calls.
    """
    if libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None) != 0:
        return False
    for path in writable:
        if libc.mount(path.encode(), path.encode(), None, ctypes.c_ulong(_MS_BIND), None) != 0:
            return False
    if not _set_read_only("/", read_only=True, below=True):
        return False
    return all(_set_read_only(path, read_only=False, below=False) for path in writable)


def private_mounts(shared_memory_mb: int) -> bool:
    """Gives process 1 its own /proc (the host's processes vanish) and its own small /dev/shm.

    shared_memory_mb: size of the latter, 0 leaves it as it is. Returns whether /proc is its own; a
    container may forbid that, and then Landlock still keeps other processes' memory and
    environment closed.
    """
    safe = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    if shared_memory_mb and Path("/dev/shm").is_dir():  # noqa: S108 - it is replaced here, not used
        _mount(b"tmpfs", b"/dev/shm", safe, f"size={shared_memory_mb}m,mode=1777".encode())
    return _mount(b"proc", b"/proc", safe)


class _CapHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _CapData(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]


def drop_capabilities() -> None:
    """Gives up every capability for good: root in the child is then an ordinary user with a famous number."""
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    if _effective_capabilities() >> _CAP_SETPCAP & 1:
        for number in range(last + 1):
            prctl(_PR_CAPBSET_DROP, number)
    prctl(_PR_CAP_AMBIENT, 4)  # 4: clear all
    header, data = _CapHeader(_CAPABILITY_VERSION_3, 0), (_CapData * 2)()
    check(libc.capset(ctypes.byref(header), ctypes.byref(data)), "capset")


def _effective_capabilities() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))


def set_limits(limits: dict[str, Any]) -> None:
    """Resource limits of the task; `limits` are the fields of `Limits`."""
    mb = 1024 * 1024
    data = (limits["data_mb"] or limits["memory_mb"] + 1024) * mb
    cpu = int(limits["cpu_seconds"] or max(2, 4 * limits["seconds"]))
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_DATA: data,
        resource.RLIMIT_CPU: cpu,
        resource.RLIMIT_FSIZE: limits["file_mb"] * mb,
        resource.RLIMIT_NOFILE: limits["open_files"],
    }
    for which, value in wanted.items():
        hard = resource.getrlimit(which)[1]
        ceiling = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # The hard CPU limit kills without a word; the soft one sends SIGXCPU first.
        above = 2 if which == resource.RLIMIT_CPU and ceiling == value else 0
        resource.setrlimit(which, (ceiling, ceiling + above))
