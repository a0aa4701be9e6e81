"""Peers on the same models and rows: each chooses in its own environment, what it chose is measured like ours."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.optimize_parts.search import Search
from bench.optimize_peers.install import PEERS
from engine.errors import EngineError

OURS = "Slipway"
CHOSEN, NOTHING = "chosen", "nothing good enough"
# A peer looks at its clock between two tries at most; beyond this it is ended.
GRACE_S = 120.0


class PeerError(Exception):
    """A peer broke; the text is its last line."""


def installed(folder: Path | None) -> dict[str, Path]:
    """{name: home} of the peers under `folder`; one that is not there is named and left out."""
    homes: dict[str, Path] = {}
    if folder is None:
        return homes
    for name, peer in PEERS.items():
        home = folder.resolve() / name  # peers run in folders of their own
        if peer.version(home) is None:
            print(f"{name} is not installed in {folder}: left out", file=sys.stderr)
        else:
            homes[name] = home
    return homes


def compare(search: Search, homes: dict[str, Path], minutes: float) -> list[dict[str, Any]]:
    """A row for each peer on the model of `search`, which measures; it need not have run."""
    return [_row(search, name, home, minutes) for name, home in homes.items()]


def _row(search: Search, name: str, home: Path, minutes: float) -> dict[str, Any]:
    row: dict[str, Any] = {"model": search.subject.name, "who": f"{name} {PEERS[name].version(home)}"}
    began = time.monotonic()
    target = search.folder / f"{name}.onnx"
    try:
        try:
            told = _answer(search, name, home, target, minutes)
        finally:
            row["seconds"] = time.monotonic() - began
        row |= {"tried": told["tried"], "told": told}
        if told["chosen"] is None:
            return row | {"outcome": NOTHING}
        figures = search.figures(search.measure(target), search.judge(target))
    except (PeerError, EngineError) as error:
        return row | {"outcome": f"failed: {error}"}
    return row | figures | {"outcome": CHOSEN}


def _answer(search: Search, name: str, home: Path, target: Path, minutes: float) -> dict[str, Any]:
    """What it prints last. PeerError when it stops without an answer or does not stop in time."""
    subject, seconds = search.subject, round(60 * minutes)
    files = [path.resolve() for path in (subject.model, subject.train, subject.test, target)]
    command = [*PEERS[name].command(home, *files), "--most-seconds", str(seconds)]
    log = search.folder / f"{name}.log"
    with log.open("w") as errors:
        peer = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=search.folder,
            # What it leaves when it is ended goes with the search's folder.
            env={**os.environ, "TMPDIR": str(search.folder.resolve())},
            start_new_session=True,
        )
        try:
            printed, _ = peer.communicate(timeout=seconds + GRACE_S)
        except subprocess.TimeoutExpired as error:
            raise PeerError(f"still at it after {seconds + GRACE_S:.0f} s") from error
        finally:
            # Whatever it started goes with it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(peer.pid, signal.SIGKILL)
            peer.wait()
    if peer.returncode:
        raise PeerError(_last(log.read_text(errors="replace")) or f"ended with {peer.returncode}")
    try:
        answer: dict[str, Any] = json.loads(_last(printed))
    except ValueError as error:
        raise PeerError("it printed no answer") from error
    return answer


def _last(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def of_ours(row: dict[str, Any]) -> dict[str, Any]:
    """A search of ours as a row beside those of peers."""
    who = OURS if row["training"] else f"{OURS}, no training"
    known = {"model": row["model"], "who": who, "seconds": row["seconds"], "tried": sum(row["states"].values())}
    best = row["recommended"]
    return known | ({**best, "outcome": CHOSEN} if best else {"outcome": NOTHING})


def dominating(rows: list[dict[str, Any]], max_loss: float) -> list[str]:
    """Where a peer's choice is faster and smaller than one of ours and loses no more. Where we found nothing, ours is
    the original, and a peer's choice has to keep the promise."""
    found = []
    for ours in (row for row in rows if row["who"].startswith(OURS)):
        speed, size, loss = ours.get("speed", 1.0), ours.get("size", 1.0), ours.get("loss", max_loss)
        for peer in rows:
            if peer["model"] != ours["model"] or peer["who"].startswith(OURS) or peer["outcome"] != CHOSEN:
                continue
            if peer["speed"] > speed and peer["size"] < size and peer["loss"] <= loss:
                found.append(f"{peer['who']} dominates {ours['who']} on {peer['model']}")
    return found


def show(rows: list[dict[str, Any]], max_loss: float) -> None:
    print(f"\n{'model':10}{'who':28}{'speed':>8}{'size':>8}{'lost':>7}{'at most':>9}{'min':>6}{'tried':>7}  outcome")
    for row in rows:
        figures = f"{'–':>8}{'–':>8}{'–':>7}{'–':>9}"
        if row["outcome"] == CHOSEN:
            figures = f"{row['speed']:>7.2f}×{row['size']:>8.1%}{row['loss']:>7.2f}{row['loss_upper']:>9.2f}"
        took = f"{row['seconds'] / 60:>6.1f}{row.get('tried', '–'):>7}"
        broken = ", which breaks the promise" if row.get("loss", 0) > max_loss else ""
        print(f"{row['model']:10}{row['who']:28}{figures}{took}  {row['outcome'][:100]}{broken}")
    print("; ".join(dominating(rows, max_loss)) or "no peer's choice is faster and smaller than ours and loses no more")
