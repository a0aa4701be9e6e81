"""Running pip and uv: their environment, their progress, and their failures in one sentence."""

from __future__ import annotations

import ast
import os
import re
import selectors
import subprocess
import time
from pathlib import Path

STILL_EVERY = 15.0

# uv reads none of pip's settings: a machine that reaches packages through a mirror says so to pip.
PIP_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
    "trusted-host": "UV_INSECURE_HOST",
    "no-index": "UV_NO_INDEX",
}


class Failure(Exception):
    """One plain sentence."""


class Runner:
    """Runs commands one after the other and keeps the person informed."""

    def __init__(self) -> None:
        self.env = clean_environment()

    def say(self, text: str) -> None:
        print(text, flush=True)

    def __call__(self, command: list[str], *, echo: bool = False) -> str | None:
        """Run to the end; None when it went well, else everything that it wrote."""
        lines: list[str] = []
        said = started = time.monotonic()
        with (
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=self.env,
                text=True,
                errors="replace",
            ) as process,
            selectors.DefaultSelector() as selector,
        ):
            assert process.stdout is not None
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                if selector.select(STILL_EVERY - min(time.monotonic() - said, STILL_EVERY)):
                    line = process.stdout.readline()
                    if not line:
                        break
                    lines.append(line)
                    if echo and re.match(r"\s*(Resolved|Prepared|Installed|Using)\b", line):
                        self.say(f"  {line.strip()}")
                        said = time.monotonic()
                elif time.monotonic() - said >= STILL_EVERY:
                    said = time.monotonic()
                    self.say(f"  … still at it after {said - started:.0f} s")
        return None if process.returncode == 0 else "".join(lines) or f"exit status {process.returncode}"


def clean_environment() -> dict[str, str]:
    """Ours, without what would lead the environment's Python astray, and usable without a HOME."""
    drop = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "UV_PYTHON"}
    env = {name: value for name, value in os.environ.items() if name not in drop}
    home = env.get("HOME", "")
    if not home or not os.access(home, os.W_OK):
        env.pop("HOME", None)
        env |= {"PIP_NO_CACHE_DIR": "1", "UV_NO_CACHE": "1"}
    return env


def package_environment(python: Path) -> dict[str, str]:
    """pip's own settings in uv's spelling, for those that uv has not been told."""
    done = subprocess.run(
        [str(python), "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        env=clean_environment(),
        check=False,
    )
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        key, separator, value = line.partition("=")
        name = PIP_TO_UV.get(key.rpartition(".")[2])
        if not separator or name is None or name in os.environ:
            continue
        text = str(ast.literal_eval(value))
        found[name] = ",".join(text.split()) if name == "UV_FIND_LINKS" else " ".join(text.split())
    if "UV_INDEX" in found:
        # pip takes the best of all indexes; with every file pinned by its hash that is safe.
        found.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    return found


def reason(output: str) -> str:
    """What went wrong, in one sentence that says what to do."""
    if re.search(r"No space left|os error 28|Errno 28|Disk quota", output):
        return "The disk is full; free about 2 GB and run make again."
    if re.search(r"Permission denied|os error 13|Errno 13|Read-only file system", output):
        return "The folder .venv may not be written; run make as the owner of this folder."
    if re.search(r"hash(es)? mismatch|DO NOT MATCH THE HASHES|Hash mismatch", output, re.IGNORECASE):
        return "A downloaded package is not the one that the lock names; check your package mirror."
    network = r"resolv|connect|timed out|timeout|dns|network|unreachable|error sending request|proxy|certificate"
    if re.search(network, output, re.IGNORECASE):
        return "The packages could not be downloaded; check the network (or pip's index) and run make again."
    if re.search(r"No matching distribution|no version of|not found in the", output):
        return "The package index lacks a package that the lock names; check pip's index and run make again."
    lines = [line.strip() for line in output.splitlines() if line.strip()] or ["no reason given"]
    last = next((line for line in reversed(lines) if re.search(r"(?i)error\b.*:", line)), lines[-1])
    return f"Installing the packages failed: {last.rstrip('.')}."
