"""Measures a model on a device that no worker runs on; what it prints is imported beside the workers' measurements.

    python -m engine.evaluate.device variant.onnx --reference model.onnx --rows test.npz > measured.json
    slipway artifacts import-measurement ARTIFACT measured.json

Needs numpy, onnx and onnxruntime on the device, and this package; no network.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from engine.digests import file_digest
from engine.errors import EngineError

_MOST_METRICS = 50


class Latency(BaseModel):
    """Milliseconds of one call."""

    model_config = ConfigDict(extra="forbid")
    p50: float = Field(gt=0, allow_inf_nan=False)
    p95: float = Field(gt=0, allow_inf_nan=False)
    p99: float = Field(gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _ordered(self) -> Latency:
        if not self.p50 <= self.p95 <= self.p99:
            raise ValueError("p50, p95 and p99 must not fall")
        return self


class Profile(BaseModel):
    """The hardware and software that the figures hold for; figures of two profiles are never compared."""

    model_config = ConfigDict(extra="forbid")
    cpu: str = Field(min_length=1, max_length=200)
    cores: int = Field(ge=1, le=4096)
    threads: int = Field(ge=1, le=256)
    machine: str = Field(min_length=1, max_length=40)
    onnxruntime: str = Field("", max_length=40)


class DeviceMeasurement(BaseModel):
    """sha256 names the measured file, reference_sha256 what it was measured beside in the same run. ratio_to_reference:
    the file's time of a call by the reference's. throughput in rows per second."""

    model_config = ConfigDict(extra="ignore")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    reference_sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    latency_ms: Latency
    throughput: float | None = Field(None, gt=0, allow_inf_nan=False)
    peak_memory_mb: float | None = Field(None, gt=0, allow_inf_nan=False)
    ratio_to_reference: float | None = Field(None, gt=0, allow_inf_nan=False)
    metrics: dict[str, float] = Field(default_factory=dict, max_length=_MOST_METRICS)
    profile: Profile

    @field_validator("metrics")
    @classmethod
    def _finite(cls, value: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        if not all(math.isfinite(number) for number in value.values()):
            raise ValueError("metrics must be finite numbers")
        return value


def measured(model: Path, reference: Path | None, rows: Path | None, **params: object) -> DeviceMeasurement:
    """`tasks.measure` here and now. `params`: task, target, threads, batch, rounds. EngineError for what it refuses."""
    from engine.evaluate.tasks import measure

    inputs = {"model": model, "reference": reference, "rows": rows}
    with tempfile.TemporaryDirectory() as folder:
        found = measure(
            params=dict(params), inputs={name: file for name, file in inputs.items() if file}, out=Path(folder)
        )
    return DeviceMeasurement(
        **found, sha256=file_digest(model), reference_sha256=file_digest(reference) if reference else None
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="engine.evaluate.device", description="Measures a model on this device.")
    parser.add_argument("model", type=Path, help="an ONNX file")
    parser.add_argument("--reference", type=Path, help="the ONNX file that it was made from, measured by turns")
    parser.add_argument("--rows", type=Path, help="npz, parquet or csv; without it invented rows and no quality")
    parser.add_argument("--target", default="target", help="the column with the truth")
    parser.add_argument("--task", default="tabular-classification")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1, help="rows of a call")
    parser.add_argument("--rounds", type=int, default=7)
    given = vars(parser.parse_args())
    files = {name: given.pop(name) for name in ("model", "reference", "rows")}
    try:
        print(measured(**files, **given).model_dump_json(indent=1))
    except (EngineError, OSError) as error:
        print(f"device: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
