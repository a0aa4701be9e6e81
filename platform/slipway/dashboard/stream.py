"""`/events`: the doorbells of a person's projects as server-sent events.

One Redis subscription per process feeds every open page. A page that hears nothing loses nothing: it reads
the database again on its own, so a slow page drops rings and a missing Redis only makes pages poll.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import orjson
import redis.asyncio
import structlog
from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import aget_user
from django.db import connection
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from redis.exceptions import RedisError

from slipway.accounts import policy
from slipway.api import problems

log = structlog.get_logger(__name__)

PATTERN = "slipway:project:*"
KEEP_ALIVE_SECONDS = 15.0
LIFETIME_SECONDS = 600.0  # then the browser comes again, and who it is and may see is read again
QUEUE_SIZE = 256
RECONNECT_SECONDS = 2.0
# More open pages than a person has; without a bound one account could use up the process's connections.
PAGES_OF_ONE = 40


@dataclass(eq=False)
class Client:
    """One open page: the projects it may hear (None is all) and what it has not been sent yet."""

    projects: frozenset[int] | None
    user: int = 0
    queue: asyncio.Queue[bytes] = field(default_factory=lambda: asyncio.Queue(QUEUE_SIZE))

    def offer(self, project: int | None, frame: bytes) -> None:
        """Queues a frame if the page may see it; a page that does not read loses it."""
        if project is not None and self.projects is not None and project not in self.projects:
            return
        with contextlib.suppress(asyncio.QueueFull):
            self.queue.put_nowait(frame)


class Hub:
    """The process's one subscription and its clients."""

    def __init__(self) -> None:
        self.clients: set[Client] = set()
        self.task: asyncio.Task[None] | None = None
        self.hearing = False

    def join(self, client: Client) -> None:
        self.clients.add(client)
        if self.task is None or self.task.done():
            self.task = asyncio.get_running_loop().create_task(self._listen())

    def leave(self, client: Client) -> None:
        self.clients.discard(client)
        if not self.clients and self.task is not None:
            self.task.cancel()
            self.task = None

    def _set_hearing(self, hearing: bool) -> None:
        if hearing != self.hearing:
            self.hearing = hearing
            self._tell(None, self.doorbell)

    @property
    def doorbell(self) -> bytes:
        return b"event: doorbell\ndata: %s\n\n" % (b"here" if self.hearing else b"away")

    def _tell(self, project: int | None, frame: bytes) -> None:
        for client in tuple(self.clients):
            client.offer(project, frame)

    async def _listen(self) -> None:
        while True:
            try:
                await self._subscription()
            except (RedisError, OSError) as error:
                log.warning("event_stream_deaf", error=str(error))
            self._set_hearing(False)
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _subscription(self) -> None:
        connection_ = redis.asyncio.Redis.from_url(settings.REDIS_URL, socket_connect_timeout=2)
        async with connection_, connection_.pubsub() as channel:
            await channel.psubscribe(PATTERN)
            async for message in channel.listen():
                self._set_hearing(True)
                if message["type"] == "pmessage":
                    self._deliver(message["channel"], message["data"])

    def _deliver(self, channel: bytes, data: bytes) -> None:
        project = int(channel.rsplit(b":", 1)[1])
        event = orjson.loads(data)
        body = orjson.dumps({"topic": event["topic"], "id": event["id"]})
        self._tell(project, b"data: %s\n\n" % body)


hubs: dict[asyncio.AbstractEventLoop, Hub] = {}


def hub() -> Hub:
    """The hub of this event loop (a process has one; tests have several)."""
    loop = asyncio.get_running_loop()
    if loop not in hubs:
        for closed in [other for other in hubs if other.is_closed()]:
            del hubs[closed]
        hubs[loop] = Hub()
    return hubs[loop]


def _projects(user: object) -> frozenset[int] | None:
    """Ids of the projects a person hears; gives the database connection back, the stream needs none."""
    try:
        if user.is_superuser:  # type: ignore[attr-defined]
            return None
        return frozenset(policy.roles_of(user))
    finally:
        connection.close()


async def _frames(client: Client) -> AsyncIterator[bytes]:
    bell = hub()
    bell.join(client)
    loop = asyncio.get_running_loop()
    end = loop.time() + LIFETIME_SECONDS
    try:
        yield b"retry: 2000\n\n" + bell.doorbell
        while (left := end - loop.time()) > 0:
            try:
                yield await asyncio.wait_for(client.queue.get(), min(KEEP_ALIVE_SECONDS, left))
            except TimeoutError:
                yield b": still here\n\n"
    finally:
        bell.leave(client)


async def events(request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
    """The stream of one page; 401 for people who are not signed in."""
    user = await aget_user(request)
    if not user.is_authenticated:
        return problems.response(request, 401, "Sign in to follow changes.", "not_authenticated")
    client = Client(await sync_to_async(_projects)(user), user.pk)
    if sum(other.user == user.pk for other in hub().clients) >= PAGES_OF_ONE:
        return problems.response(request, 429, "Too many open pages follow changes; close some.", "too_many_streams")
    return StreamingHttpResponse(
        _frames(client),
        content_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
