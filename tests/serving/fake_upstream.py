"""A real HTTP server that plays another V2 server, well or badly."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from serving.document import UpstreamSpec
from serving.protocol.encode import Encoded
from serving.protocol.errors import ServingError
from serving.upstream import Upstream

BODY = b'{"inputs": []}'
ANSWER = {
    "model_name": "theirs",
    "model_version": "77",
    "id": "7",
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [0.5]}],
}
INPUTS = [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]


class FakeUpstream:
    """`answers` is asked for (status, headers, body) at each inference; what it raises hangs up."""

    def __init__(self) -> None:
        self.ready = 200
        self.inputs: Any = INPUTS
        self.answers: Callable[[bytes], tuple[int, dict[str, str], bytes]] = lambda _: (
            200, {}, json.dumps(ANSWER).encode(),
        )  # fmt: skip
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.connections: set[tuple[str, int]] = set()
        self.running = self.most = 0
        self.lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                pass

            def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in headers and "Transfer-Encoding" not in headers:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                if self.path.endswith("/ready"):
                    self.reply(fake.ready, {}, b"{}")
                else:
                    self.reply(200, {}, json.dumps({"inputs": fake.inputs, "outputs": []}).encode())

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                with fake.lock:
                    fake.requests.append((self.path, headers, body))
                    fake.connections.add(self.client_address)
                    fake.running += 1
                    fake.most = max(fake.most, fake.running)
                try:
                    self.reply(*fake.answers(body))
                except OSError:
                    self.close_connection = True
                finally:
                    with fake.lock:
                        fake.running -= 1

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def slowly(seconds: float) -> Callable[[bytes], tuple[int, dict[str, str], bytes]]:
    def answer(_: bytes) -> tuple[int, dict[str, str], bytes]:
        time.sleep(seconds)
        return 200, {}, json.dumps(ANSWER).encode()

    return answer


def use(url: str, test: Callable[[Upstream], Coroutine[Any, Any, Any]], timeout_s: float = 5, **spec: Any) -> Any:
    async def main() -> Any:
        upstream = Upstream(UpstreamSpec(url, "theirs", spec.get("version"), timeout_s))
        try:
            return await test(upstream)
        finally:
            await upstream.close()

    return asyncio.run(main())


def ask(url: str, **more: Any) -> Encoded:
    found: Encoded = use(url, lambda upstream: upstream.rest("ours", "3", BODY, {"x-request-id": "r"}), **more)
    return found


def refusal(url: str, **more: Any) -> ServingError:
    with pytest.raises(ServingError) as refused:
        ask(url, **more)
    return refused.value
