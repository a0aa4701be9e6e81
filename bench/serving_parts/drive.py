"""Load: wrk for HTTP/1.1, h2load where HTTP/2 has to be compared with it."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.serving_parts.processes import BenchError, clean_env, tool
from bench.serving_parts.requests import Request

THREADS = 2
TIMEOUT_S = 10
# The request is made once and sent unchanged, unless there are several. With a pause, every connection waits
# between an answer and its next request; wrk's latencies leave the pause out.
_SCRIPT = """
wrk.method = "POST"
local threads = {{}}
function setup(thread) table.insert(threads, thread) end
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
file:close()
{headers}
{paths}
{pause}
{watch}
function done(summary, latency, requests)
  local e = summary.errors
  print(string.format(
    'RESULT {{"requests": %d, "micros": %d, "p50": %d, "p99": %d, "max": %d, "status": %d, "socket": %d}}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    e.status, e.connect + e.read + e.write + e.timeout))
  for _, thread in ipairs(threads) do
    if thread:get("refused") then print("REFUSED " .. thread:get("refused")) end
  end
end
"""
# Only where errors were met before: looking at every answer costs the client time.
_WATCH = """
function response(status, headers, body)
  if status >= 400 and not refused then refused = status .. " " .. body:sub(1, 200) end
end
"""
_PATHS = """
local paths = {{{paths}}}
local made, at = {{}}, 0
function init(args)
  for i, path in ipairs(paths) do made[i] = wrk.format(nil, path) end
end
function request()
  at = at % #made + 1
  return made[at]
end
"""


@dataclass(frozen=True)
class Load:
    """What came of one run. `errors` are answers of status 400 and more, and failures of the connection; they
    are no part of the rate. `why` is an answer that was such an error."""

    connections: int
    rps: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    errors: int
    requests: int
    why: str = ""

    def row(self) -> dict[str, Any]:
        return asdict(self)


def _quoted(text: str) -> str:
    return json.dumps(text)


def wrk(
    port: int,
    request: Request,
    connections: int,
    seconds: float,
    pause_ms: int = 0,
    paths: Sequence[str] = (),
) -> Load:
    """Drive a port with one request, or with one for each of `paths` in turn. Raises BenchError."""
    run = partial(_wrk, port, request, connections, pause_ms=pause_ms, paths=paths)
    counted, _ = run(seconds)
    why = ""
    if counted["status"] or counted["socket"]:
        again, why = run(1, watch=True)
        why = why or f"{again['socket']} failures of connections"
    return Load(
        connections,
        rps=round((counted["requests"] - counted["status"]) / counted["micros"] * 1e6, 1),
        p50_ms=round(counted["p50"] / 1000, 3),
        p99_ms=round(counted["p99"] / 1000, 3),
        max_ms=round(counted["max"] / 1000, 3),
        errors=counted["status"] + counted["socket"],
        requests=counted["requests"],
        why=why,
    )


def _wrk(
    port: int,
    request: Request,
    connections: int,
    seconds: float,
    pause_ms: int,
    paths: Sequence[str],
    watch: bool = False,
) -> tuple[dict[str, int], str]:
    """wrk's own counts, and the first error's answer if it was to be looked at. Raises BenchError."""
    with tempfile.TemporaryDirectory(prefix="bench-wrk-") as folder:
        body, script = Path(folder, "body"), Path(folder, "script.lua")
        body.write_bytes(request.body)
        headers = "\n".join(f"wrk.headers[{_quoted(k)}] = {_quoted(v)}" for k, v in request.headers.items())
        script.write_text(
            _SCRIPT.format(
                body=body,
                headers=headers,
                paths=_PATHS.format(paths=",".join(_quoted(path) for path in paths)) if paths else "",
                pause=f"function delay() return {pause_ms} end" if pause_ms else "",
                watch=_WATCH if watch else "",
            )
        )
        command = [tool("wrk"), f"-t{min(THREADS, connections)}", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
        command += ["--timeout", f"{TIMEOUT_S}s", "--latency", "-s", str(script)]
        done = _run([*command, f"http://127.0.0.1:{port}{request.path}"], seconds)
    found = re.search(r"^RESULT (.*)$", done.stdout, re.MULTILINE)
    if done.returncode or found is None:
        raise BenchError(f"wrk: {(done.stderr or done.stdout).strip()[-300:]}")
    refused = re.search(r"^REFUSED (.*)$", done.stdout, re.MULTILINE)
    return json.loads(found[1]), refused[1] if refused else ""


def _run(command: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=clean_env(), capture_output=True, text=True, errors="replace", timeout=seconds + 60, check=False
    )


@dataclass(frozen=True)
class Counted:
    """What came of one run of h2load: it gives means, and bytes of bodies, but no percentiles."""

    rps: float
    mean_ms: float
    errors: int
    requests: int
    body_bytes: float


_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def h2load(port: int, request: Request, connections: int, seconds: float, http1: bool) -> Counted:
    """Drive a port over HTTP/2 (one request at a time on a connection), or HTTP/1.1. Raises BenchError."""
    with tempfile.NamedTemporaryFile(prefix="bench-h2load-") as body:
        body.write(request.body)
        body.flush()
        command = [tool("h2load"), f"-t{min(THREADS, connections)}", f"-c{connections}", "-m1"]
        command += [f"-D{max(1, round(seconds))}", f"-d{body.name}"]
        command += ["--h1"] if http1 else []
        command += [word for key, value in request.headers.items() for word in ("-H", f"{key}: {value}")]
        done = _run([*command, f"http://127.0.0.1:{port}{request.path}"], seconds)
    text = done.stdout
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", text)
    counts = re.search(r"requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
    mean = re.search(r"time for request: +\S+ +\S+ +([\d.]+)(us|ms|s)", text)
    data = re.search(r"traffic: .*?\((\d+)\) data", text)
    if done.returncode or not (rate and counts and mean and data):
        raise BenchError(f"h2load: {(done.stderr or text).strip()[-300:]}")
    answered, failed, errored, late = (int(word) for word in counts.groups())
    return Counted(
        rps=float(rate[1]),
        mean_ms=round(float(mean[1]) * _UNITS[mean[2]], 3),
        errors=failed + errored + late,
        requests=answered,
        body_bytes=int(data[1]) / max(1, answered),
    )
