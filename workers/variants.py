"""Making, measuring and keeping one variant: what a hand-made optimization and the trials of a search share."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from engine.digests import file_digest
from engine.errors import EngineError
from engine.optimize.lab.parts import CALIBRATES
from engine.optimize.recipe import Recipe
from engine.sandbox import Limits
from registry import results
from registry.mlflow import gateway
from registry.models import Artifact, Dataset, Format, Verdict, Version
from registry.packages import kit_plan
from slipway.jobs.context import JobContext
from workers.common import file_stored, made_file, onnx_facts, placed, sandboxed
from workers.environments import prepared
from workers.runs import job_run, numbers
from workers.turns import measuring_alone

OPTIMIZE_LIMITS = Limits(seconds=900, memory_mb=6144)
MEASURE_LIMITS = Limits(seconds=600, memory_mb=6144)
# Of a run: variants, and models on the way to one (which may be one themselves, and are stored once then).
VARIANTS_FOLDER = "optimize"
SPLIT_LIMITS = Limits(seconds=300, memory_mb=6144)


class Halfway(Protocol):
    """Remembers models on the way to a variant that took long to make, by the key of the recipe so far."""

    def find(self, key: str) -> Path | None: ...

    def keep(self, key: str, file: Path) -> None: ...


@dataclass(frozen=True, slots=True)
class Variant:
    """A made and checked file, not yet judged."""

    recipe: Recipe
    file: Path
    sha256: str
    size: int
    signature: dict[str, Any]
    versions: dict[str, str]


def subject_of(artifact: Artifact, target: str) -> dict[str, Any]:
    """What every task about an artifact's answers is told."""
    return {"task": artifact.version.model.task, "target": target, "labels": artifact.recipe.get("labels")}


def parted(
    job: JobContext, rows: Path, target: str, seed: int, scratch: Path, slices: tuple[str, ...] = ()
) -> dict[str, tuple[Path, int]]:
    """{"calibration", "evaluation"}: parts of the rows without a row in common, with their lengths. slices: columns
    that are kept where they lie beside the model's."""
    made = sandboxed(
        job,
        "engine.optimize.lab.parts:split",
        params={"share": CALIBRATES, "seed": seed, "target": target, "slices": slices},
        inputs={"rows": rows},
        scratch=scratch,
        limits=SPLIT_LIMITS,
    )
    counts = made.value
    return {
        name: (made_file(made, f"{name}.parquet", scratch / f"{name}.parquet"), int(counts[name]))
        for name in ("calibration", "evaluation")
    }


def grouped(
    job: JobContext, rows: dict[str, Path], params: dict[str, Any], scratch: Path
) -> dict[str, tuple[Path, int]]:
    """{"groups": what the evaluation rows' groups are, and each of the rows that has columns which are no inputs,
    without them}, with their lengths. params: as of `engine.evaluate.groups:grouped`."""
    made = sandboxed(
        job, "engine.evaluate.groups:grouped", params=params, inputs=rows, scratch=scratch, limits=SPLIT_LIMITS
    )
    found = {"groups": (made_file(made, "groups.json", scratch / "groups.json"), 0)}
    for name in rows.keys() & made.value["rows"].keys():
        file = made_file(made, f"{name}.parquet", scratch / f"fed-{name}.parquet")
        found[name] = (file, int(made.value["rows"][name]))
    return found


def made_variant(
    job: JobContext,
    recipe: Recipe,
    *,
    params: dict[str, Any],
    inputs: dict[str, Path],
    signature: dict[str, Any],
    scratch: Path,
    limits: Limits = OPTIMIZE_LIMITS,
    halfway: Halfway | None = None,
) -> Variant:
    """Makes it, each stretch of steps in its environment, and checks the result in a child of its own. What needs an
    environment is made once for all recipes that begin alike, where there is a `halfway`. EngineError for what cannot
    be made, is no model, or takes or gives other tensors than `signature` says."""
    current = inputs["model"]
    versions: dict[str, str] = {}
    stretches = list(zip(recipe.stretches(), recipe.prefixes(), strict=True))
    begin = 0
    if halfway is not None:
        for number, ((environment, _), prefix) in reversed(list(enumerate(stretches, start=1))):
            if environment and (known := halfway.find(prefix.key)) is not None:
                job.log(f"{prefix.label}: made by a former trial.")
                current, begin = placed(known, scratch / "halfway.onnx"), number
                break
    for number, ((environment, stretch), prefix) in enumerate(stretches[begin:], start=begin):
        with prepared(job, kit_plan(environment)) if environment else nullcontext() as python, job.step("convert"):
            made = sandboxed(
                job,
                "engine.optimize.tasks:make",
                params={**params, "steps": [step.model_dump(mode="json") for step in stretch.steps]},
                inputs={**inputs, "model": current, "original": inputs["model"]},
                scratch=scratch,
                limits=limits,
                python=python,
            )
            current = made_file(made, "model.onnx", scratch / f"variant-{number}.onnx")
            versions |= made.value["versions"]
            for note in made.value["notes"]:
                job.log(note)
        if halfway is not None and environment:
            halfway.keep(prefix.key, current)
    with job.step("check"):
        facts = onnx_facts(job, current, scratch)
        if signature and _tensors(facts["signature"]) != _tensors(signature):
            raise EngineError("Its inputs or outputs are no longer those of its parent.", code="signature")
    sha256, size = file_digest(current), current.stat().st_size
    return Variant(recipe, current, sha256, size, facts["signature"], versions)


def _tensors(signature: dict[str, Any]) -> list[tuple[str, str, str, int]]:
    """What a caller relies on; fixing a free dimension is a recipe's right."""
    return [
        (side, tensor["name"], tensor["datatype"], len(tensor["shape"]))
        for side in ("inputs", "outputs")
        for tensor in signature.get(side) or []
    ]


def measured_file(
    job: JobContext, *, params: dict[str, Any], inputs: dict[str, Path], scratch: Path, answers: Path | None = None
) -> dict[str, Any]:
    """`engine.evaluate.tasks:measure`, with the machine to itself as far as measuring goes. answers: where the model's
    are to be kept, unless they are too many."""
    with measuring_alone(job):
        made = sandboxed(
            job,
            "engine.evaluate.tasks:measure",
            params={**params, "keep": answers is not None},
            inputs=inputs,
            scratch=scratch,
            limits=MEASURE_LIMITS,
        )
    value: dict[str, Any] = dict(made.value)
    if value.pop("kept", False) and answers is not None:
        made_file(made, "answers.npz", answers)
    return value


def variant_kept(job: JobContext, variant: Variant, version: Version, name: str) -> tuple[str, str]:
    """(run, uri) of a variant whose bytes are in MLflow and in this node's cache."""
    run_id = job.once("run", lambda: job_run(job, version, name))
    job.note_run(run_id)
    uri = file_stored(
        job, variant.file, sha256=variant.sha256, run_id=run_id, folder=VARIANTS_FOLDER, name="model.onnx"
    )
    return str(run_id), uri


def variant_record(
    job: JobContext,
    variant: Variant,
    *,
    parent: Artifact,
    dataset: Dataset | None,
    run_id: str,
    uri: str,
    measured: Any,
) -> Artifact:
    """The variant with its measurement; to be called in the job's completing transaction."""
    names = [step.optimizer for step in variant.recipe.steps]
    artifact = results.artifact_record(
        version=parent.version,
        format=Format.ONNX,
        sha256=variant.sha256,
        size=variant.size,
        file_name="model.onnx",
        uri=uri,
        parent=parent,
        recipe={
            "optimizer": "+".join(names),
            "label": variant.recipe.label,
            "labels": parent.recipe.get("labels"),
            "steps": [step.model_dump(mode="json") for step in variant.recipe.checked().steps],
            "versions": variant.versions,
        },
        verdict=Verdict.CLEAN,
        signature=variant.signature,
        mlflow_run_id=run_id,
        job_id=job.id,
    )
    faster = {**measured, "speedup": 1 / measured["ratio_to_reference"]}
    results.measurement_record(artifact=artifact, dataset=dataset, job_id=job.id, run_id=run_id, measured=faster)
    return artifact


def run_figures(run_id: str, artifact: Artifact, measured: dict[str, Any], sha256: str = "", **params: Any) -> None:
    """What MLflow keeps of it. The digest is a tag: a repeated attempt may make other bytes, and MLflow refuses
    to change a parameter."""
    latency = measured.get("latency_ms", {})
    known = ("size_bytes", "peak_memory_mb", "ratio_to_reference", "ratio_low", "ratio_high", "loss", "loss_upper")
    gateway.run_log(
        run_id,
        params={"artifact": artifact.sha256, **params},
        metrics=numbers(
            {
                **measured.get("metrics", {}),
                **{f"latency_{name}_ms": value for name, value in latency.items()},
                **{name: measured.get(name) for name in known},
            }
        ),
        tags={"sha256": sha256} if sha256 else {},
    )
    gateway.run_finish(run_id)
