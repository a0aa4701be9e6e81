"""`slipway versions`: immutable versions, uploads, approvals and exports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from slipway.cli import output, refs
from slipway.cli.client import Api, Json
from slipway.cli.command import Limit, Project, Run, Wait, command, noun
from slipway.cli.follow import jobs_started
from slipway.cli.models import TASKS, metrics_of
from slipway.cli.plugin_options import in_words, options_by_exporter
from slipway.cli.transfer import upload

app = noun("Immutable versions: upload, approve, export.")
Version = Annotated[str, typer.Argument(metavar="VERSION", help=refs.VERSION)]
Note = Annotated[str, typer.Option("--note", help="Why, for the audit log.")]


def model_names(api: Api, rows: list[Json]) -> dict[int, str]:
    """Names of the models that rows point at: one call for most, one each for those beyond the first page."""
    wanted = {row["model"] for row in rows}
    names = {row["id"]: row["name"] for row in (api.find("/models") if wanted else [])}
    return names | {each: api.get(f"/models/{each}")["name"] for each in wanted - set(names)}


@command(app, "list")
def versions_list(
    run: Run,
    model: Annotated[str | None, typer.Option("--model", help=refs.MODEL)] = None,
    state: Annotated[str | None, typer.Option("--state", help="pending, ready or rejected.")] = None,
    approval: Annotated[str | None, typer.Option("--approval", help="none, approved or declined.")] = None,
    alias: Annotated[str | None, typer.Option("--alias", help="As in champion.")] = None,
    project: Project = None,
    limit: Limit = 50,
) -> None:
    """Newest first."""
    model_id = refs.model_id(run.api, model) if model else None
    page = run.api.rows(
        "/versions", limit, model=model_id, state=state, approval=approval, alias=alias, project=project
    )  # fmt: skip
    names = {} if run.json else model_names(run.api, page["results"])
    run.listing(
        page,
        ("version", "id", "state", "approval", "origin", "framework", "metrics", "created"),
        lambda row: (
            f"{names[row['model']]}/{row['number']}",
            row["id"],
            row["state"],
            row["approval"],
            row["origin"],
            row["framework"],
            metrics_of(row),
            output.when(row["created_at"]),
        ),
    )


@command(app, "show")
def versions_show(run: Run, version: Version) -> None:
    """One version with its artifacts and what was measured."""
    row = run.api.get(f"/versions/{refs.version_id(run.api, version)}")
    run.show(row, lambda data: _card(data, model_names(run.api, [data])[data["model"]]))


def _tensors(signature: Json, side: str) -> str:
    return ", ".join(f"{each['name']} {each['datatype']} {each['shape']}" for each in signature.get(side) or [])


def _card(row: Json, model: str) -> None:
    output.record(
        (
            ("version", f"{model}/{row['number']}"),
            ("id", row["id"]),
            ("state", row["state"]),
            ("reason", row["reason"]),
            ("approval", row["approval"]),
            ("aliases", ", ".join(row["aliases"])),
            ("origin", row["origin"]),
            ("framework", row["framework"]),
            ("inputs", _tensors(row["signature"], "inputs")),
            ("outputs", _tensors(row["signature"], "outputs")),
            ("metrics", ", ".join(f"{name} {output.cell(value)}" for name, value in row["metrics"].items())),
            ("MLflow run", row["mlflow_run_id"]),
            ("created", output.when(row["created_at"])),
        )
    )
    output.say()
    output.table(ARTIFACT_COLUMNS, map(artifact_row, row["artifacts"]), empty="No artifacts yet.")


ARTIFACT_COLUMNS = ("artifact", "label", "format", "size", "verdict", "p50 ms", "p99 ms", "rows/s", "sha256")


def artifact_row(row: Json) -> tuple[Any, ...]:
    """An artifact with its newest measurement."""
    measured = (row["measurements"] or [{}])[0]
    return (
        row["id"],
        row["label"],
        row["format"],
        output.size(row["size"]),
        row["verdict"],
        measured.get("latency_p50_ms"),
        measured.get("latency_p99_ms"),
        measured.get("throughput"),
        output.short(row["sha256"]),
    )


@command(app, "upload")
def versions_upload(
    run: Run,
    file: Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="An ONNX file.")],
    model: Annotated[str, typer.Option("--model", help="Name of the model; made when it is new.")],
    task: Annotated[str | None, typer.Option("--task", help=TASKS)] = None,
    project: Project = None,
) -> None:
    """Streams a file from disk; it is checked in the sandbox and becomes the next version."""
    data = upload(run.api, file, model=model, task=task, project=project)
    run.done(
        data, f"{model}/{data['number']} is registered (version {data['id']}, SHA-256 {output.short(data['sha256'])})."
    )


@command(app, "approve")
def versions_approve(run: Run, version: Version, note: Note = "") -> None:
    """Somebody other than its maker says that it may go live."""
    _decide(run, version, True, note)


@command(app, "decline")
def versions_decline(run: Run, version: Version, note: Note = "") -> None:
    """Says that it may not go live."""
    _decide(run, version, False, note)


def _decide(run: Run, version: str, approve: bool, note: str) -> None:
    path = f"/versions/{refs.version_id(run.api, version)}/decide"
    data = run.api.post(path, {"approve": approve, "note": note})
    run.done(data, f"Version {version} is {data['approval']}.")


@command(app, "formats")
def versions_formats(run: Run, version: Version) -> None:
    """Every format there is: possible for this version or why not, and what options it takes."""
    ways = run.api.get(f"/versions/{refs.version_id(run.api, version)}/formats")
    run.show(
        ways,
        lambda rows: output.table(
            ("format", "possible", "why not", "environment", "artifact", "options"),
            (
                (way["exporter"], way["possible"], way["why_not"], way["environment"], way["artifact"],
                 in_words(way["options"].get("properties", {})))
                for way in rows
            ),
        ),
    )  # fmt: skip


@command(app, "export")
def versions_export(
    run: Run,
    version: Version,
    to: Annotated[list[str], typer.Option("--to", help="A format, as in onnx or pmml; repeatable.")],
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="KEY=VALUE",
            help="As in opset=17, of several formats onnx.opset=17; repeatable. `slipway versions formats` lists them.",
        ),
    ] = None,
    wait: Wait = False,
) -> None:
    """One export job per format."""
    path = f"/versions/{refs.version_id(run.api, version)}"
    body: Json = {"exporters": to}
    if option:
        body["options"] = options_by_exporter(run.api.get(f"{path}/formats"), to, option)
    jobs = run.api.post(f"{path}/export", body)
    jobs_started(run, jobs, jobs, wait)


@command(app, "register")
def versions_register(
    run: Run,
    sha256: Annotated[str, typer.Argument(metavar="SHA256", help="Digest of an artifact of the same project.")],
    model: Annotated[str, typer.Option("--model", help=refs.MODEL)],
) -> None:
    """A new version of bytes that the project already holds."""
    data = run.api.post(f"/models/{refs.model_id(run.api, model)}/versions", {"artifact": sha256})
    run.done(data, f"{model}/{data['number']} is registered (version {data['id']}).")
