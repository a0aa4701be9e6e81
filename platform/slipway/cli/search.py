"""`slipway search`: looking for the best variant of an artifact under a goal."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from slipway.cli import output, refs
from slipway.cli.client import Json
from slipway.cli.command import Limit, Run, Wait, command, noun
from slipway.cli.follow import jobs_finish, jobs_started
from slipway.cli.plugin_options import options_of

app = noun("Measured variants: search under a goal, see the front and the recommendation.")
Search = Annotated[int, typer.Argument(metavar="SEARCH", min=1, help="Id of a search.")]
Rows = Annotated[int | None, typer.Option(min=1, metavar="DATASET", help="Id of a data set.")]


@command(app, "start")
def search_start(
    run: Run,
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help=refs.ARTIFACT)],
    max_loss: Annotated[
        float | None, typer.Option("--max-loss", help="Most that may be lost, in points.", show_default="1")
    ] = None,
    minutes: Annotated[float | None, typer.Option("--minutes", help="When to stop looking.", show_default="10")] = None,
    goal: Annotated[
        list[str] | None,
        typer.Option("--goal", metavar="KEY=VALUE", help="As in prefer=latency, size_mb=2, threads=2; repeatable."),
    ] = None,
    slices: Annotated[
        list[str] | None,
        typer.Option("--slice", metavar="COLUMN", help="Guard each value of this column like a class; repeatable."),
    ] = None,
    dataset: Rows = None,
    calibration: Rows = None,
    training: Rows = None,
    wait: Wait = False,
) -> None:
    """Starts a search; ends with its job's state under --wait."""
    asked: dict[str, Any] = options_of(goal or [])
    asked |= {key: value for key, value in (("max_loss", max_loss), ("minutes", minutes)) if value is not None}
    asked |= {"slices": slices} if slices else {}
    rows = {"dataset": dataset, "calibration": calibration, "training": training}
    body = {"goal": asked, **{key: value for key, value in rows.items() if value is not None}}
    job = run.api.post(f"/artifacts/{refs.artifact_id(run.api, artifact)}/searches", body)
    number = job["params"]["search_id"]
    if wait:
        jobs_finish(run, [job["id"]])
    else:
        jobs_started(run, [job], job, wait=False)
    if not run.json:
        output.say(f"See what it finds with `slipway search show {number}`.")


@command(app, "list")
def search_list(run: Run, limit: Limit = 50) -> None:
    """Newest first."""
    page = run.api.rows("/searches", limit)
    run.listing(
        page,
        ("search", "artifact", "state", "most lost", "job", "created"),
        lambda row: (
            row["id"], row["artifact"], row["state"], row["goal"]["max_loss"], row["job"],
            output.when(row["created_at"]),
        ),
    )  # fmt: skip


@command(app, "show")
def search_show(run: Run, search: Search) -> None:
    """How a search stands: what was tried, the front, the recommendation with its reasons, or what to relax."""
    row = run.api.get(f"/searches/{search}")
    trials = run.api.get(f"/searches/{search}/trials")
    run.show({**row, "trials": trials}, lambda data: _card(data, data["trials"]))


def _card(row: Json, trials: list[Json]) -> None:
    best, offer = row["recommended"], row["offered"]
    output.record(
        (
            ("search", row["id"]),
            ("state", row["state"]),
            ("reason", row["reason"]),
            ("artifact", row["artifact"]),
            ("tried", row["counts"]["tried"]),
            ("recommended", f"artifact {best['artifact']}: {best['label']}" if best else ""),
            ("offered", f"artifact {offer['artifact']}: {offer['label']}" if offer else ""),
            ("because", " ".join(row["reasons"])),
            ("to relax", " ".join(row["relax"])),
            ("goal", row["goal"]),
        )
    )
    if trials:
        output.say()
        output.table(
            ("trial", "recipe", "state", "loss", "at most", "speed", "size", "front", "reason"),
            (_line(trial, trial["key"] in row["front"]) for trial in trials),
        )


def _line(trial: Json, on_front: bool) -> tuple[Any, ...]:
    judged, measured = trial["judged"], trial["measured"]
    return (
        trial["artifact"] or "",
        trial["label"],
        trial["state"],
        f"{judged['loss']:.2f}" if judged else "",
        f"{judged['loss_upper']:.2f}" if judged else "",
        f"{1 / measured['ratio']:.2f}×" if measured else "",
        output.size(trial["size"]) if trial["size"] else "",
        "yes" if on_front else "",
        trial["reason"],
    )
