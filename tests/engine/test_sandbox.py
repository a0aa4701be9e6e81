"""The sandbox's promises: what comes back, what ends a child, and that nothing gets out."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import EngineError
from engine.sandbox import Limits, SandboxResult, available, parent, processes, run
from engine.sandbox.cgroup import MemoryGroup

HERE = Path(__file__).parent
Attempt = Callable[..., SandboxResult]

# A worker of its own, for interpreters and users other than those of the tests.
STARTER = """
import json, sys
from pathlib import Path

here = Path(sys.argv[1])
sys.path.insert(0, str(here))
from engine.sandbox import run

def go(name, params, **inputs):
    return run("hostile_tasks:" + name, params=params, inputs=inputs, scratch=here / "s", code=[here]).value

print(json.dumps([
    go("climb", {}),
    go("connect", {"port": 1, "unix": "/x", "abstract": "y"}),
    go("read_files", {"paths": ["/etc/hostname", "/proc/1/environ"], "folders": ["/tmp", "/"]}),
    go("write_files", {"folders": ["/tmp", str(here)]}, file=here / "start.py"),
    go("echo", {})["params"],
    go("subprocess_python", {}),
]))
"""

pytestmark = pytest.mark.skipif(not available().complete, reason="this kernel offers no isolation")


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    """Runs one of the hostile tasks."""

    def go(name: str, params: dict[str, Any] | None = None, **more: Any) -> SandboxResult:
        more.setdefault("inputs", {})
        more.setdefault("limits", Limits(seconds=20))
        return run(f"hostile_tasks:{name}", params=params or {}, scratch=tmp_path / "scratch", code=[HERE], **more)

    return go


def failure(attempt: Attempt, name: str, params: dict[str, Any] | None = None, **more: Any) -> EngineError:
    with pytest.raises(EngineError) as caught:
        attempt(name, params, **more)
    return caught.value


def below(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_result_and_files_come_back_when_the_task_returns(attempt: Attempt, tmp_path: Path) -> None:
    given = tmp_path / "given.txt"
    given.write_text("content")
    lines: list[str] = []
    result = attempt("echo", {"n": [1, "ä"]}, inputs={"one": given}, on_line=lines.append)
    assert result.value == {"params": {"n": [1, "ä"]}, "texts": {"one": "content"}}
    assert (result.files / "file.txt").read_text() == "written"
    assert lines == ["first line", "second line"]
    assert 0 < result.seconds < 20
    assert 5 < result.peak_memory_mb < 100


def test_old_output_is_gone_when_the_same_scratch_is_used_again(attempt: Attempt, tmp_path: Path) -> None:
    (tmp_path / "scratch" / "out").mkdir(parents=True)
    (tmp_path / "scratch" / "out" / "stale").write_text("x")
    assert [path.name for path in attempt("echo").files.iterdir()] == ["file.txt"]


def test_own_error_arrives_unchanged_when_the_task_raises_it(attempt: Attempt) -> None:
    error = failure(attempt, "own_error")
    assert (error.message, error.field, error.code) == ("Too wide.", "width", "wide")


def test_other_error_is_neutral_when_the_task_fails(attempt: Attempt) -> None:
    lines: list[str] = []
    error = failure(attempt, "other_error", on_line=lines.append)
    assert error.message == "ValueError: cannot open name.bin"
    assert error.code == "failed"
    assert any("Traceback" in line for line in lines)


def test_no_connection_succeeds_when_the_task_tries(attempt: Attempt, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        abstract = f"slipway-test-{os.getpid()}"
        unix.bind(str(tmp_path / "s"))
        unix.listen()
        with socket.socket(socket.AF_UNIX) as hidden:
            hidden.bind("\0" + abstract)
            hidden.listen()
            params = {"port": tcp.getsockname()[1], "unix": str(tmp_path / "s"), "abstract": abstract}
            results = attempt("connect", params).value
    assert "done" not in results.values(), results
    assert results["unix"] == results["vsock"] == "PermissionError"


def test_secrets_are_unreadable_when_the_task_opens_them(attempt: Attempt, tmp_path: Path) -> None:
    secret = tmp_path / "secret.key"
    secret.write_text("x")
    paths = [str(secret), str(HERE.parents[1] / "pyproject.toml"), "/etc/shadow", "/etc/hostname", "/dev/vda"]
    folders = [str(tmp_path), str(Path.home()), "/", "/etc", "/tmp", "/work", str(HERE.parents[1])]
    results = attempt("read_files", {"paths": paths, "folders": folders}).value
    assert set(results.values()) <= {"PermissionError", "FileNotFoundError"}, results


def test_nothing_changes_outside_scratch_when_the_task_writes(attempt: Attempt, tmp_path: Path) -> None:
    given = tmp_path / "given.txt"
    given.write_text("content")
    folders = [str(tmp_path), str(tmp_path / "scratch"), str(Path.home()), "/tmp", "/var/tmp", str(HERE)]
    results = attempt("write_files", {"folders": folders}, inputs={"file": given}).value
    assert "done" not in results.values(), results
    assert given.read_text() == "content"


def test_environment_and_processes_are_its_own_when_the_task_looks(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SLIPWAY_SECRET_KEY", "s3cret")
    monkeypatch.setenv("DATABASE_URL", "postgres://u:p@h/d")
    seen = attempt("environment").value
    assert "s3cret" not in str(seen) and "DATABASE_URL" not in seen["environment"]
    assert seen["environment"]["HOME"] == str(tmp_path / "scratch" / "work")
    assert seen["environment"]["OMP_NUM_THREADS"] == "1"
    if available().own_proc:
        assert seen["processes"] <= 3


def test_kernel_is_closed_when_the_task_climbs(attempt: Attempt) -> None:
    found = attempt("climb").value
    assert int(found.pop("capabilities"), 16) == 0
    assert found.pop("no_new_privileges") is True
    assert "done" not in {key: value for key, value in found.items() if key != "kill_parent"}.values(), found
    assert found["kill_parent"] != "done" or available().namespaces


def test_timeout_ends_it_when_the_task_sleeps(attempt: Attempt) -> None:
    started = time.monotonic()
    error = failure(attempt, "sleep", limits=Limits(seconds=1))
    assert error.code == "timeout" and "1 s" in error.message
    assert time.monotonic() - started < 4


def test_timeout_is_told_when_the_task_uses_up_its_processor_time(attempt: Attempt) -> None:
    assert failure(attempt, "busy", limits=Limits(seconds=30, cpu_seconds=1)).code == "timeout"


def test_stop_ends_it_when_the_event_is_set(attempt: Attempt) -> None:
    stop = threading.Event()
    lines: list[str] = []

    def seen(line: str) -> None:
        lines.append(line)
        stop.set()

    started = time.monotonic()
    assert failure(attempt, "sleep", stop=stop, on_line=seen).code == "stopped"
    assert lines == ["sleeping"] and time.monotonic() - started < 4


def test_memory_is_told_when_children_pass_the_limit_together(attempt: Attempt) -> None:
    error = failure(attempt, "eat_slowly", limits=Limits(seconds=30, memory_mb=250))
    assert error.code == "memory" and "250 MB" in error.message


def test_kernel_ends_it_when_memory_grows_between_two_looks(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = MemoryGroup.make(1 << 30)
    if trial is None:
        pytest.skip("no control group for memory may be made here")
    trial.remove()
    monkeypatch.setattr(processes, "resident_bytes", lambda pids: 0)  # as if it had not looked
    began = time.monotonic()
    error = failure(attempt, "eat_slowly", limits=Limits(seconds=30, memory_mb=250))
    assert error.code == "memory" and "250 MB" in error.message and time.monotonic() - began < 20
    assert not list(trial.folder.parent.glob(f"slipway-{os.getpid()}-*"))


def test_memory_is_told_when_one_allocation_is_too_large(attempt: Attempt) -> None:
    assert failure(attempt, "eat_at_once", limits=Limits(memory_mb=500)).code == "memory"


def test_no_process_is_left_when_the_task_forks_away(attempt: Attempt, tmp_path: Path) -> None:
    before = below(os.getpid())
    attempt("fork_away")
    alive = tmp_path / "scratch" / "work" / "alive.txt"
    written = alive.read_text()
    time.sleep(0.3)
    assert alive.read_text() == written
    assert below(os.getpid()) == before


def test_no_process_is_left_when_the_task_forks_without_end(attempt: Attempt) -> None:
    started = time.monotonic()
    error = failure(attempt, "fork_bomb", limits=Limits(seconds=10, processes=20))
    assert error.code in ("processes", "memory", "timeout")
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL", "SIGABRT"])
def test_crash_names_the_signal_when_the_task_dies(attempt: Attempt, name: str) -> None:
    error = failure(attempt, "crash", {"signal": name})
    assert error.code == "crash" and name in error.message


def test_crash_is_told_when_the_task_leaves_without_a_result(attempt: Attempt) -> None:
    error = failure(attempt, "leave")
    assert error.code == "crash" and "exit code 3" in error.message


@pytest.mark.parametrize("kind", ["nan", "list", "object", "large"])
def test_bad_result_is_refused_when_it_is_no_plain_json(attempt: Attempt, kind: str) -> None:
    assert failure(attempt, "bad_result", {"kind": kind}).code in ("failed", "result")


@pytest.mark.parametrize("text", ["{", "[1]", '{"value": 3}', '{"error": {}}', "[" * 100_000, ""])
def test_forged_answer_is_refused_when_it_is_malformed(attempt: Attempt, text: str) -> None:
    assert failure(attempt, "forged", {"text": text}).code in ("result", "crash")


@pytest.mark.parametrize("kind", ["symlink", "fifo", "hardlink"])
def test_output_is_refused_when_it_is_no_plain_file(attempt: Attempt, kind: str) -> None:
    assert failure(attempt, "link", {"kind": kind}).code in ("result", "failed")


def test_output_is_cut_when_the_task_floods_it(attempt: Attempt) -> None:
    lines: list[str] = []
    attempt("flood", on_line=lines.append, limits=Limits(seconds=20, log_lines=1000, line_chars=100))
    assert len(lines) == 1000 and max(map(len, lines)) <= 101
    assert "cut off" in lines[-1]


def test_disk_is_told_when_the_task_fills_it(attempt: Attempt) -> None:
    assert failure(attempt, "fill_disk", limits=Limits(disk_mb=20)).code == "disk"


def test_large_file_fails_when_it_passes_the_limit(attempt: Attempt) -> None:
    assert failure(attempt, "big_file", limits=Limits(file_mb=10)).code == "failed"


def test_python_runs_inside_when_the_task_starts_a_process(attempt: Attempt) -> None:
    assert attempt("subprocess_python").value == {"output": "42"}


def test_child_is_ended_when_on_line_raises(attempt: Attempt) -> None:
    def broken(line: str) -> None:
        raise RuntimeError("log is full")

    before = below(os.getpid())
    with pytest.raises(RuntimeError, match="log is full"):
        attempt("sleep", on_line=broken)
    assert below(os.getpid()) == before


def test_unknown_task_fails_when_it_does_not_exist(attempt: Attempt) -> None:
    assert "AttributeError" in failure(attempt, "nothing_of_the_kind").message


@pytest.mark.parametrize("who", ["nobody", "root without capabilities"])
def test_walls_are_the_same_when_the_worker_is_not_root(who: str, tmp_path: Path) -> None:
    system = Path("/usr/bin/python3.11")
    if os.geteuid() != 0 or not system.exists() or shutil.which("setpriv") is None:
        pytest.skip("needs root, setpriv and a Python that everybody may run")
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o777)
        for folder in ("engine", "engine/sandbox"):
            (Path(place) / folder).mkdir()
            for source in (HERE.parents[1] / folder).glob("*.py"):
                shutil.copy(source, Path(place) / folder)
        shutil.copy(HERE / "hostile_tasks.py", place)
        (Path(place) / "start.py").write_text(STARTER)
        become = {
            "nobody": ["--reuid=65534", "--regid=65534", "--clear-groups"],
            "root without capabilities": ["--bounding-set=-all", "--inh-caps=-all"],
        }
        command = ["setpriv", *become[who], str(system), "-B", f"{place}/start.py", place]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    climbed, connected, read, written, echoed, python = json.loads(done.stdout)
    assert int(climbed["capabilities"], 16) == 0 and climbed["no_new_privileges"]
    assert "done" not in [climbed["mount"], climbed["user_namespace"], *connected.values()]
    assert "done" not in [*read.values(), *written.values()]
    assert echoed == {} and python == {"output": "42"}


def test_scratch_works_when_it_lies_in_shared_memory() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        result = run("hostile_tasks:echo", params={}, inputs={}, scratch=Path(place) / "s", code=[HERE])
        assert (result.files / "file.txt").read_text() == "written"


@pytest.fixture
def poorer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Makes the child believe in a poorer kernel: the same code, with one function replaced."""
    root = tmp_path / "bare"
    for source in [*HERE.parents[1].glob("engine/*.py"), *HERE.parents[1].glob("engine/sandbox/*.py")]:
        target = root / source.relative_to(HERE.parents[1])
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.read_text())
    monkeypatch.setattr(parent, "CHILD", root / "engine" / "sandbox" / "child.py")
    monkeypatch.setattr(parent, "_ENGINE", root / "engine")

    def replace(module: str, function: str) -> None:
        path = root / "engine" / "sandbox" / f"{module}.py"
        path.write_text(f"{path.read_text()}\n\n{function}\n")

    return replace


def test_run_refuses_when_the_kernel_has_no_landlock(
    attempt: Attempt, poorer: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    poorer("landlock", "def version() -> int:\n    return 0")
    error = failure(attempt, "echo")
    assert error.code == "isolation" and "Landlock" in error.message
    monkeypatch.setenv("SLIPWAY_SANDBOX", "off")
    assert attempt("echo").value["params"] == {}


def test_run_refuses_when_the_kernel_has_no_network_isolation(
    attempt: Attempt, poorer: Callable[[str, str], None]
) -> None:
    poorer("kernel", "def enter_namespaces() -> str | None:\n    return None")
    poorer("seccomp", "def supported() -> bool:\n    return False")
    error = failure(attempt, "echo")
    assert error.code == "isolation" and "network isolation" in error.message


def test_walls_hold_when_the_kernel_has_no_namespaces(
    attempt: Attempt, poorer: Callable[[str, str], None], tmp_path: Path
) -> None:
    """Then the system-call filter alone keeps the network out, and attributes cannot be changed."""
    poorer("kernel", "def enter_namespaces() -> str | None:\n    return None")
    given = tmp_path / "given.txt"
    given.write_text("content")
    before = given.stat()
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        params = {"port": tcp.getsockname()[1], "unix": str(tmp_path / "s"), "abstract": "x"}
        assert set(attempt("connect", params).value.values()) == {"PermissionError"}
    attempt("write_files", {"folders": [str(tmp_path)]}, inputs={"file": given})
    assert (given.read_text(), given.stat().st_mode, given.stat().st_mtime) == (
        "content",
        before.st_mode,
        before.st_mtime,
    )
    children = below(os.getpid())
    attempt("fork_away")
    alive = tmp_path / "scratch" / "work" / "alive.txt"
    written = alive.read_text()
    time.sleep(0.3)
    assert alive.read_text() == written and below(os.getpid()) == children
    assert failure(attempt, "fork_bomb", limits=Limits(seconds=10, processes=20)).code == "processes"
