"""A small real HTTP server that keeps the control plane's side of the serving contract."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


def deployment(
    ident: str,
    data: bytes,
    weight: float = 100,
    mode: str = "live",
    version: str | None = None,
    signature: Any = None,
    form: str = "onnx",
) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    signed = {} if signature is None else {"signature": signature}
    return {
        "id": ident,
        "version": version or ident,
        "weight": weight,
        "mode": mode,
        "artifact": {"sha256": digest, "format": form, "size": len(data), **signed},
    }


def endpoint(name: str, *deployments: dict[str, Any], tokens: list[str] | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "access": "open" if tokens is None else "token",
        "tokens": [hashlib.sha256(t.encode()).hexdigest() for t in tokens or []],
        "deployments": list(deployments),
    }


class ControlPlane:
    """Long poll, artifacts, idempotent reports. `port` is kept over stop and start."""

    def __init__(self) -> None:
        self.generation = 0
        self.document: Any = None
        self.artifacts: dict[str, bytes] = {}
        self.accepted: dict[tuple[str, int], dict[str, Any]] = {}
        self.received: list[dict[str, Any]] = []
        self.on_report: Callable[[dict[str, Any]], object] = lambda report: None
        self.lose_answers = 0  # take a report, then hang up without an answer
        self.refuse_reports = 0  # answer 503
        self.tokens_seen: set[str] = set()
        self.downloads: list[str] = []
        self.port = 0
        self._changed = threading.Condition()
        self._server: ThreadingHTTPServer | None = None
        self._stopping = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, data: bytes) -> bytes:
        self.artifacts[hashlib.sha256(data).hexdigest()] = data
        return data

    def publish(self, *endpoints: dict[str, Any], **extra: Any) -> int:
        with self._changed:
            self.generation += 1
            self.document = {"generation": self.generation, "endpoints": list(endpoints), **extra}
            self._changed.notify_all()
            return self.generation

    def states(self) -> list[dict[str, Any]]:
        """The last reported deployments of each process."""
        last: dict[int, dict[str, Any]] = {}
        for report in list(self.received):
            last[report["process"]] = report
        return [report["deployments"] for report in last.values()]

    def state(self, ident: str) -> dict[str, Any]:
        """What was last said of one deployment; empty when nothing."""
        return next((s[ident] for s in self.states() if ident in s), {})

    def observed(self, generation: int, processes: int = 1) -> bool:
        last: dict[int, int] = {}
        for report in list(self.received):
            last[report["process"]] = report["generation"]
        return len(last) >= processes and all(g == generation for g in last.values())

    def start(self) -> None:
        plane = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                pass

            def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                plane.tokens_seen.add(self.headers.get("Authorization", ""))
                parts = urlsplit(self.path)
                if parts.path == "/api/v1/serving/state":
                    self.state(float(parse_qs(parts.query)["wait"][0]))
                    return
                digest = parts.path.rsplit("/", 1)[1]
                plane.downloads.append(digest)
                data = plane.artifacts.get(digest)
                self.answer(404 if data is None else 200, data or b"")

            def state(self, wait: float) -> None:
                known = self.headers.get("If-None-Match")
                with plane._changed:
                    plane._changed.wait_for(
                        lambda: plane._stopping or (plane.document is not None and known != f'"{plane.generation}"'),
                        timeout=wait,
                    )
                    tag = f'"{plane.generation}"'
                    if plane._stopping:
                        self.close_connection = True
                        return
                    if plane.document is None or known == tag:
                        self.answer(304)
                        return
                    body = json.dumps(plane.document).encode()
                self.answer(200, body, ETag=tag)

            def do_POST(self) -> None:
                report = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if plane.refuse_reports > 0:
                    plane.refuse_reports -= 1
                    self.answer(503)
                    return
                plane.on_report(report)
                plane.received.append(report)
                plane.accepted.setdefault((report["instance"], report["seq"]), report)
                if plane.lose_answers > 0:
                    plane.lose_answers -= 1
                    self.close_connection = True
                    return
                self.answer(200, b"{}")

        self._stopping = False
        ThreadingHTTPServer.allow_reuse_address = True
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
