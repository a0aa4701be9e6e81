"""Spreads connections evenly over a server's processes.

The kernel deals new connections by a hash: of eight, one process of two may well get six, and those six wait
longer than the other two. A process that accepts one and has more than another hands it over, before anything was
read from it. Sockets and counts are made before the fork; what is on its way to a process that dies waits for the
one that follows it.
"""

from __future__ import annotations

import asyncio
import functools
import mmap
import socket
import struct
from collections.abc import Callable
from typing import Any

# Of a process that takes none: it has not started, is leaving, or is dead.
_AWAY = 1 << 30
_INT = struct.calcsize("i")

Factory = Callable[[socket.socket], asyncio.Protocol]


class Spread:
    """One for all processes. Each number in the shared memory is written by one process alone: its connections,
    how many were handed to it by each other, how many of these it took."""

    def __init__(self, processes: int) -> None:
        count = self._processes = processes
        numbers = memoryview(mmap.mmap(-1, _INT * count * (count + 2))).cast("i")
        self._connections = numbers[:count]
        self._taken = numbers[count : 2 * count]
        self._sent = numbers[2 * count :]  # from process i to process j: at i + j * processes
        self._pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(count)]
        for index, pair in enumerate(self._pairs):
            self.leave(index)
            for end in pair:
                end.setblocking(False)

    def leave(self, index: int) -> None:
        """A process takes no more."""
        self._connections[index] = _AWAY

    def member(self, index: int) -> Member:
        """The side of one process."""
        return Member(self, index)

    def waiting(self, index: int) -> int:
        """How many were handed to a process that it has not taken."""
        row = self._sent[index * self._processes : (index + 1) * self._processes]
        return sum(row) - self._taken[index]


class Member:
    """What one process knows of the others."""

    def __init__(self, spread: Spread, index: int) -> None:
        self._spread = spread
        self._index = index
        self._in = False
        self._count = 0
        self._adoptions: set[asyncio.Task[Any]] = set()

    def join(self, loop: asyncio.AbstractEventLoop, protocol: Factory) -> None:
        """Take connections from others from now on; `protocol` gives each a protocol, which detaches the
        socket when its transport is there."""
        self._in = True
        self.count(self._count)
        loop.add_reader(self._spread._pairs[self._index][0], self._take, loop, protocol)

    def leave(self) -> None:
        """Take no more; what is on its way is still taken, and what is accepted here goes to others."""
        self._in = False
        self._spread.leave(self._index)

    def count(self, connections: int) -> None:
        """Say how many connections this process has."""
        self._count = connections
        if self._in:
            self._spread._connections[self._index] = connections

    def hand_over(self, transport: asyncio.Transport) -> bool:
        """Give a connection that was just accepted to a process that has fewer; False when it stays. The transport
        of one that went must be aborted."""
        spread, index = self._spread, self._index
        own = self._count if self._in else _AWAY
        counts = enumerate(spread._connections.tolist())
        fewer = [(count + spread.waiting(process), process) for process, count in counts if count < own]
        fewest, other = min(fewer, default=(own, index))
        if fewest >= own:
            return False
        try:
            socket.send_fds(spread._pairs[other][1], [b"c"], [transport.get_extra_info("socket").fileno()])
        except OSError:  # its queue is full, or there are too many descriptors: it stays here
            return False
        spread._sent[index + other * spread._processes] += 1
        return True

    def _take(self, loop: asyncio.AbstractEventLoop, protocol: Factory) -> None:
        spread, index = self._spread, self._index
        while True:
            try:
                _, fds, _, _ = socket.recv_fds(spread._pairs[index][0], 1, 1)
            except OSError:  # BlockingIOError: no more
                return
            spread._taken[index] += 1
            for fd in fds:
                sock = socket.socket(fileno=fd)
                adoption = loop.create_task(loop.connect_accepted_socket(functools.partial(protocol, sock), sock))
                self._adoptions.add(adoption)
                adoption.add_done_callback(self._adoptions.discard)
