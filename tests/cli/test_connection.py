"""Addresses, tokens, logins; the process itself: what it imports, how it asks, how it ends."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from registry.models import Model
from slipway.cli import connection
from slipway.cli.errors import CliError
from tests.cli.conftest import Cli, run

ROOT = Path(__file__).resolve().parents[2]
MAIN = "from slipway.cli import app; app(prog_name='slipway')"
UNWANTED = {"django", "rest_framework", "celery", "httpx", "rich", "registry", "deployments", "monitoring", "workers"}


def environment(**more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SLIPWAY_", "DJANGO_", "DATABASE"))}
    return {**kept, "PYTHONPATH": f"{ROOT / 'platform'}:{ROOT}", "TERM": "dumb", **more}


def test_cli_loads_no_framework_when_imported() -> None:
    code = "import sys, slipway.cli; print(*{name.partition('.')[0] for name in sys.modules})"
    words = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert not UNWANTED & set(words.stdout.split())


def test_help_names_every_noun_and_exit_code_when_asked() -> None:
    shown = run("--help").out
    for word in ("models", "versions", "artifacts", "jobs", "endpoints", "rollout", "policies", "alerts", "doctor"):
        assert word in shown
    assert "3 cannot connect" in " ".join(shown.split())


def test_address_is_checked_when_read() -> None:
    assert connection.address(" HTTP://Host:8000/slipway/ ".lower()) == "http://host:8000/slipway"
    assert connection.address("http://[::1]:80") == "http://[::1]:80"
    for bad in ("host:8000", "ftp://host", "http://", "http://user:pw@host", "http://host:port", "http://a b"):
        with pytest.raises(CliError):
            connection.address(bad)


def test_token_file_stays_on_this_machine_when_the_address_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".slipway").mkdir()
    (tmp_path / ".slipway" / "admin-token").write_text("slip_local\n")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "deep" / "er")
    monkeypatch.delenv("SLIPWAY_HOME", raising=False)
    assert connection.connect(None, None, None).token == "slip_local"
    assert connection.connect("https://example.org", None, None).token == ""
    assert connection.connect(None, "slip_given", None).token == "slip_given"
    monkeypatch.setenv("SLIPWAY_HOME", str(tmp_path / "elsewhere"))
    assert connection.connect(None, None, None).token == ""
    assert connection.connect("http://h:1/x", None, None).serving == "http://h:8080"
    with pytest.raises(CliError):
        connection.connect(None, "two\nlines", None)


def test_exit_code_is_3_when_nobody_listens() -> None:
    ran = run("models", "list", url="http://127.0.0.1:9")
    assert ran.code == 3 and "Cannot reach http://127.0.0.1:9" in ran.err and "Traceback" not in ran.err
    assert run("doctor", url="http://127.0.0.1:9", env={"SLIPWAY_SERVING_URL": "http://127.0.0.1:9"}).code == 1
    assert run("models", "list", url="nonsense").code == 2
    assert run("models", "nonsense").code == 2


class Strange(BaseHTTPRequestHandler):
    """Not Slipway: a page, a redirect, a crash, half a sentence."""

    def log_message(self, *args: object) -> None: ...

    def do_GET(self) -> None:
        status = int(self.headers.get("Authorization", "Bearer 200").split()[1])
        if status == 0:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            return
        body = b'{"detail": "\\u001b[31mbroken", "request_id": "r-1"}' if status == 500 else b"<html>"
        self.send_response(status)
        self.send_header("Location", "https://example.org/")
        self.send_header("Content-Type", "application/problem+json" if status == 500 else "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_exit_code_fits_when_the_answer_is_not_slipways() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Strange)
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        for status, code, text in (
            ("200", 8, "not Slipway's API"),
            ("302", 3, "redirects to https://example.org/"),
            ("502", 8, "502"),
            ("404", 5, "404"),
            ("500", 8, "␛[31mbroken"),
            ("0", 3, "broke"),
        ):
            ran = run("jobs", "list", url=url, token=status)
            assert ran.code == code and text in ran.err and "\x1b" not in ran.err, ran
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.django_db(transaction=True)
def test_exit_codes_say_who_may_not_when_signed_in_wrongly(cli: Cli, live_server: Any, model: Model) -> None:
    anonymous = run("models", "list", url=live_server.url)
    assert anonymous.code == 4 and "slipway login" in anonymous.err
    assert run("models", "list", url=live_server.url, token="slip_wrong").code == 4
    cli("models", "create", "new", "--project", "vision", scope="read", code=4)
    cli("models", "create", "new", "--project", "vision", by="viewer", code=4)
    cli("models", "show", model.pk, by="stranger", code=5)
    refused = cli("models", "create", "digits", "--project", "nowhere", "--task", "magic", code=7)
    assert refused.err.count("\n") >= 2 and "  task: " in refused.err
    cli("models", "create", "no-project", code=2)


@pytest.mark.django_db(transaction=True)
def test_login_stores_a_token_that_works_and_no_other(
    cli: Cli, live_server: Any, token_of: Callable[..., str], model: Model, own_config: Path
) -> None:
    file = own_config / "slipway" / "config.json"
    assert run("login", "--url", live_server.url, stdin="slip_wrong\n").code == 4
    assert not file.exists()
    token = token_of("viewer")
    ran = run("login", "--url", live_server.url, "--serving", "http://127.0.0.1:9", stdin=f"{token}\n")
    assert ran.code == 0 and token not in ran.out + ran.err
    assert file.stat().st_mode & 0o777 == 0o600 and file.parent.stat().st_mode & 0o777 == 0o700
    assert json.loads(file.read_text())["current"] == live_server.url
    assert "digits" in run("models", "list").out
    file.write_text("{")
    assert "damaged" in run("models", "list").err


@pytest.mark.django_db(transaction=True)
def test_doctor_tells_good_from_bad_when_parts_are_missing(cli: Cli, live_server: Any, serving: str) -> None:
    ran = cli("doctor", "--serving", serving, "-o", "json", code=1)
    states = {row["check"]: row["state"] for row in ran.json}
    assert states.pop("MLflow") == "bad"  # this server has no /mlflow/
    assert states.pop("models") == "attention" and set(states.values()) == {"good"}, ran.json
    assert {"address", "database", "redis", "token", "rights", "clock", "serving"} <= set(states)
    rights = {row["check"]: row["state"] for row in cli("doctor", "-o", "json", scope="read", code=1).json}
    assert rights["rights"] == "attention" and rights["serving"] == "bad"
    assert not Model.objects.exists()


@pytest.mark.django_db(transaction=True)
def until_asleep(pid: int) -> None:
    """Until a process has waited for its terminal a while: the question is on screen before it listens."""
    asleep, deadline = 0, time.monotonic() + 20
    while asleep < 6 and time.monotonic() < deadline:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        asleep = asleep + 1 if state == "S" else 0
        time.sleep(0.05)


def test_process_asks_before_it_archives_and_ends_quietly_when_interrupted(
    live_server: Any, token_of: Callable[..., str], model: Model
) -> None:
    env = environment(SLIPWAY_URL=live_server.url, SLIPWAY_TOKEN=token_of("root"))

    def talk(answer: bytes | None) -> tuple[int, str]:
        parent, child = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-c", MAIN, "models", "archive", "digits"],
            stdin=child, stdout=child, stderr=child, env=env, start_new_session=True,
            # A shell's background job hands an ignored Ctrl-C down to everything it starts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        os.close(child)
        seen, deadline, answered = b"", time.monotonic() + 60, False
        while time.monotonic() < deadline:
            if not select.select([parent], [], [], 1)[0]:
                continue
            try:
                seen += os.read(parent, 4096)
            except OSError:
                break  # the other side is closed
            if b"[y/N]" in seen and not answered:
                answered = True
                if answer is None:
                    until_asleep(process.pid)
                    process.send_signal(signal.SIGINT)
                else:
                    os.write(parent, answer)
        code = process.wait(30)
        os.close(parent)
        return code, seen.decode()

    code, text = talk(b"n\n")
    assert code == 1 and "Nothing was changed." in text and "with 0 versions?" in text, (code, text)
    code, text = talk(None)
    assert code == 130 and "Traceback" not in text and "Aborted" not in text, (code, text)
    assert Model.objects.get().archived_at is None
    code, text = talk(b"y\n")
    assert code == 0, text
    assert Model.objects.get().archived_at is not None
