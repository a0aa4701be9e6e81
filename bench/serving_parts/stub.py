"""The control plane's side of serving, as little of it as there can be: a process that costs next to nothing.

State by long poll, artifacts, reports that are counted once. The bench puts a document with `PUT /document` and
reads with `GET /seen` what the servers said of themselves.

    python stub.py PORT ARTIFACTS_FOLDER
"""

from __future__ import annotations

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit


class Plane:
    """What is wished, and what was reported."""

    def __init__(self, artifacts: Path) -> None:
        self.artifacts = artifacts
        self.changed = threading.Condition()
        self.generation = 0
        self.document = b""
        self.reports: set[tuple[str, int]] = set()
        self.requests = 0
        self.errors = 0
        self.last: dict[int, dict[str, Any]] = {}

    def publish(self, endpoints: list[Any]) -> int:
        with self.changed:
            self.generation += 1
            self.document = json.dumps({"generation": self.generation, "endpoints": endpoints}).encode()
            self.changed.notify_all()
            return self.generation

    def wait(self, known: str | None, seconds: float) -> tuple[str, bytes]:
        with self.changed:
            self.changed.wait_for(lambda: self.document and known != self.tag(), timeout=seconds)
            return self.tag(), b"" if known == self.tag() else self.document

    def tag(self) -> str:
        return f'"{self.generation}"'

    def take(self, report: dict[str, Any]) -> None:
        key = (report["instance"], report["seq"])
        with self.changed:
            if key in self.reports:
                return
            self.reports.add(key)
            self.requests += sum(window["requests"] for window in report["windows"])
            self.errors += sum(window["errors"] for window in report["windows"])
            self.last[report["process"]] = {
                "generation": report["generation"],
                "states": {ident: said["state"] for ident, said in report["deployments"].items()},
            }

    def seen(self) -> dict[str, Any]:
        with self.changed:
            return {
                "reports": len(self.reports),
                "requests": self.requests,
                "errors": self.errors,
                "processes": list(self.last.values()),
            }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    plane: Plane

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def sent(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/seen":
            self.answer(200, json.dumps(self.plane.seen()).encode())
        elif parts.path == "/api/v1/serving/state":
            wait = float(parse_qs(parts.query).get("wait", ["0"])[0])
            tag, document = self.plane.wait(self.headers.get("If-None-Match"), wait)
            self.answer(200 if document else 304, document, ETag=tag)
        else:
            file = self.plane.artifacts / Path(parts.path).name
            self.answer(200, file.read_bytes()) if file.is_file() else self.answer(404)

    def do_PUT(self) -> None:
        self.answer(200, json.dumps(self.plane.publish(self.sent())).encode())

    def do_POST(self) -> None:
        self.plane.take(self.sent())
        self.answer(200, b"{}")


def main() -> None:
    Handler.plane = Plane(Path(sys.argv[2]))
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()


if __name__ == "__main__":
    main()
