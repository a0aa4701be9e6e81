"""HTTP/1.1 byte by byte, for what an HTTP client library hides: pipelining, Expect, HEAD, kept connections."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from conformance.core import Failed, NotOffered


@dataclass
class Answer:
    """One response as it came over the wire; header names in lower case."""

    status_code: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text, whatever its bytes."""
        return self.body.decode(errors="replace")


class Wire:
    """A connection to the target."""

    def __init__(self, base: str, seconds: float = 10) -> None:
        parts = urlsplit(base)
        if parts.scheme != "http":
            raise NotOffered("looked at over plain http only")
        self.prefix = parts.path.rstrip("/")
        self.host = parts.netloc
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 80), seconds)
        self._held = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def request(self, method: str, path: str, body: bytes = b"", *lines: str) -> bytes:
        """A request's bytes. Content-Length is added when there is a body and no other framing in `lines`."""
        head = [f"{method} {self.prefix}{path} HTTP/1.1", f"Host: {self.host}", *lines]
        framed = any(line.lower().startswith(("content-length:", "transfer-encoding:")) for line in lines)
        if not framed and (body or method == "POST"):
            head.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*head, "", ""]).encode() + body

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data)

    def silent_for(self, seconds: float) -> bool:
        """Whether nothing comes for that long."""
        before = self._socket.gettimeout()
        self._socket.settimeout(seconds)
        try:
            self._held += self._read()
            return False
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(before)

    def answer(self, head_only: bool = False) -> Answer:
        """The next response; without a body when it answers HEAD. Raises Failed when the connection ends."""
        while b"\r\n\r\n" not in self._held:
            self._held += self._read()
        head, _, self._held = self._held.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        status = int(first.split()[1])
        if head_only or status < 200 or status in (204, 304):
            return Answer(status, headers, b"")
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return Answer(status, headers, self._chunks())
        return Answer(status, headers, self._take(int(headers.get("content-length", "0"))))

    def rest(self, seconds: float = 0.3) -> bytes:
        """What else there is to read, for a short while."""
        self.silent_for(seconds)
        return self._held

    def _chunks(self) -> bytes:
        body = b""
        while True:
            while b"\r\n" not in self._held:
                self._held += self._read()
            size, _, self._held = self._held.partition(b"\r\n")
            length = int(size.split(b";")[0], 16)
            body += self._take(length)
            self._take(2)
            if not length:
                return body

    def _take(self, count: int) -> bytes:
        while len(self._held) < count:
            self._held += self._read()
        taken, self._held = self._held[:count], self._held[count:]
        return taken

    def _read(self) -> bytes:
        data = self._socket.recv(1 << 16)
        if not data:
            raise Failed("the server closed the connection")
        return data
