"""One model in a process of its own, timed in rounds on command, so that its memory is its own.

`Subject` asks, by a line for each round; `main` answers, by a line of JSON for each.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from engine.errors import EngineError

_ROUND_SECONDS = 0.2
# What begins within this time gets a fresh process for each round.
_QUICK_SECONDS = 1.0
_MOST_CALLS = 2_000
_WARM_UP = 5
# Within the sandbox this package may be read, but not the folder that it lies in, where Python would look for it.
_PACKAGE = Path(__file__).parents[1]
_START = """
import sys
from importlib import util
spec = util.spec_from_file_location("engine", sys.argv[1] + "/__init__.py", submodule_search_locations=[sys.argv[1]])
sys.modules["engine"] = util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["engine"])
from engine.evaluate import subject
subject.answer(*sys.argv[2:])
"""


class Subject:
    """A loaded model that answers in rounds. To be closed.

    Where a process's memory comes to lie makes all of its calls faster or slower, by a twentieth for a small network:
    more than what rounds of one process differ by. So each round has a process of its own, unless loading takes long.
    """

    def __init__(self, model: Path, feeds: Path, threads: int) -> None:
        self._command = [sys.executable, "-I", "-c", _START, str(_PACKAGE), str(model), str(feeds), str(threads)]
        self.rounds: list[list[float]] = []
        self.peak_memory_mb = 0.0
        self._begin()

    def _begin(self) -> None:
        began = time.monotonic()
        self.child = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._hear()
        self._quick = time.monotonic() - began <= _QUICK_SECONDS

    def round(self) -> None:
        """Calls for about 0.2 s, at least three; their times in seconds join `rounds`."""
        if self.rounds and self._quick:
            self.close()
            self._begin()
        assert self.child.stdin is not None
        self.child.stdin.write("round\n")
        self.child.stdin.flush()
        self.rounds.append(self._hear()["times"])

    def _hear(self) -> Any:
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        if not line:
            raise EngineError("The model ended its process while it was measured.", code="measure")
        said = json.loads(line)
        if "error" in said:
            raise EngineError(said["error"], code="measure")
        self.peak_memory_mb = max(self.peak_memory_mb, said["peak_memory_mb"])
        return said

    def times(self) -> list[float]:
        return [each for part in self.rounds for each in part]

    def latency(self) -> dict[str, float]:
        """Milliseconds of one call."""
        import numpy as np

        p50, p95, p99 = np.percentile(self.times(), [50, 95, 99]) * 1000
        return {"p50": float(p50), "p95": float(p95), "p99": float(p99)}

    def close(self) -> None:
        self.child.kill()
        self.child.communicate()


def ratio(model: Subject, reference: Subject) -> tuple[float, float, float]:
    """(median, low, high) of the rounds' ratios of median times. The interval covers the median of such ratios with at
    least 95 %, whatever their distribution: order statistics by the binomial (Conover 1999, section 3.2)."""
    import numpy as np
    from scipy.stats import binom

    pairs = zip(model.rounds, reference.rounds, strict=True)
    ratios = np.sort([np.median(first) / np.median(second) for first, second in pairs])
    below = max(0, int(binom.ppf(0.025, len(ratios), 0.5)) - 1)
    return float(np.median(ratios)), float(ratios[below]), float(ratios[len(ratios) - 1 - below])


def _peak_memory_mb() -> float:
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024


def _say(**said: Any) -> None:
    print(json.dumps({**said, "peak_memory_mb": _peak_memory_mb()}), flush=True)


def main(model: str, feeds: str, threads: str) -> None:
    """Loads the model, says so, then answers each line with the times of one round."""
    import numpy as np

    from engine.scan import onnx_run

    with np.load(feeds, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    count = max(int(name.split(":")[0]) for name in arrays) + 1
    calls: list[dict[str, Any]] = [{} for _ in range(count)]
    for name, array in arrays.items():
        place, _, key = name.partition(":")
        calls[int(place)][key] = array.astype(object) if array.dtype.kind == "U" else array
    session = onnx_run.session(Path(model).read_bytes(), int(threads))
    for number in range(_WARM_UP):
        session.run(None, calls[number % count])
    _say(ready=True)
    for _ in sys.stdin:
        times: list[float] = []
        end = time.perf_counter() + _ROUND_SECONDS
        while len(times) < _MOST_CALLS and (time.perf_counter() < end or len(times) < 3):
            feed = calls[len(times) % count]
            started = time.perf_counter()
            session.run(None, feed)
            times.append(time.perf_counter() - started)
        _say(times=times)


def answer(model: str, feeds: str, threads: str) -> None:
    """`main`, with what goes wrong said in a line."""
    try:
        main(model, feeds, threads)
    except EngineError as error:
        _say(error=error.message)
    except Exception as error:
        _say(error=f"The model could not be measured: {type(error).__name__}.")
        raise
