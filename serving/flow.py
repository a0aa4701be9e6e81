"""When a connection is read from: not while requests queue up behind one another, and not while its client leaves
answers unread. uvicorn goes on reading in both cases, and so keeps what any one client cares to send."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from uvicorn.protocols.http.flow_control import FlowControl


class Reader(Protocol):
    """What a connection's protocol has to offer."""

    pipeline: Any  # requests that wait for the one before them
    held: bytes
    loop: asyncio.AbstractEventLoop

    def go_on(self) -> None:
        """Take up what was held, then read on."""


class Flow(FlowControl):
    """uvicorn's flow control, but for when reading is taken up again."""

    def __init__(self, transport: asyncio.Transport, reader: Reader) -> None:
        super().__init__(transport)
        self._reader = reader

    def resume_reading(self) -> None:
        """Read on, unless something still speaks against it."""
        reader = self._reader
        if not self.read_paused or self.write_paused or reader.pipeline or self._transport.is_closing():
            return
        self.read_paused = False
        if reader.held:
            # Not from here: the parser may be at work further up the stack, and others want their turn.
            reader.loop.call_soon(reader.go_on)
        else:
            self._transport.resume_reading()
