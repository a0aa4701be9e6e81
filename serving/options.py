"""Command line and environment of the server; a flag wins over its variable."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


class OptionsError(ValueError):
    """The options cannot work; the text is one sentence for the person who started the server."""


@dataclass(frozen=True)
class Options:
    """How to run. Sizes in bytes, times in seconds."""

    host: str = "127.0.0.1"
    port: int = 8080
    grpc_port: int | None = None  # None: gRPC is off
    processes: int = 1
    models: Path | None = None
    control_url: str | None = None
    token_file: Path | None = None
    token: str | None = None
    home: Path | None = None
    trust_keys: Path | None = None
    pmml_python: Path | None = None  # of the prepared environment in which PMML is scored; None: PMML is refused
    pmml_heap_mb: int = 512
    pmml_run_s: int = 30  # the most that one run of a PMML model may take
    max_body: int = 64 << 20
    drain_s: float = 10.0
    keep_alive_s: float = 75.0
    read_s: float = 30.0
    gc_grace_s: float = 600.0

    def read_token(self) -> str | None:
        """The serving token; its file is read anew each time, so that a rotated one takes effect at once.

        Raises OSError when the file cannot be read."""
        if self.token_file is not None:
            return self.token_file.read_text(encoding="utf-8").strip() or None
        return self.token


def _number(text: str, what: str, low: int, high: int) -> int:
    try:
        value = int(text)
    except ValueError:
        raise OptionsError(f"{what} must be a whole number, not {text!r}.") from None
    if not low <= value <= high:
        raise OptionsError(f"{what} must be between {low} and {high}, not {value}.")
    return value


def parse_options(argv: Sequence[str], env: Mapping[str, str]) -> Options:
    """Options from flags and environment. Raises OptionsError; argparse itself exits with 2."""
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(prog="python -m serving", description="V2 inference server.")
    add = parser.add_argument
    add("--host", default=env.get("SLIPWAY_HOST", "127.0.0.1"), help="address to listen on")
    add("--port", default=env.get("SLIPWAY_SERVING_PORT", "8080"), help="port to listen on; 0 picks one")
    add("--grpc-port", default=env.get("SLIPWAY_GRPC_PORT") or "8081", help="gRPC's port; 0 picks one, off for none")
    add("--processes", default=env.get("SLIPWAY_SERVING_PROCESSES") or str(cores), help="default: cores")
    add("--models", default=None, help="folder with NAME.onnx or NAME/VERSION/model.onnx")
    add("--control-url", default=env.get("SLIPWAY_CONTROL_URL"), help="control plane, e.g. http://host:8000")
    add("--token-file", default=None, help="file holding the serving token")
    add("--home", default=env.get("SLIPWAY_SERVING_HOME"), help="keeps state.json and artifacts/")
    add("--trust-keys", default=None, help="PEM file of public keys: serve only what one of them signed")
    pmml_help = "interpreter of the environment pmml: serve PMML by a JVM scorer"
    add("--pmml-python", default=env.get("SLIPWAY_PMML_PYTHON") or None, help=pmml_help)
    add("--pmml-heap-mb", default=env.get("SLIPWAY_PMML_HEAP_MB") or "512", help="Java heap of that scorer, in MiB")
    run_help = "how long one run of a PMML model may take before the scorer is replaced"
    add("--pmml-run-s", default=env.get("SLIPWAY_PMML_RUN_S") or "30", help=run_help)
    add("--max-body-mb", default="64", help="largest request body, in MiB")
    add("--drain-s", default="10", help="how long SIGTERM waits for requests in flight")
    add("--keep-alive-s", default="75", help="how long a connection may rest between two requests")
    add("--read-s", default="30", help="how long a head, a body beyond its size, or reading an answer may take")
    found = parser.parse_args(argv)

    models = Path(found.models) if found.models else None
    home = Path(found.home) if found.home else None
    # A folder named on the command line is a plain wish for the standalone server.
    control = found.control_url if models is None else None
    if models is not None and not models.is_dir():
        raise OptionsError(f"the models folder {models} does not exist.")
    if models is None and home is None:
        raise OptionsError("give --models DIR, or --home DIR with --control-url URL.")
    if models is not None and found.trust_keys:
        raise OptionsError("--trust-keys needs --home DIR: the files of a folder carry no signatures.")
    # Empty counts as not given, by either door.
    trust_keys = found.trust_keys or (env.get("SLIPWAY_TRUST_KEYS") if models is None else None)
    if control and not control.startswith(("http://", "https://")):
        raise OptionsError("the control URL must start with http:// or https://.")
    return Options(
        host=found.host,
        port=_number(found.port, "--port", 0, 65535),
        grpc_port=None if found.grpc_port == "off" else _number(found.grpc_port, "--grpc-port", 0, 65535),
        processes=_number(found.processes, "--processes", 1, 256),
        models=models,
        control_url=control.rstrip("/") if control else None,
        token_file=Path(found.token_file) if found.token_file else None,
        token=env.get("SLIPWAY_SERVING_TOKEN") or None,
        home=home,
        trust_keys=Path(trust_keys) if trust_keys else None,
        pmml_python=Path(found.pmml_python).absolute() if found.pmml_python and models is None else None,
        pmml_heap_mb=_number(found.pmml_heap_mb, "--pmml-heap-mb", 64, 65536),
        pmml_run_s=_number(found.pmml_run_s, "--pmml-run-s", 1, 3600),
        max_body=_number(found.max_body_mb, "--max-body-mb", 1, 4096) << 20,
        drain_s=float(_number(found.drain_s, "--drain-s", 0, 3600)),
        keep_alive_s=float(_number(found.keep_alive_s, "--keep-alive-s", 1, 3600)),
        read_s=float(_number(found.read_s, "--read-s", 1, 3600)),
    )
