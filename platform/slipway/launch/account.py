"""The system user that PostgreSQL runs as when we are root (it refuses to run as root itself).

Nothing outside SLIPWAY_HOME changes its mode or owner for it. Where the data folder or the binaries
lie behind a closed folder (below /root, say), the server keeps one capability to pass through instead.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from slipway.launch.errors import LaunchError

USER = "slipway-postgres"

PR_SET_KEEPCAPS = 8
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Account:
    """Whom the embedded PostgreSQL runs as; `uid` is our own unless we are root."""

    uid: int
    gid: int

    @property
    def is_other(self) -> bool:
        return self.uid != os.geteuid()

    def give(self, path: Path) -> None:
        """Make `path` the account's own."""
        if self.is_other:
            os.chown(path, self.uid, self.gid)

    def become(self, reach: list[Path]) -> Callable[[], None] | None:
        """What a child runs before exec so that it is this account and can use the folders `reach`."""
        if not self.is_other:
            return None
        capability = None if self._can_use(reach) else _spare_capability()

        def change() -> None:
            os.umask(0o077)
            if capability is None:
                os.setgroups([])
                os.setresgid(self.gid, self.gid, self.gid)
                os.setresuid(self.uid, self.uid, self.uid)
            else:
                _change_user_and_keep(self.uid, self.gid, capability)

        return change

    def _can_use(self, reach: list[Path]) -> bool:
        """Whether the account may search all of these folders: tried in a child, not computed."""
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.setgroups([])
                os.setresgid(self.gid, self.gid, self.gid)
                os.setresuid(self.uid, self.uid, self.uid)
                code = 0 if all(os.access(folder, os.X_OK) for folder in reach) else 1
            finally:
                os._exit(code)
        return os.waitpid(pid, 0)[1] == 0


def account_for(data: Path) -> Account:
    """The account for the data folder `data`: its owner if it exists, else ourselves or a system user."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    if data.exists() and data.stat().st_uid != 0:
        state = data.stat()
        return Account(state.st_uid, state.st_gid)
    entry = _system_user()
    return Account(entry.pw_uid, entry.pw_gid)


def _system_user() -> pwd.struct_passwd:
    for attempt in range(2):
        try:
            return pwd.getpwnam(USER)
        except KeyError:
            if attempt == 0:
                _add_user()
    try:
        return pwd.getpwnam("nobody")
    except KeyError:
        raise LaunchError(
            "PostgreSQL cannot run as root and no system user could be made for it; "
            "run as a normal user or set DATABASE_URL."
        ) from None


def _add_user() -> None:
    shell = next((p for p in ("/usr/sbin/nologin", "/sbin/nologin") if Path(p).exists()), "/bin/false")
    for command in (
        ["useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell", shell, USER],
        ["adduser", "-S", "-D", "-H", "-s", shell, USER],  # BusyBox
    ):
        program = shutil.which(command[0], path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if program is None:
            continue
        if subprocess.run([program, *command[1:]], capture_output=True, check=False).returncode == 0:
            return


def _spare_capability() -> int:
    """Reading past closed folders if we hold that, else the wider right that containers keep."""
    held = 0
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapPrm:"):
            held = int(line.split()[1], 16)
    for capability in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE):
        if held >> capability & 1:
            return capability
    raise LaunchError(
        "PostgreSQL cannot run as root, and its own user cannot reach SLIPWAY_HOME; "
        "set SLIPWAY_HOME to a folder below /var/lib or /srv, or run as a normal user."
    )


def _change_user_and_keep(uid: int, gid: int, capability: int) -> None:
    """Become `uid` with nothing but `capability`, and pass it on through exec (ambient set)."""
    _must(_libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0))
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    mask = 1 << capability
    # Two times (effective, permitted, inheritable): capabilities 0–31, then 32–63.
    data = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)
    _must(_libc.capset(ctypes.byref(header), ctypes.byref(data)))
    _must(_libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0))


def _must(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
