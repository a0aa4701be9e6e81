"""`up` under faults: small processes in place of the product's, everything else real."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slipway import paths

DRIVE = Path(__file__).with_name("drive.py")
ANSWERING = (
    "python -c \"import http.server as h, sys; H = type('H', (h.BaseHTTPRequestHandler,), "
    "{'do_GET': lambda s: (s.send_response(200), s.end_headers())}); "
    'h.HTTPServer((\'127.0.0.1\', int(sys.argv[1])), H).serve_forever()" "$SLIPWAY_PORT"'
)
# A child in a session of its own, as a sandbox has, behind a parent that does not care.
DEEP = (
    "python -c \"import subprocess, time; subprocess.Popen(['sleep', '991'], start_new_session=True); time.sleep(991)\""
)


class Run:
    """One `up` in a home of its own."""

    def __init__(self, home: Path, procfile: str, **env: str) -> None:
        self.home = home
        home.mkdir(exist_ok=True)
        lines = home / "Procfile"
        lines.write_text(procfile + "\n")
        ports = {}
        for name in ("SLIPWAY_PORT", "SLIPWAY_SERVING_PORT", "SLIPWAY_GRPC_PORT"):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                ports[name] = str(probe.getsockname()[1])
        away = {
            "DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none",
            "SLIPWAY_MLFLOW_DATABASE_URL": "sqlite:///none",
            "REDIS_URL": "redis://127.0.0.1:9/0",
        }
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SLIPWAY_")},
            **away,
            **ports,
            "SLIPWAY_HOME": str(home),
            "SLIPWAY_DEMO": "0",
            "PYTHONPATH": str(paths.REPOSITORY / "platform"),
            **env,
        }
        self.env = {name: value for name, value in self.env.items() if value != "-"}
        self.output = home / "output"
        with self.output.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, str(DRIVE), str(lines)],
                env=self.env,
                stdout=stream,
                stderr=subprocess.STDOUT,
                # Whoever runs the tests under nohup hands an ignored hang-up down, which `up` respects.
                preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
            )

    def said(self) -> str:
        return self.output.read_text()

    def wait_for(self, pattern: str, limit: float = 20.0) -> str:
        def found() -> bool:
            if re.search(pattern, self.said()):
                return True
            assert self.process.poll() is None, self.said()
            return False

        until(found, limit)
        return self.said()

    def all(self) -> list[int]:
        """Every living process that knows this home, `up` itself excepted."""
        mark = f"SLIPWAY_HOME={self.home}".encode()
        return [
            pid
            for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
            if pid not in (os.getpid(), self.process.pid) and mark in environ(pid)
        ]

    def one(self, text: str) -> int:
        """The process of this home whose command line contains `text`, and not the shell's."""
        until(lambda: any(text in command(pid) for pid in self.all()), 10)
        return next(pid for pid in self.all() if text in command(pid))


def environ(pid: int) -> list[bytes]:
    try:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return []
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def until(condition, limit: float) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


@pytest.fixture
def start(tmp_path):
    runs: list[Run] = []

    def begin(procfile: str, name: str = "home", **env: str) -> Run:
        runs.append(Run(tmp_path / name, procfile, **env))
        return runs[-1]

    yield begin
    for run in runs:
        run.process.kill()
        run.process.wait()
        until(lambda run=run: run.all() == [], 10)
        for suffix in ("", "-pg"):
            folder = paths.sockets(run.home)
            shutil.rmtree(folder.with_name(folder.name + suffix), ignore_errors=True)


def test_killed_process_comes_back_when_it_was_ready(start):
    run = start(f"web: {ANSWERING}")
    run.wait_for("Ctrl-C stops it")
    first = run.one("serve_forever")
    os.kill(first, signal.SIGKILL)
    run.wait_for(r"web ended \(killed by SIGKILL\); starting it again\.")
    until(lambda: any("serve_forever" in command(p) and p != first for p in run.all()), 5)


def test_descendants_are_ended_when_their_process_was_killed(start):
    run = start(f"worker: {DEEP}")
    run.wait_for("Ctrl-C stops it")
    deep = run.one("sleep 991")
    os.kill(run.one("import subprocess"), signal.SIGKILL)
    until(lambda: not environ(deep), 5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda s: s.name)
def test_nothing_is_left_when_stopped_by_a_signal(start, number):
    run = start(f"web: {ANSWERING}\nworker: {DEEP}")
    run.wait_for("Ctrl-C stops it")
    run.process.send_signal(number)
    assert run.process.wait(15) == 0
    assert run.said().endswith("Stopped.\n")
    assert run.all() == []


def test_nothing_is_left_when_up_itself_is_killed(start):
    run = start(f"web: {ANSWERING}\nworker: {DEEP}", DATABASE_URL="-", REDIS_URL="-")
    run.wait_for("Ctrl-C stops it")
    run.process.kill()
    run.process.wait()
    until(lambda: run.all() == [], 10)


def test_process_is_killed_when_it_ignores_the_stop(start):
    stubborn = 'python -c "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(991)"'
    run = start(f"worker: {stubborn}")
    run.wait_for("Ctrl-C stops it")
    started = time.monotonic()
    run.process.terminate()
    assert run.process.wait(15) == 0
    assert time.monotonic() - started < 10
    assert run.all() == []


def test_up_ends_with_a_sentence_when_a_process_fails_before_it_is_ready(start):
    run = start("web: python -c \"raise SystemExit('the reason')\"")
    assert run.process.wait(20) == 1
    assert "slipway: web ended before it was ready (exit status 1). Its log" in run.said()
    assert "the reason" in run.said()
    assert "Traceback" not in run.said()


def test_up_ends_with_a_sentence_when_a_process_keeps_failing(start, tmp_path):
    # Ready once; after that, every start fails.
    mark = tmp_path / "seen"
    code = (
        f"import pathlib, time; p = pathlib.Path('{mark}'); seen = p.exists(); p.touch(); "
        "seen or time.sleep(991); 1 / 0"
    )
    run = start(f'worker: python -c "{code}"')
    run.wait_for("Ctrl-C stops it")
    os.kill(run.one("time.sleep"), signal.SIGKILL)
    assert run.process.wait(20) == 1
    assert "worker ended 5 times within 30 seconds" in run.said()
    assert "ZeroDivisionError" in run.said()
    assert run.all() == []


def test_second_start_is_refused_when_one_runs(start, tmp_path):
    run = start("worker: sleep 991")
    run.wait_for("Ctrl-C stops it")
    second = subprocess.run(
        [sys.executable, str(DRIVE), str(run.home / "Procfile")], env=run.env, capture_output=True, text=True
    )
    assert second.returncode == 1
    assert second.stderr == f"slipway: Slipway already runs in {run.home}; stop it first or set SLIPWAY_HOME.\n"
    assert run.process.poll() is None


def test_stores_come_back_when_killed_under_up(start):
    run = start("worker: sleep 991", DATABASE_URL="-", REDIS_URL="-", SLIPWAY_MLFLOW_DATABASE_URL="-")
    run.wait_for("Ctrl-C stops it")
    for name, text in (("postgres", "postgres -D"), ("redis", "redis-server")):
        before = run.one(text)
        os.kill(before, signal.SIGKILL)
        run.wait_for(rf"{name} ended \(killed by SIGKILL\)")
        until(lambda text=text, before=before: any(text in command(p) and p != before for p in run.all()), 3)
    run.process.terminate()
    assert run.process.wait(15) == 0
    assert not (run.home / "pg" / "postmaster.pid").exists()
    assert run.all() == []


def test_environment_file_is_private_and_read_by_honcho_when_written(start):
    from honcho.environ import parse

    run = start("worker: sleep 991")
    run.wait_for("Ctrl-C stops it")
    file = run.home / "env"
    assert file.stat().st_mode & 0o777 == 0o600
    found = parse(file.read_text())
    assert found["SLIPWAY_HOME"] == str(run.home)
    assert found["DATABASE_URL"] == run.env["DATABASE_URL"]
    assert {"SLIPWAY_SECRET_KEY", "SLIPWAY_SERVING_TOKEN", "SLIPWAY_MLFLOW_URL"} <= found.keys()
    assert (run.home / "secrets").stat().st_mode & 0o777 == 0o700


def test_passwords_stay_off_command_lines_when_running(start):
    run = start("worker: sleep 991", DATABASE_URL="-", REDIS_URL="-", SLIPWAY_MLFLOW_DATABASE_URL="-")
    run.wait_for("Ctrl-C stops it")
    secrets = [p.read_text().strip() for p in (run.home / "secrets").iterdir() if p.name != "redis.conf"]
    lines = " ".join(command(pid) for pid in run.all())
    assert len(secrets) >= 5
    assert [secret for secret in secrets if secret in lines] == []
