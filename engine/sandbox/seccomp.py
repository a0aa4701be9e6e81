"""A small system-call filter: closes what namespaces and Landlock leave open.

A network namespace does not stop a connection to a socket *file* (a database on a Unix socket) nor to a
virtual machine's host (vsock), io_uring runs calls that no other rule sees, and new user namespaces
or mounts are only good for attacking the kernel. Refused calls fail with EPERM, so that libraries
that try and fall back still work. The rest is allowed: this is no whitelist.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from engine.sandbox.kernel import check, libc

_SET_MODE_FILTER = 1
_AF_INET, _AF_INET6, _AF_NETLINK = 2, 10, 16
_CLONE_NEWUSER = 0x10000000
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000

_SAME_EVERYWHERE = [425, 426, 427, 428, 429, 430, 431, 432, 433, 438, 442]
# fmt: off
_MACHINES: dict[str, tuple[int, int, int, int, list[int], list[int]]] = {
    # architecture word, seccomp, socket, clone, refused: ptrace, mount, umount2, pivot_root, chroot,
    # setns, unshare, kexec, modules, reboot, swap, open_by_handle_at, process_vm_*, bpf, perf,
    # userfaultfd, keys, acct, quotactl, syslog, clocks (x86-64 also iopl, ioperm); then the calls
    # that change modes, owners, times and extended attributes
    "x86_64": (0xC000003E, 317, 41, 56, [
        101, 165, 166, 155, 161, 308, 272, 246, 320, 175, 313, 176, 169, 167, 168, 304, 310, 311, 321,
        298, 323, 248, 249, 250, 163, 179, 103, 164, 227, 159, 172, 173], [
        90, 91, 92, 93, 94, 260, 268, 132, 235, 261, 280, 188, 189, 190, 197, 198, 199]),
    "aarch64": (0xC00000B7, 277, 198, 220, [
        117, 40, 39, 41, 51, 268, 97, 104, 294, 105, 273, 106, 142, 224, 225, 265, 270, 271, 280,
        241, 282, 217, 218, 219, 89, 60, 116, 170, 112, 171], [
        52, 53, 54, 55, 88, 5, 6, 7, 14, 15, 16]),
}
# fmt: on
_CLONE3 = 435
_FAKED_EVERYWHERE = [452, 463, 466]  # fchmodat2, setxattrat, removexattrat


def supported() -> bool:
    """Whether a filter is known for this machine and the kernel takes filters."""
    machine = _MACHINES.get(os.uname().machine)
    if machine is None:
        return False
    action = ctypes.c_uint32(_ERRNO)
    return libc.syscall(machine[1], ctypes.c_uint(2), ctypes.c_uint(0), ctypes.byref(action)) == 0


def install(*, allow_inet: bool, fake_attributes: bool) -> None:
    """Installs the filter for this process and all it starts; needs no_new_privs.

    allow_inet: internet sockets may be made (harmless in an empty network namespace, and some
    libraries make one to look); without it no socket of any family may. fake_attributes: calls that
    change modes, owners, times and extended attributes do nothing and report success, for kernels
    where no read-only mount stops them (failing would break every copy). OSError when refused.
    """
    arch, call, *_ = _MACHINES[os.uname().machine]
    program = _program(allow_inet=allow_inet, fake_attributes=fake_attributes)
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    check(
        libc.syscall(call, ctypes.c_uint(_SET_MODE_FILTER), ctypes.c_uint(0), ctypes.create_string_buffer(header)),
        f"seccomp on {arch:#x}",
    )


def _program(*, allow_inet: bool, fake_attributes: bool) -> bytes:
    """The filter in classic BPF; each instruction is (code, jump if true, jump if false, value)."""
    arch, _, socket_call, clone, refused, attributes = _MACHINES[os.uname().machine]
    load, equal, above, has_bits, give = 0x20, 0x15, 0x35, 0x45, 0x06
    number, architecture, first_argument = 0, 4, 16
    deny, allow = (give, 0, 0, _ERRNO | errno.EPERM), (give, 0, 0, _ALLOW)
    steps: list[tuple[int, int, int, int]] = [
        (load, 0, 0, architecture),
        (equal, 1, 0, arch),
        deny,
        (load, 0, 0, number),
        (above, 0, 1, 0x40000000),  # the x32 numbers are a second way to the same calls
        deny,
        (equal, 0, 1, _CLONE3),  # its flags lie behind a pointer; callers fall back to clone
        (give, 0, 0, _ERRNO | errno.ENOSYS),
        (equal, 0, 4, clone),
        (load, 0, 0, first_argument),
        (has_bits, 0, 1, _CLONE_NEWUSER),
        deny,
        allow,
    ]
    families = [_AF_INET, _AF_INET6, _AF_NETLINK] if allow_inet else []
    steps += [(equal, 0, len(families) * 2 + 2, socket_call), (load, 0, 0, first_argument)]
    for family in families:
        steps += [(equal, 0, 1, family), allow]
    steps.append(deny)
    for each in [*refused, *_SAME_EVERYWHERE]:
        steps += [(equal, 0, 1, each), deny]
    for each in [*attributes, *_FAKED_EVERYWHERE] if fake_attributes else []:
        steps += [(equal, 0, 1, each), (give, 0, 0, _ERRNO)]
    steps.append(allow)
    return b"".join(struct.pack("HBBI", *step) for step in steps)
