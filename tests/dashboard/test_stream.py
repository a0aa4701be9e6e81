"""The event stream: only for people signed in, only of their projects, and open while Redis is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient

from slipway import events
from slipway.accounts.models import Membership, Project, Role, User
from slipway.dashboard import stream

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def two() -> dict[str, Any]:
    """A member of one project, a superuser, and a project that only the latter hears."""
    member = User.objects.create_user("member", password="pw")
    mine = Project.objects.create(slug="mine", name="Mine")
    Membership.objects.create(project=mine, user=member, role=Role.VIEWER)
    other = Project.objects.create(slug="other", name="Other")
    return {
        "member": member,
        "root": User.objects.create_superuser("root", password="pw"),
        "mine": mine,
        "other": other,
    }


async def opened(user: User) -> AsyncIterator[bytes]:
    client = AsyncClient()
    await client.aforce_login(user)
    answer = await client.get("/events")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/event-stream"
    return aiter(answer.streaming_content)


async def heard(frames: AsyncIterator[bytes], until: bytes, seconds: float = 10) -> list[bytes]:
    """Frames up to the one that holds `until`."""
    found: list[bytes] = []
    async with asyncio.timeout(seconds):
        while not found or until not in found[-1]:
            found.append(await anext(frames))
    return found


async def ready(frames: AsyncIterator[bytes]) -> None:
    await heard(frames, b"here")


def test_stream_is_not_compressed_when_the_browser_can(two: dict[str, Any]) -> None:
    async def run() -> None:
        client = AsyncClient()
        await client.aforce_login(two["member"])
        answer = await client.get("/events", headers={"accept-encoding": "gzip"})
        assert answer.streaming and "Content-Encoding" not in answer.headers
        frames = aiter(answer.streaming_content)
        assert await heard(frames, b"retry")  # at once, not when a buffer is full
        await frames.aclose()

    asyncio.run(run())


def test_stream_refuses_when_anonymous(two: dict[str, Any]) -> None:
    async def run() -> None:
        answer = await AsyncClient().get("/events")
        assert answer.status_code == 401
        assert answer.headers["Content-Type"] == "application/problem+json"

    asyncio.run(run())


def test_page_hears_its_projects_only(two: dict[str, Any]) -> None:
    async def run() -> None:
        member, root = await opened(two["member"]), await opened(two["root"])
        first, second = asyncio.create_task(ready(member)), asyncio.create_task(ready(root))
        await asyncio.gather(first, second)
        ring = sync_to_async(events._send)
        await ring(two["other"].pk, "job", 7)
        await ring(two["mine"].pk, "job", 12)
        assert b'{"topic":"job","id":7}' in b"".join(await heard(root, b'"id":12'))
        assert b'"id":7' not in b"".join(await heard(member, b'"id":12'))

    asyncio.run(run())


def test_stream_stays_open_when_redis_is_away(two: dict[str, Any], settings: Any, monkeypatch: Any) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    monkeypatch.setattr(stream, "KEEP_ALIVE_SECONDS", 0.2)

    async def run() -> None:
        frames = await opened(two["member"])
        assert b"away" in await anext(frames)
        assert b": still here" in (await heard(frames, b": still here"))[-1]

    asyncio.run(run())


def test_slow_page_loses_rings_and_nothing_else() -> None:
    async def run() -> None:
        client = stream.Client(frozenset({1}))
        for _ in range(stream.QUEUE_SIZE + 50):
            client.offer(1, b"x")
        client.offer(2, b"y")
        assert client.queue.qsize() == stream.QUEUE_SIZE

    asyncio.run(run())
