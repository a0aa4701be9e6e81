"""`slipway endpoints`: stable names that answer requests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from slipway.cli import output, predict, refs
from slipway.cli import serving_options as options
from slipway.cli.client import Json
from slipway.cli.command import Limit, Project, Run, Yes, command, noun
from slipway.cli.errors import CliError, ExitCode

app = noun("Stable names that answer requests: deploy, split, call, delete.")
Endpoint = Annotated[str, typer.Argument(metavar="ENDPOINT", help=refs.ENDPOINT)]
_WEIGHT = re.compile(r"(v?)([0-9]{1,18})=([0-9]{1,3})")


def split_of(row: Json) -> str:
    """`digits/3 75 %, digits/4 25 %, digits/2 warm`."""
    parts = []
    for each in sorted(row["deployments"], key=lambda deployment: -deployment["weight"]):
        share = f"{each['weight']} %" if each["weight"] else each["state"]
        parts.append(f"{each['model']}/{each['version']} {share}")
    return ", ".join(parts)


@command(app, "list")
def endpoints_list(run: Run, limit: Limit = 50) -> None:
    """Newest first, with what each serves."""
    run.listing(
        run.api.rows("/endpoints", limit),
        ("id", "endpoint", "serves", "access", "target", "project"),
        lambda row: (row["id"], row["name"], split_of(row), row["access"], row["target"], row["project"]),
    )


@command(app, "show")
def endpoints_show(run: Run, endpoint: Endpoint) -> None:
    """One endpoint with its deployments."""
    row = run.api.get(f"/endpoints/{refs.endpoint_id(run.api, endpoint)}")
    run.show(row, lambda data: _card(run, data))


def _card(run: Run, row: Json) -> None:
    output.record(
        (
            ("endpoint", row["name"]),
            ("id", row["id"]),
            ("project", row["project"]),
            ("target", row["target"]),
            ("access", row["access"]),
            ("description", row["description"]),
            ("address", f"{run.api.connection.serving}/v2/models/{row['name']}/infer"),
            *options.settings_told(row),
            ("created", output.when(row["created_at"])),
        )
    )
    output.say()
    output.table(
        ("deployment", "version", "state", "weight", "artifact", "sha256", "runs on", "since"),
        (
            (
                each["id"],
                f"{each['model']}/{each['version']}",
                each["state"],
                f"{each['weight']} %",
                each["artifact"],
                output.short(each["sha256"]),
                options.runtime_told(each),
                output.when(each["created_at"]),
            )
            for each in row["deployments"]
        ),
        empty="It serves nothing yet: `slipway endpoints deploy`.",
    )


@command(app, "create")
@options.takes(options.SETTINGS, options.RUNTIME)
def endpoints_create(
    run: Run,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Lower-case letters, digits, - and _.")],
    artifact: Annotated[str | None, typer.Option("--artifact", help=f"To serve at once. {refs.ARTIFACT}")] = None,
    access: Annotated[str, typer.Option("--access", help="token or open.")] = "token",
    project: Project = None,
    **chosen: Any,
) -> None:
    """A new endpoint; with an artifact it answers as soon as the servers have loaded that."""
    settings = options.settings_of({}, chosen)
    runtime = options.runtime_of(chosen)
    if runtime and not artifact:
        raise CliError("What runs an artifact is said where the artifact is: add --artifact.", ExitCode.USAGE)
    body: Json = {"name": name, "access": access, **runtime, **({"settings": settings} if settings else {})}
    if project:
        body["project"] = project
    if artifact:
        body["artifact"] = refs.artifact_id(run.api, artifact)
    data = run.api.create("/endpoints", body)
    run.done(data, f"Endpoint {data['name']} has the id {data['id']}. {split_of(data) or 'It serves nothing yet.'}")


@command(app, "deploy")
@options.takes(options.RUNTIME)
def endpoints_deploy(
    run: Run,
    endpoint: Endpoint,
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help=refs.ARTIFACT)],
    **chosen: Any,
) -> None:
    """Places the first artifact, with all of the traffic. Later changes are rollouts."""
    runtime = options.runtime_of(chosen)
    body = {"artifact": refs.artifact_id(run.api, artifact), **runtime}
    data = run.api.post(f"/endpoints/{refs.endpoint_id(run.api, endpoint)}/place", body)
    run.done(data, f"{data['name']}: {split_of(data)}.")


@command(app, "set")
@options.takes(options.SETTINGS, options.RESET)
def endpoints_set(
    run: Run,
    endpoint: Endpoint,
    **chosen: Any,
) -> None:
    """Changes how requests are answered; what is not named stays. No model is loaded anew."""
    path = f"/endpoints/{refs.endpoint_id(run.api, endpoint)}"
    read = run.api.read(path)
    settings = options.settings_of(read.row["settings"], chosen)
    if not settings:
        raise CliError("Say what to change, as in --cache-mb 64 --cache-ttl 60.", ExitCode.USAGE)
    data = run.api.change("PATCH", path, {"settings": settings}, read.etag)
    told = "; ".join(f"{name}: {words}" for name, words in options.settings_told(data))
    run.done(data, f"{data['name']}: {told or 'as the servers do by themselves'}.")


@command(app, "weights")
def endpoints_weights(
    run: Run,
    endpoint: Endpoint,
    weights: Annotated[
        list[str], typer.Argument(metavar="DEPLOYMENT=PERCENT…", help="As in 12=25 13=75, or v3=25 v4=75 by version.")
    ],
) -> None:
    """Splits the traffic by hand; what is not named gets none."""
    path = f"/endpoints/{refs.endpoint_id(run.api, endpoint)}"
    read = run.api.read(path)
    body = {"weights": weights_of(weights, read.row)}
    data = run.api.change("PUT", f"{path}/weights", body, read.etag)
    run.done(data, f"{data['name']}: {split_of(data)}.")


def weights_of(pairs: list[str], row: Json) -> dict[str, int]:
    """{deployment id: percent}; `v3` is the deployment of version 3."""
    chosen: dict[str, int] = {}
    for pair in pairs:
        found = _WEIGHT.fullmatch(pair)
        if found is None:
            raise CliError(f"{pair}: write a weight as DEPLOYMENT=PERCENT, as in 12=25.", ExitCode.USAGE)
        by_version, number, weight = found.groups()
        if by_version:
            ids = [each["id"] for each in row["deployments"] if each["version"] == int(number)]
            if len(ids) != 1:
                raise CliError(
                    f"{pair}: {len(ids)} deployments of {row['name']} are version {number}. Say which by its id.",
                    ExitCode.USAGE,
                )
            number = str(ids[0])
        if number in chosen:
            raise CliError(f"{pair}: this deployment is named twice.", ExitCode.USAGE)
        chosen[number] = int(weight)
    return chosen


@command(app, "stats")
def endpoints_stats(
    run: Run,
    endpoint: Endpoint,
    minutes: Annotated[int, typer.Option("--minutes", min=1, max=1440, help="How far back.")] = 15,
) -> None:
    """Requests, errors and latency per deployment."""
    data = run.api.get(f"/endpoints/{refs.endpoint_id(run.api, endpoint)}/stats", minutes=minutes)
    columns = ("deployment", "version", "requests", "errors", "error share", "p50 ms", "p95 ms", "p99 ms", "outputs")
    run.show(
        data,
        lambda rows: output.table(
            columns,
            (
                (
                    row["deployment"],
                    row["version"],
                    row["requests"],
                    row["errors"],
                    f"{100 * row['errors'] / row['requests']:.2f} %" if row["requests"] else "",
                    row["p50_ms"],
                    row["p95_ms"],
                    row["p99_ms"],
                    row["outputs"],
                )
                for row in rows
            ),
            empty=f"No requests in the last {minutes} minutes.",
        ),
    )


@command(app, "predict")
def endpoints_predict(
    run: Run,
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Name of an endpoint.")],
    data: Annotated[
        str | None, typer.Option("--data", help="JSON: a row, rows, {input: rows}, or a whole V2 request.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", help="The same from a file; - reads stdin.")] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="One row per line, a head line if it likes; - reads stdin.")
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="Callers of one key get one version.")] = None,
) -> None:
    """Calls the inference server (V2); its metadata says what the input is called."""
    answer = predict.infer(run.api, endpoint, data=data, file=file, csv_file=csv, key=key)
    run.show(answer, predict.show)


@command(app, "delete")
def endpoints_delete(run: Run, endpoint: Endpoint, yes: Yes = False) -> None:
    """Takes an endpoint off the servers; its name becomes free."""
    path = f"/endpoints/{refs.endpoint_id(run.api, endpoint)}"
    read = run.api.read(path)
    serves = split_of(read.row)
    run.confirm(f"Delete the endpoint {read.row['name']}{f', which serves {serves}' if serves else ''}?", yes)
    run.done(run.api.change("DELETE", path, etag=read.etag), f"Endpoint {read.row['name']} is deleted.")
