"""Slow and greedy clients: none of them keeps the threads that answer everybody else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.test import AsyncClient

from slipway import patience
from slipway.accounts.models import User
from slipway.dashboard import stream

LIMIT = 1024 * 1024


def echo(environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
    """Answers the body it was sent, in pieces."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start("200 OK", [("Content-Type", "text/plain")])
    return [body, *[b"x" * 1000] * (100 if environ["PATH_INFO"] == "/long" else 1)]


class Client:
    """One request as a server would pass it on; `stalls` says where the client stops."""

    def __init__(self, body: bytes = b"", *, path: str = "/", announced: int | None = None, stalls: str = "") -> None:
        length = len(body) if announced is None else announced
        headers = [(b"content-length", str(length).encode())] if length else [(b"transfer-encoding", b"chunked")]
        self.scope = {
            "type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers,
            "http_version": "1.1",
        }  # fmt: skip
        self.body, self.stalls, self.sent = body, stalls, []

    async def receive(self) -> dict[str, Any]:
        if self.stalls == "sending" and not self.body:
            await asyncio.sleep(3600)
        chunk, self.body = self.body[:65536], self.body[65536:]
        return {"type": "http.request", "body": chunk, "more_body": bool(self.body) or self.stalls == "sending"}

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)
        if self.stalls == "reading" and len(self.sent) > 2:
            await asyncio.sleep(3600)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    async def ask(self, threads: patience.Threads) -> int:
        await threads(self.scope, self.receive, self.send)
        return self.status


def pool(**changes: Any) -> patience.Threads:
    values = {"workers": 2, "limit": LIMIT, "memory": patience.Memory(), **changes}
    return patience.Threads(echo, **values)


@pytest.mark.parametrize("stalls", ["sending", "reading"])
def test_others_are_answered_when_clients_stall(stalls: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "BODY_SECONDS", 1.0)
    monkeypatch.setattr(patience, "READ_SECONDS", 1.0)

    async def run() -> None:
        threads = pool(workers=6)
        slow = [Client(b"a=b", path="/long", announced=1000 if stalls == "sending" else None, stalls=stalls)
                for _ in range(5 if stalls == "reading" else 50)]  # fmt: skip
        tasks = [asyncio.create_task(client.ask(threads)) for client in slow]
        await asyncio.sleep(0.2)
        started = time.monotonic()
        assert await Client(b"hello").ask(threads) == 200
        assert time.monotonic() - started < 0.7
        statuses = await asyncio.wait_for(asyncio.gather(*tasks), 10)
        assert set(statuses) == ({408} if stalls == "sending" else {200})
        if stalls == "reading":  # given up: the answer has no end, so the server closes the connection
            assert all(client.sent[-1].get("more_body") for client in slow)
        # Every thread is free again.
        started = time.monotonic()
        assert await asyncio.gather(*[Client(b"x").ask(threads) for _ in range(12)]) == [200] * 12
        assert time.monotonic() - started < 2
        assert threads.busy == 0
        assert threads.memory.held == 0

    asyncio.run(run())


@pytest.mark.parametrize("announced", [None, 0])
def test_body_is_refused_when_it_is_too_large(announced: int | None) -> None:
    client = Client(b"x" * (LIMIT + 1), announced=announced)
    assert asyncio.run(client.ask(pool())) == 413
    assert b"too_large" in client.sent[1]["body"]


def test_body_arrives_whole_when_it_comes_in_pieces() -> None:
    body = bytes(range(256)) * 1000
    client = Client(body)
    assert asyncio.run(client.ask(pool())) == 200
    assert b"".join(message.get("body", b"") for message in client.sent).startswith(body)


def test_large_bodies_are_refused_when_memory_is_used_up() -> None:
    memory = patience.Memory(budget=200_000)

    async def run() -> None:
        threads = pool(memory=memory)
        slow = [Client(b"x" * 90_000, announced=100_000, stalls="sending") for _ in range(2)]
        tasks = [asyncio.create_task(client.ask(threads)) for client in slow]
        await asyncio.sleep(0.1)
        assert await Client(b"x" * 100_000).ask(threads) == 503
        assert await Client(b"x" * 1_000).ask(threads) == 200  # small ones are always let in
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert memory.held == 0

    asyncio.run(run())


def test_upload_breaks_off_when_it_is_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "BODY_SECONDS", 0.3)
    client = Client(b"abc", announced=1000, stalls="sending")
    assert asyncio.run(client.ask(pool(streams=True))) == 200  # the application sees three bytes of a thousand
    assert client.sent[1]["body"] == b"abc"


def test_stream_never_gets_a_body_when_one_is_sent() -> None:
    async def run() -> None:
        messages = [{"type": "http.request", "body": b"x" * 1000, "more_body": True}] * 5 + [
            {"type": "http.disconnect"}
        ]

        async def receive() -> dict[str, Any]:
            return messages.pop(0)

        receive_nothing = patience.without_body(receive)
        assert await receive_nothing() == {"type": "http.request", "body": b"", "more_body": False}
        assert await receive_nothing() == {"type": "http.disconnect"}

    asyncio.run(run())


@pytest.mark.django_db(transaction=True)
def test_stream_is_refused_when_one_account_has_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PAGES_OF_ONE", 2)
    user = User.objects.create_user("many", password="pw")
    other = User.objects.create_user("few", password="pw")

    async def run() -> None:
        client = AsyncClient()
        await client.aforce_login(user)
        answers = [await client.get("/events") for _ in range(2)]
        for answer in answers:
            await anext(aiter(answer.streaming_content))
        assert (await client.get("/events")).status_code == 429
        second = AsyncClient()
        await second.aforce_login(other)
        assert (await second.get("/events")).status_code == 200
        stream.hub().clients.clear()

    asyncio.run(run())
