"""Uploads that break: what the text says about the bytes."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from slipway.cli.transfer import plain_name
from tests.cli.conftest import run
from tests.cli.test_connection import MAIN, environment

SIZE = 8 * 1024 * 1024


class Breaking(BaseHTTPRequestHandler):
    """Hangs up in the middle of an upload, after all of it, or refuses it before it has come."""

    known: list[dict[str, int]] = []

    def log_message(self, *args: object) -> None: ...

    def do_GET(self) -> None:
        body = json.dumps({"next": None, "previous": None, "results": self.known}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        how = self.headers["Authorization"].split()[1]
        if how == "refused":
            body = b'{"detail": "The file is larger than 1 MB.", "errors": []}'
            self.wfile.write(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\n")
            self.wfile.write(b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        left = SIZE // 4 if how == "middle" else SIZE
        while left > 0:
            left -= len(self.rfile.read(min(left, 65536)))
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True


@pytest.fixture
def breaking() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Breaking)
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("how", "known", "code", "text"),
    [
        ("middle", [], 3, "leaves nothing behind. Run the same command again."),
        ("end", [], 3, "no version has its SHA-256"),
        ("end", [{"id": 1, "version": 7}], 3, "holds these bytes (version 7)"),
        ("refused", [], 7, "larger than 1 MB"),
    ],
)
def test_upload_says_what_to_do_when_it_breaks(
    breaking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, known: list, code: int, text: str
) -> None:
    monkeypatch.setattr(Breaking, "known", known)
    file = tmp_path / "big.onnx"
    file.write_bytes(b"\0" * SIZE)
    ran = run("versions", "upload", file, "--model", "big", url=breaking, token=how)
    assert ran.code == code and text in ran.err, ran


def test_names_are_plain_when_they_come_from_elsewhere() -> None:
    assert plain_name("../../etc/passwd") == "passwd"
    assert plain_name(".ssh") == "ssh"
    assert plain_name("größe 1.onnx") == "gr--e 1.onnx"
    assert plain_name("\x1b[2J.onnx") == "2J.onnx"
    assert plain_name("..") == "file"


def test_process_ends_quietly_when_nobody_reads_on(breaking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": index, "state": "firing", "title": "t" * 500, "text": "", "created_at": ""} for index in range(90)]
    monkeypatch.setattr(Breaking, "known", rows)
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, "alerts", "list", "--url", breaking, "-o", "json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.wait(20) != 0
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
