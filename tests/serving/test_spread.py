"""Connections are even over the processes of a server, and none is lost on its way from one to another."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import uvloop

from serving.spread import Member, Spread
from tests.serving.conftest import Server, wait_until
from tests.serving.test_connections import Connection, body_of, request

Serve = Callable[..., Server]
GOOD = request(body_of(), content_type="application/json")


def held(pid: int) -> int:
    """How many connections of its clients a process holds."""
    inodes = {
        fields[9]
        for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
        if (fields := line.split())[3] == "01"
    }
    found = 0
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += fd.readlink().name.removeprefix("socket:[").rstrip("]") in inodes
    return found


@pytest.mark.parametrize(("processes", "connections"), [(2, 16), (3, 24)])
def test_processes_differ_by_two_at_most_when_clients_stay(
    serve: Serve, model_folder: Path, processes: int, connections: int
) -> None:
    server = serve("--models", str(model_folder), processes=processes).wait_ready("tiny")
    server.client.close()
    wait_until(lambda: server.listeners() == processes and all(held(pid) == 0 for pid in server.children()))
    for _ in range(8):  # by the kernel alone all of these would pass once in a hundred times
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Connection(server)) for _ in range(connections)]
            for client in clients:
                client.send(GOOD)
            assert [client.answer()[0] for client in clients] == [200] * connections
            numbers = [held(pid) for pid in server.children()]
            # Two that hand over in the same moment may choose the same process.
            assert sum(numbers) == connections and max(numbers) - min(numbers) <= 2
        wait_until(lambda: all(held(pid) == 0 for pid in server.children()))


def test_every_connection_is_answered_once_when_all_are_short(serve: Serve, model_folder: Path) -> None:
    server = serve("--models", str(model_folder), processes=2).wait_ready("tiny")
    address = httpx.URL(server.url)
    leaving = request(body_of(), content_type="application/json", connection="close")
    seen: Counter[bytes] = Counter()

    def ask() -> None:
        for _ in range(400):
            with socket.create_connection((address.host, address.port), 20) as sock:
                sock.sendall(leaving)
                answer = b""
                while piece := sock.recv(1 << 16):
                    answer += piece
                seen[answer[:15]] += 1

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {b"HTTP/1.1 200 OK": 3200}
    assert "Traceback" not in "".join(server.stderr)


class Echo(asyncio.Protocol):
    """Says which process answers."""

    def __init__(self, name: str, handed: socket.socket) -> None:
        self.name, self.handed = name, handed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.handed.detach()
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(self.name.encode() + data)


class Accepted:
    """What a transport says of its socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def get_extra_info(self, name: str) -> socket.socket:
        assert name == "socket"
        return self.sock


@contextlib.contextmanager
def connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client's and a server's end."""
    client, accepted = socket.socketpair()
    with client, accepted:
        client.settimeout(20)
        yield client, accepted


async def answered(client: socket.socket, member: Member, name: str) -> bytes:
    member.join(asyncio.get_running_loop(), lambda sock: Echo(name, sock))
    return await asyncio.to_thread(client.recv, 100)


def test_one_on_its_way_is_answered_by_the_successor_when_its_process_dies() -> None:
    spread = Spread(2)
    first, second = spread.member(0), spread.member(1)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, connection() as (client, accepted):

        async def joined() -> None:
            for member in (first, second):
                member.join(asyncio.get_running_loop(), lambda sock: Echo("dead", sock))

        runner.run(joined())  # then this loop stands still, as that of a process that is about to die
        first.count(1)
        assert first.hand_over(Accepted(accepted))  # type: ignore[arg-type]
        accepted.close()
        spread.leave(1)  # as the parent says of a dead process
        client.sendall(b"?")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as successor:
            assert successor.run(answered(client, spread.member(1), "successor")) == b"successor?"
        assert spread.waiting(1) == 0


def test_what_is_handed_over_counts_before_it_is_taken() -> None:
    spread = Spread(2)
    members = [spread.member(0), spread.member(1)]
    for member in members:
        member._in = True
        member.count(0)
    with contextlib.ExitStack() as stack:
        went = []
        for _ in range(8):  # all in one turn of the loop: the other process has had no time for any
            _, accepted = stack.enter_context(connection())
            gone = members[0].hand_over(Accepted(accepted))  # type: ignore[arg-type]
            went.append(gone)
            members[0].count(went.count(False))
    assert went == [False, True] * 4


def test_a_leaving_process_gives_away_and_gets_nothing() -> None:
    spread = Spread(2)
    stays, leaves = spread.member(0), spread.member(1)
    for member in (stays, leaves):
        member._in = True
        member.count(0)
    leaves.leave()
    stays.count(5)
    with connection() as (_, accepted):
        assert not stays.hand_over(Accepted(accepted))  # type: ignore[arg-type]
        assert leaves.hand_over(Accepted(accepted))  # type: ignore[arg-type]
        stays.leave()
        assert not leaves.hand_over(Accepted(accepted))  # type: ignore[arg-type]
