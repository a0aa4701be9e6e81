"""What a sandboxed child may use, what it gives back, and what the kernel offers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Limits:
    """Ceilings of one run; every one of them ends the child when it is passed.

    seconds: wall clock. memory_mb: resident memory of all its processes together (watched, and bounded by a
    control group where one can be made; an address-space limit breaks Java). data_mb: private memory one
    process may ask for, `None` means memory_mb + 1024. cpu_seconds: CPU time of one process, `None` means 4 x
    seconds. file_mb: one file. disk_mb: everything in the scratch folder. processes, open_files: counts.
    threads: what OMP_NUM_THREADS says. result_mb: the JSON answer. log_lines, line_chars: the output passed
    on.
    """

    seconds: float = 300
    memory_mb: int = 4096
    data_mb: int | None = None
    cpu_seconds: int | None = None
    file_mb: int = 4096
    disk_mb: int = 8192
    processes: int = 64
    open_files: int = 1024
    threads: int = 1
    result_mb: int = 16
    log_lines: int = 20_000
    line_chars: int = 2_000


@dataclass(frozen=True, slots=True)
class Isolation:
    """What this kernel gives an unprivileged child; `complete` is what `run` insists on."""

    namespaces: bool
    user_namespace: bool
    landlock: int
    seccomp: bool
    own_proc: bool

    @property
    def network(self) -> bool:
        """No way out: an empty network namespace, or a filter that refuses every socket."""
        return self.namespaces or self.seccomp

    @property
    def files(self) -> bool:
        return self.landlock > 0

    @property
    def complete(self) -> bool:
        return self.network and self.files

    @property
    def missing(self) -> list[str]:
        """Plain names of what is missing, for the message a person reads."""
        return [
            name
            for name, there in (("network isolation", self.network), ("Landlock file rules", self.files))
            if not there
        ]


@dataclass(frozen=True, slots=True)
class SandboxResult:
    """value: the dict the task returned. files: its output folder. seconds: wall clock.
    peak_memory_mb: largest resident memory seen, all its processes together."""

    value: dict[str, Any]
    files: Path
    seconds: float
    peak_memory_mb: float
