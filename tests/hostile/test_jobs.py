"""A model that fights back, in a real export job: stopped, named in the job's log, and nothing of it left."""

from __future__ import annotations

import json
import os
import pickle
import socket
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from registry.models import Version
from registry.services import export_request
from slipway import paths
from slipway.jobs.kernel import execute
from slipway.jobs.kinds import kind_of
from slipway.jobs.models import Job, JobLog, State
from tests.engine.test_scan_source import Reaches
from tests.hostile.conftest import stored
from tests.hostile.table import described
from tests.hostile.test_ingest import ingested, registered

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("use_mlflow")]

# What runs when the model is loaded. It says what came of each try in the job's log, by its parent's output.
ATTACK = """
import json, os, signal, socket, sys, time
given = json.loads(sys.argv[1])
said = os.open(f"/proc/{os.getppid()}/fd/1", os.O_WRONLY)
def attempt(name, action):
    try:
        found = action()
    except BaseException as error:
        found = type(error).__name__
    os.write(said, f"{name}: {found}\\n".encode())
def parents():
    pid, seen = os.getppid(), []
    while pid > 1:
        seen.append(pid)
        pid = int(open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[1])
    return seen
def passwords():
    places = [f"/proc/{pid}/environ" for pid in [given["worker"], *parents(), 1]] + ["/proc/self/environ"]
    found = []
    for place in places:
        try:
            found += [line for line in open(place, "rb").read().split(b"\\0") if given["password"].encode() in line]
        except OSError:
            pass
    return "read" if found or given["password"] in str(dict(os.environ)) else "no password"
def daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while True:
                open("alive", "w").write(str(time.time()))
                time.sleep(0.02)
        os._exit(0)
    return "started"
attempt("socket", lambda: socket.create_connection(("127.0.0.1", given["port"]), 1) and "connected")
attempt("password", passwords)
attempt("home", lambda: os.listdir(given["home"]))
attempt("secret", lambda: open(given["secret"]).read())
attempt("write", lambda: open(given["outside"], "w").write("x"))
attempt("signal", lambda: os.kill(given["worker"], signal.SIGTERM))
attempt("daemon", daemon)
exec(given["end"])
"""
ENDS = {
    "while True:\n try:\n  os.fork()\n except OSError:\n  time.sleep(0.01)": "more than 64 processes",
    "kept = []\nwhile True:\n kept.append(b'x' * (64 << 20))": "memory",
}


def hostile_pickle(mark: str, given: dict[str, Any]) -> bytes:
    """Starts a program by a helper of the standard library that is on nobody's list."""
    arguments = ["-c", f"# {mark}\n{ATTACK}", json.dumps(given)]
    return pickle.dumps(Reaches(uuid._get_command_stdout, Path(sys.executable).name, *arguments))  # type: ignore[attr-defined]


def processes(mark: str) -> list[int]:
    """Everything that runs with the mark in its command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if mark.encode() in line:
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize(("end", "named"), ENDS.items(), ids=["fork bomb", "memory"])
def test_job_names_what_the_model_did_and_nothing_is_left_when_it_fights_back(
    end: str, named: str, project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.export.EXPORT_LIMITS", limits())
    mark, secret, outside = f"hostile-{uuid.uuid4().hex}", tmp_path / "secret.key", tmp_path / "outside"
    secret.write_text("s3cret")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        given = {
            "port": listening.getsockname()[1], "worker": os.getpid(), "home": str(Path.home()), "end": end,
            "password": os.environ["DATABASE_URL"], "secret": str(secret), "outside": str(outside),
        }  # fmt: skip
        version = taken_in(project, hostile_pickle(mark, given))
        [job] = export_request(actor=None, version=version, exporters=["onnx"])
        started = time.monotonic()
        execute(kind_of("export"), job.pk)
        assert time.monotonic() - started < 30
        with pytest.raises(BlockingIOError):
            listening.accept()
    job.refresh_from_db()
    said = "\n".join(JobLog.objects.filter(job=job).values_list("text", flat=True))
    assert job.state == State.FAILED and named in job.reason and named in said, (job.reason, said)
    assert {"password: no password", "daemon: started"} <= set(said.splitlines()), said
    for name in ("socket", "home", "secret", "write", "signal"):
        [line] = [line for line in said.splitlines() if line.startswith(f"{name}: ")]
        assert line.endswith("Error"), line
    assert processes(mark) == [] and not outside.exists() and secret.read_text() == "s3cret"
    assert stored(paths.home()) == set() and list(paths.scratch().iterdir()) == []
    assert not version.artifacts.exclude(format="source").exists()


def limits() -> Any:
    """The export's own, but for a memory that a machine of tests has."""
    import dataclasses

    from workers.export import EXPORT_LIMITS

    return dataclasses.replace(EXPORT_LIMITS, memory_mb=1024)


def taken_in(project: Any, content: bytes) -> Version:
    """The version is suspicious: it waits for somebody to ask for an export, and somebody does."""
    columns = json.dumps([{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 4]}}])
    mlmodel = {**json.loads(described("model.pkl")), "signature": {"inputs": columns, "outputs": columns}}
    files = {"MLmodel": json.dumps(mlmodel).encode(), "model.pkl": content}
    version = registered(project, f"fights-{uuid.uuid4().hex[:8]}", files)
    version, job = ingested(version)
    assert (job.state, version.state) == (State.SUCCEEDED, "ready"), (job.reason, version.reason)
    assert version.artifacts.get().verdict == "suspicious" and Job.objects.count() == 1
    return version
