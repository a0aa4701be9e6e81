"""The limit of HTTP: a bare ASGI answer of a given size on uvicorn, uvloop and httptools.

As many processes as asked for, each with its own SO_REUSEPORT socket, as the product's server has. It answers
the very request that the servers get, without looking at its body.

    python hello.py PORT PROCESSES BYTES
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

import uvicorn


def application(size: int) -> Any:
    start = {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-type", b"application/json"), (b"content-length", str(size).encode())],
    }
    body = {"type": "http.response.body", "body": b"h" * size}

    async def hello(scope: Any, receive: Any, send: Any) -> None:
        await send(start)
        await send(body)

    return hello


def main() -> None:
    port, processes, size = (int(word) for word in sys.argv[1:])
    for _ in range(processes - 1):
        if os.fork() == 0:
            break
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    config = uvicorn.Config(
        application(size),
        http="httptools",
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        backlog=2048,
    )
    uvicorn.Server(config).run(sockets=[sock])


if __name__ == "__main__":
    main()
