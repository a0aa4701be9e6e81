"""`slipway rollout`: from one version to the next, step by step."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from slipway.cli import output, refs
from slipway.cli import serving_options as options
from slipway.cli.client import Json
from slipway.cli.command import Limit, Run, Yes, command, noun
from slipway.cli.errors import CliError, ExitCode
from slipway.cli.follow import persistent

app = noun("From one version to the next, step by step: start, follow, steer, roll back.")
Rollout = Annotated[str, typer.Argument(metavar="ROLLOUT", help=refs.ROLLOUT)]
ENDED = {"promoted", "rolled-back", "aborted"}
LOOK_EVERY = 1.0
STEP = "WEIGHT[:SECONDS[:REQUESTS[:LONGEST]]][:gate]"


def step_of(text: str) -> Json:
    """`10:60:50` holds 10 % for at least 60 s and 50 requests; a fourth number is the longest time."""
    parts = text.split(":")
    gate = parts[-1] == "gate"
    names = ("weight", "min_seconds", "min_requests", "max_seconds")
    numbers = parts[:-1] if gate else parts
    if not 1 <= len(numbers) <= len(names) or not all(each.isascii() and each.isdigit() for each in numbers):
        raise CliError(f"--step {text}: write a step as {STEP}, as in 10:60:50.", ExitCode.USAGE)
    step: Json = dict(zip(names, map(int, numbers), strict=False))
    return {"mode": "full" if step["weight"] == 100 else "canary", **step, "gate": gate}


@command(app, "start")
@options.takes(options.RUNTIME)
def rollout_start(
    run: Run,
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help=refs.ENDPOINT)],
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help=refs.ARTIFACT)],
    step: Annotated[
        list[str] | None,
        typer.Option("--step", metavar=STEP, help="As in 10:60:50 50:60:50 100; repeatable, the last one is 100."),
    ] = None,
    max_error_share: Annotated[
        float | None, typer.Option("--max-error-share", help="More errors than this share roll back at once.")
    ] = None,
    guard_requests: Annotated[
        int | None, typer.Option("--guard-requests", help="Requests before the guard judges.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow it to its end.")] = False,
    **chosen: Any,
) -> None:
    """Begins to move an endpoint to another artifact."""
    guard = {"max_error_share": max_error_share, "min_requests": guard_requests}
    given = {key: value for key, value in guard.items() if value is not None}
    runtime = options.runtime_of(chosen)
    body: Json = {
        "steps": [step_of(each) for each in step or []],
        "endpoint": refs.endpoint_id(run.api, endpoint),
        "artifact": refs.artifact_id(run.api, artifact),
        **({"guard": given} if given else {}),
        **runtime,
    }
    if not body["steps"]:
        del body["steps"]
    data = run.api.create("/rollouts", body)
    if wait:
        _follow(run, data["id"])
        return
    where = f"{data['endpoint_name']}/{data['id']}"
    run.done(data, f"Rollout {where} has begun. Follow it with `slipway rollout watch {where}`.")


@command(app, "list")
def rollout_list(
    run: Run,
    endpoint: Annotated[str | None, typer.Option("--endpoint", help=refs.ENDPOINT)] = None,
    state: Annotated[str | None, typer.Option("--state", help="As in progressing, paused, promoted.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Only those under way.")] = False,
    limit: Limit = 50,
) -> None:
    """Newest first."""
    endpoint_id = refs.endpoint_id(run.api, endpoint) if endpoint else None
    page = run.api.rows("/rollouts", limit, endpoint=endpoint_id, state=state, live="true" if live else None)
    run.listing(
        page,
        ("rollout", "state", "step", "reason", "begun", "finished"),
        lambda row: (
            f"{row['endpoint_name']}/{row['id']}",
            row["state"],
            progress_of(row),
            row["reason"],
            output.when(row["created_at"]),
            output.when(row["finished_at"]),
        ),
    )


def progress_of(row: Json) -> str:
    """`2 of 3 (50 %)`; before the servers are ready no step has begun."""
    if not row["step_started_at"]:
        return f"0 of {len(row['steps'])}"
    return f"{row['step'] + 1} of {len(row['steps'])} ({row['steps'][row['step']]['weight']} %)"


@command(app, "show")
def rollout_show(run: Run, rollout: Rollout) -> None:
    """One rollout: its steps, its evidence and why it decided what."""
    run.show(run.api.get(f"/rollouts/{refs.rollout_id(run.api, rollout)}"), _card)


def _card(row: Json) -> None:
    output.record(
        (
            ("rollout", f"{row['endpoint_name']}/{row['id']}"),
            ("state", row["state"]),
            ("reason", row["reason"]),
            ("step", progress_of(row)),
            ("deployments", f"{row['stable']} → {row['candidate']}"),
            ("guard", row["guard"]),
            ("begun", output.when(row["created_at"])),
            ("finished", output.when(row["finished_at"])),
        )
    )
    output.say()
    names = ("weight", "min_seconds", "min_requests", "max_seconds", "gate")
    output.table(
        ("step", *(name.replace("_", " ") for name in names)),
        ((index, *(step.get(name) for name in names)) for index, step in enumerate(row["steps"], start=1)),
    )
    for side in ("stable", "candidate"):
        if counts := row["evidence"].get(side):
            p95 = "" if counts.get("p95_ms") is None else f", p95 {counts['p95_ms']} ms"
            output.say(f"{side}: {counts['requests']} requests, {counts['errors']} errors{p95}")
    output.say()
    decisions = [(output.when(each["at"]), each["action"], each["text"]) for each in reversed(row["decisions"])]
    output.table(("when", "decision", "why"), decisions)


@command(app, "watch")
def rollout_watch(run: Run, rollout: Rollout) -> None:
    """Prints each decision as it is made; ends with the rollout, 0 when it was promoted."""
    _follow(run, refs.rollout_id(run.api, rollout))


def _follow(run: Run, rollout_id: int) -> None:
    seen, said = 0, ""
    while True:
        row = persistent(lambda: run.api.get(f"/rollouts/{rollout_id}"))
        if not run.json:
            for each in reversed(row["decisions"]):
                if each["id"] > seen:
                    output.say(f"{output.when(each['at'])}  {each['text']}")
                    seen = each["id"]
            state = f"{row['state']}, step {progress_of(row)}{': ' if row['reason'] else ''}{row['reason']}"
            if state != said:
                output.note(state)
                said = state
        if row["state"] in ENDED:
            break
        time.sleep(LOOK_EVERY)
    if run.json:
        print(output.as_json(row))
    if row["state"] != "promoted":
        raise CliError(f"Rollout {rollout_id} is {row['state']}: {row['reason']}", ExitCode.FAILED)


def _steering(verb: str, help: str, question: str = "") -> None:
    """Declares one action: reads the rollout, asks where traffic jumps, sends it for the row as read."""

    def with_question(run: Run, rollout: Rollout, yes: Yes = False) -> None:
        _act(run, rollout, verb, question, yes)

    def without(run: Run, rollout: Rollout) -> None:
        _act(run, rollout, verb, "", True)

    function: Any = with_question if question else without
    function.__doc__ = help
    command(app, verb)(function)


def _act(run: Run, rollout: str, verb: str, question: str, yes: bool) -> None:
    path = f"/rollouts/{refs.rollout_id(run.api, rollout)}"
    read = run.api.read(path)
    if question:
        run.confirm(f"{question} ({read.row['endpoint_name']}/{read.row['id']}, {read.row['state']})", yes)
    data = run.api.post(f"{path}/{verb}", etag=read.etag)
    run.done(data, f"Rollout {data['endpoint_name']}/{data['id']} is {data['state']}, step {progress_of(data)}.")


_steering("promote", "Goes to the next step now.")
_steering("full", "Gives the candidate all of the traffic now.", "Give the candidate all of the traffic?")
_steering("pause", "Holds the weights where they are.")
_steering("resume", "Goes on with the step it held.")
_steering("abort", "Sends all traffic back and ends the rollout.", "Send all traffic back and end the rollout?")
_steering("roll-back", "Returns to the old version, also after the promotion.", "Return to the old version?")
