"""Messages between the inference server and the PMML scorer: one JSON object and bytes behind it, with their lengths.

Eight bytes (two unsigned little-endian 32-bit lengths), the JSON text, the bytes. Python's JSON carries NaN and
infinities, and every number exactly.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

# Of the JSON text and of the bytes: neither side makes the other allocate more.
MOST = 512 << 20
_LENGTHS = struct.Struct("<II")


def send(sock: socket.socket, message: dict[str, Any], data: bytes = b"") -> None:
    """Send one message. Raises OSError, and ValueError for one that is too large."""
    text = json.dumps(message, separators=(",", ":")).encode()
    if max(len(text), len(data)) > MOST:
        raise ValueError("the message is too large")
    sock.sendall(b"".join((_LENGTHS.pack(len(text), len(data)), text, data)))


def receive(sock: socket.socket) -> tuple[dict[str, Any], bytes]:
    """The next message. Raises EOFError when the other side is gone, OSError, and ValueError for nonsense."""
    text_size, data_size = _LENGTHS.unpack(_exactly(sock, _LENGTHS.size))
    if max(text_size, data_size) > MOST:
        raise ValueError("the message is too large")
    message = json.loads(_exactly(sock, text_size))
    if not isinstance(message, dict):
        raise ValueError("the message is not an object")
    return message, bytes(_exactly(sock, data_size))


def _exactly(sock: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        read = sock.recv_into(view)
        if not read:
            raise EOFError("the other side is gone")
        view = view[read:]
    return data
