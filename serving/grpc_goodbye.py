"""Ask the clients of gRPC connections to leave before the server refuses them.

gRPC's own shutdown cancels every call that reaches it after the first moment, before clients can know that it goes;
there is no call that only says so. HTTP/2 has the word for it, GOAWAY with the highest stream number: no new calls
here, those under way go on. It is written to the connections behind gRPC's back, which does not look at what it did
not send.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Iterator

# Length 8, type 7, no flags, stream 0; highest stream, no error.
_GOAWAY = struct.pack(">HBBBIII", 0, 8, 7, 0, 0, 0x7FFFFFFF, 0)


def ask_to_leave(port: int) -> int:
    """Tell the clients of all this process's connections on a port; how many were told.

    Only where all that was sent has arrived: a frame may be written there in part, and ours would end up in it."""
    told = 0
    for connection in _sockets(port, listening=False):
        with contextlib.suppress(OSError):
            waiting = struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0]
            if waiting == 0:
                told += connection.send(_GOAWAY, socket.MSG_DONTWAIT) == len(_GOAWAY)
    return told


def stop_listening(port: int) -> None:
    """Let new connections on a port go to the other processes that share it."""
    for listener in _sockets(port, listening=True):
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RD)


def _sockets(port: int, listening: bool) -> Iterator[socket.socket]:
    """Duplicates of this process's sockets on a port, each closed when the next is asked for. The parent's, which
    holds the port for all, neither listens nor is connected."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as found:
            if found.family in (socket.AF_INET, socket.AF_INET6) and found.getsockname()[1] == port:
                if not listening:
                    found.getpeername()  # raises for one that is not connected
                if bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)) == listening:
                    yield found
