"""`slipway artifacts`: stored forms of versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from slipway.cli import refs
from slipway.cli.command import Limit, Run, Wait, command, noun
from slipway.cli.errors import CliError, ExitCode
from slipway.cli.follow import jobs_started
from slipway.cli.plugin_options import options_of
from slipway.cli.transfer import download
from slipway.cli.versions import ARTIFACT_COLUMNS, artifact_row

app = noun("Stored forms of versions: list, download, optimize, import measurements.")
Artifact = Annotated[str, typer.Argument(metavar="ARTIFACT", help=refs.ARTIFACT)]


@command(app, "list")
def artifacts_list(
    run: Run,
    version: Annotated[str | None, typer.Option("--version", help=refs.VERSION)] = None,
    format: Annotated[str | None, typer.Option("--format", help="As in onnx, pmml, source.")] = None,
    sha256: Annotated[str | None, typer.Option("--sha256", help="A whole digest.")] = None,
    limit: Limit = 50,
) -> None:
    """Newest first, with the newest measurement of each."""
    version_id = refs.version_id(run.api, version) if version else None
    page = run.api.rows("/artifacts", limit, version=version_id, format=format, sha256=sha256)
    run.listing(page, ("version id", *ARTIFACT_COLUMNS), lambda row: (row["version"], *artifact_row(row)))


@command(app, "download")
def artifacts_download(
    run: Run,
    artifact: Artifact,
    to: Annotated[Path, typer.Option("--to", help="File or folder.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Fetches the bytes and checks them against their digest."""
    row = run.api.get(f"/artifacts/{refs.artifact_id(run.api, artifact)}")
    path = download(run.api, row, to, force=force)
    run.done(row, f"{path} has the SHA-256 {row['sha256']}.")


@command(app, "optimize")
def artifacts_optimize(
    run: Run,
    artifact: Artifact,
    with_: Annotated[str, typer.Option("--with", help="Optimizer, as in dynamic-quantization.")],
    option: Annotated[
        list[str] | None, typer.Option("--option", metavar="KEY=VALUE", help="An option of it; repeatable.")
    ] = None,
    wait: Wait = False,
) -> None:
    """Starts a job that makes a variant and measures both."""
    body = {"optimizer": with_, "options": options_of(option or [])}
    data = run.api.post(f"/artifacts/{refs.artifact_id(run.api, artifact)}/optimize", body)
    jobs_started(run, [data], data, wait)


@command(app, "import-measurement")
def artifacts_import_measurement(
    run: Run,
    artifact: Artifact,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="What the device printed, as JSON.")
    ],
    dataset: Annotated[int | None, typer.Option("--dataset", help="Number of the rows it was measured on.")] = None,
) -> None:
    """Adds what `python -m engine.evaluate.device` measured on a device without a worker."""
    try:
        measured = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise CliError(f"{file} is not JSON: {error}", ExitCode.USAGE) from error
    path = f"/artifacts/{refs.artifact_id(run.api, artifact)}/measurements"
    row = run.api.post(path, {"measured": measured, "dataset": dataset})
    run.done(row, f"Measured on {row['profile']['cpu']}: p50 {row['latency_p50_ms']:.3f} ms.")
