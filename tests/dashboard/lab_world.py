"""Searches in every state a page can show: done, under way, failed, cancelled, and one that met no goal."""

from __future__ import annotations

import datetime as dt
import random
from typing import Any

from django.utils import timezone

from engine.optimize.lab.state import Proposal
from engine.optimize.recipe import Recipe
from engine.sentence import Sentence, say
from registry.models import Artifact, Dataset, Version
from registry.search_models import Search, SearchTrial
from registry.searches import search_conclude, search_request, trials_submit
from registry.signing import attest
from slipway.accounts.models import User
from slipway.jobs.models import Job

PROFILE = {"cpu": "a processor with VNNI", "cores": 2, "threads": 1, "onnxruntime": "1.27.0", "machine": "x86_64"}
BASE = {
    "p50_ms": 2.31, "p95_ms": 2.9, "p99_ms": 3.4, "size_bytes": 44_712_345, "peak_memory_mb": 151.0,
    "throughput": 431.0, "profile": PROFILE,
}  # fmt: skip
LAYERS = [("conv1", 9_408)] + [
    (f"layer{stage}.{block}.conv{part}", 36_864 * 4 ** (stage - 1))
    for stage in (1, 2, 3, 4)
    for block in (0, 1)
    for part in (1, 2)
]
# recipe, state, why (or the share of channels), loss in points, ratio, share of the size
TRIALS: list[tuple[tuple[tuple[str, dict[str, Any]], ...], str, str | int, float, float, float]] = [
    ((("static-quantization", {}),), "measured", "int8 with ranges from the calibration rows", 0.19, 0.20, 0.254),
    ((("static-quantization", {"per_channel": True}),), "measured", "the same with a scale for each channel",
     0.0, 0.196, 0.258),
    ((("dynamic-quantization", {}),), "measured", "int8 without calibration: good for matrix products",
     0.0, 1.01, 0.98),
    ((("dynamic-quantization", {"convolutions": True}),), "measured", "fewer operators", 0.19, 3.4, 0.255),
    ((("weight-only", {"bits": 4}),), "failed", "weights in 4 bits", 0, 0, 0),
    ((("codebook", {}),), "measured", "weights as indices into 16 values: small", 0.37, 1.52, 0.19),
    ((("float16", {}),), "measured", "half precision: half the size", 0.0, 1.21, 0.501),
    ((("simplify", {}),), "measured", "fewer operators", 0.0, 0.97, 0.999),
    ((("prune-channels-by-activation", {"amount": 0.25, "reconstruct": True}),
      ("static-quantization", {"per_channel": True})), "measured",
     25, 0.37, 0.098, 0.118),
    ((("prune-channels-by-activation", {"amount": 0.375, "reconstruct": True}),
      ("static-quantization", {"per_channel": True})), "measured",
     38, 0.93, 0.093, 0.101),
    ((("prune-channels-by-activation", {"amount": 0.5, "reconstruct": True}),
      ("static-quantization", {"per_channel": True})), "refused",
     50, 4.26, 0, 0.066),
]  # fmt: skip


def recipe_of(steps: tuple[tuple[str, dict[str, Any]], ...]) -> Recipe:
    return Recipe.of(*steps).checked()


def idea_of(why: str | int) -> Sentence:
    """As the plan says it."""
    if isinstance(why, str):
        return say(why)
    way = say("least active, the rest refitted")
    return say("%(way)s, %(share)s %% of the channels", way=way, share=str(why))


def confusion(loss: float, seed: int) -> dict[str, Any]:
    """Ten digits, 37 or 38 rows of each."""
    dice = random.Random(seed)
    tables = []
    for share in (0.01, 0.01 + loss / 100):
        table = [[0] * 10 for _ in range(10)]
        for truth in range(10):
            for _ in range(37):
                wrong = dice.random() < share
                table[truth][dice.choice([9, 8, 3, 1]) if wrong else truth] += 1
        tables.append(table)
    return {"labels": [str(digit) for digit in range(10)], "before": tables[0], "after": tables[1]}


def judged(loss: float, number: int) -> dict[str, Any]:
    return {
        "metric": "accuracy", "baseline": 98.7, "value": 98.7 - loss, "loss": loss, "loss_upper": loss + 0.61,
        "p_value": 0.62, "rows": 378,
        "slices": [
            {"name": str(digit), "rows": 37, "baseline": 98.6, "value": 98.6 - (2.7 if digit == number % 10 else 0),
             "loss": 2.7 if digit == number % 10 else 0.0}
            for digit in range(10)
        ] + [
            {"column": "scanner", "name": name, "rows": rows, "baseline": 98.6, "value": 98.6 - lost, "loss": lost}
            for name, rows, lost in (("desk", 251, 0.0), ("phone", 121, 2 * loss), ("van", 6, 0.0))
        ],
    }  # fmt: skip


def describe(search: Search) -> None:
    """What a first look finds."""
    layers = [
        {"name": name, "operator": "Conv", "parameters": size, "bytes": 4 * size} for name, size in reversed(LAYERS)
    ]
    layers.append({"name": "fc", "operator": "Gemm", "parameters": 5130, "bytes": 20_520})
    dice = random.Random(4)
    Search.objects.filter(pk=search.pk).update(
        survey={
            "parameters": 11_175_370, "weight_bytes": 44_701_480, "operators": {"Conv": 20, "Relu": 17, "Gemm": 1},
            "bytes_by_operator": {"Conv": 44_680_960, "Gemm": 20_520}, "layers": layers, "opset": 17,
            "calibration": True, "training": False, "rows": 378,
        },
        baseline={**BASE, "ratio": 1.0, "ratio_low": 1.0, "ratio_high": 1.0}, profile=PROFILE,
        parts={"seed": 0, "calibration": part("c", 162), "evaluation": part("e", 378)},
        sensitivity=[
            {"layer": name, "operator": "Conv", "size_bytes": 4 * size, "quantized": 0.002 + dice.random() ** 4 / 20,
             "pruned": 0.05 + dice.random() ** 2 / 2}
            for name, size in LAYERS
        ],
        deadline=timezone.now() + dt.timedelta(minutes=4),
    )  # fmt: skip
    search.refresh_from_db()


def part(letter: str, rows: int) -> dict[str, Any]:
    return {"sha256": letter * 64, "uri": "x", "file_name": "part.parquet", "rows": rows}


def try_all(search: Search, most: int = len(TRIALS)) -> None:
    """The first trials, ended as the table says."""
    for number, (steps, state, why, loss, ratio, share) in enumerate(TRIALS[:most]):
        [row] = trials_submit(search=search, proposals=[Proposal(recipe_of(steps), idea_of(why))])
        Job.objects.filter(parent=search.job_id).update(state="succeeded", finished_at=timezone.now(), progress=1)
        known: dict[str, Any] = {"state": state, "seconds": 8.5 + number}
        if state == "failed":
            known["reason"] = "This model has no matrix products with enough weights to pack."
        else:
            known |= {"judged": judged(loss, number), "confusion": confusion(loss, number)}
            known["size"] = round(share * BASE["size_bytes"])  # type: ignore[operator]
        if state == "refused":
            known["reason"] = f"It loses {loss:.2f} points ({search.asked.max_loss:g} may be lost)."
        if state == "measured":
            known["artifact"] = variant(search, row, known["size"])
            known["measured"] = {
                "p50_ms": 2.31 * ratio, "p95_ms": 2.9 * ratio, "p99_ms": 3.4 * ratio, "ratio": ratio,
                "ratio_low": ratio * 0.96, "ratio_high": ratio * 1.05, "size_bytes": known["size"],
                "peak_memory_mb": 60 + 90 * share, "throughput": 431 / ratio, "profile": PROFILE,
            }  # fmt: skip
        SearchTrial.objects.filter(pk=row.pk).update(**known)


def variant(search: Search, row: SearchTrial, size: int) -> Artifact:
    version = search.artifact.version
    named = {"format": "onnx", "sha256": row.key, "size": size, "file_name": "model.onnx"}
    made, _ = Artifact.objects.get_or_create(
        version=version, format="onnx", sha256=row.key,
        defaults={
            "size": size, "file_name": "model.onnx", "uri": "x", "verdict": "clean", "parent": search.artifact,
            "attestation": attest(version, **named),
            "recipe": {"optimizer": "+".join(step["optimizer"] for step in row.steps), "label": row.label,
                       "steps": row.steps},
        },
    )  # fmt: skip
    return made


def build(version: Version, user: User | None) -> dict[str, Search]:
    """One search in each state."""
    artifact = version.artifacts.filter(format="onnx").order_by("id")[0]
    dataset = Dataset.objects.filter(project=version.model.project, role="evaluation")[0]

    def one(**asked: Any) -> Search:
        goal = {"prefer": "balanced", "slices": ["scanner"], **asked}
        return search_request(actor=user, artifact=artifact, goal=goal, dataset=dataset)

    found = {name: one() for name in ("queued", "looking", "running", "done", "failed", "cancelled")}
    found["same"] = one(prefer="latency")
    found["offer"] = one(prefer="latency")
    found["unmet"] = one(size_mb=2, latency_ms=0.2)
    ends(found["looking"], "running", progress=0.01, step="baseline", attempt=1)
    Search.objects.filter(pk=found["looking"].pk).update(deadline=timezone.now() + dt.timedelta(minutes=10))
    for name, most in (("running", 8), ("done", 99), ("unmet", 99), ("cancelled", 3), ("same", 3), ("offer", 7)):
        describe(found[name])
        try_all(found[name], most)
    for steps, _state, why, *_ in TRIALS[8:10]:
        trials_submit(search=found["running"], proposals=[Proposal(recipe_of(steps), idea_of(why))])
    first = SearchTrial.objects.filter(search=found["running"], state="queued").order_by("pk").first()
    SearchTrial.objects.filter(pk=first.pk if first else None).update(state="running")
    ends(found["running"], "running", progress=0.61, step="sensitivity", attempt=9)
    as_fast = SearchTrial.objects.get(search=found["offer"], label__startswith="Half")
    even = {"ratio": 1.01, "ratio_low": 0.98, "ratio_high": 1.04}
    SearchTrial.objects.filter(pk=as_fast.pk).update(measured={**as_fast.measured, **even})
    SearchTrial.objects.filter(search=found["offer"], label__startswith="Static").delete()
    for name in ("done", "unmet", "same", "offer"):
        if name == "same":
            SearchTrial.objects.filter(search=found[name]).exclude(label__startswith="Dynamic").delete()
        search_conclude(search=found[name])
        ends(found[name], "succeeded", progress=1)
    ends(found["failed"], "failed", reason="The data set has no target column.", progress=0.02)
    ends(found["cancelled"], "cancelled", reason="Cancelled by root.", progress=0.2)
    Search.objects.filter(pk__in=[found["failed"].pk, found["cancelled"].pk]).update(stopped_at=timezone.now())
    return {name: Search.objects.get(pk=row.pk) for name, row in found.items()}


def ends(search: Search, state: str, **more: Any) -> None:
    ended = {} if state == "running" else {"finished_at": timezone.now()}
    lease = {"lease_until": timezone.now() + dt.timedelta(hours=1)} if state == "running" else {}
    at = timezone.now() - dt.timedelta(minutes=6)
    Job.objects.filter(pk=search.job_id).update(state=state, started_at=at, **ended, **lease, **more)
