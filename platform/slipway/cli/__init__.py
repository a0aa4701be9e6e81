"""`slipway`: everything the dashboard does, from a shell. A client of the REST API and nothing else.

Exit codes: 0 done; 1 a job or rollout did not succeed, doctor found something bad, or you said no;
2 wrong usage; 3 cannot connect; 4 not signed in, or not allowed; 5 not found; 6 conflict, or changed by
somebody else (409, 412, 428); 7 refused as not valid (400, 422 and other 4xx); 8 error of the server
(5xx, 429); 130 interrupted.

It imports neither Django nor any app, and the HTTP library and rich only when they are needed.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from slipway.cli import (
    alerts,
    artifacts,
    doctor,
    endpoints,
    jobs,
    login,
    models,
    policies,
    rollout,
    search,
    tokens,
    versions,
)
from slipway.cli.command import Globals, command
from slipway.cli.errors import MEANINGS
from slipway.cli.output import Output

EPILOG = "Exit codes: " + " · ".join(f"{int(code)} {meaning}" for code, meaning in MEANINGS.items())

app = typer.Typer(
    name="slipway",
    help="From a trained model to a monitored, reversible production endpoint.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (models, versions, artifacts, search, jobs, endpoints, rollout, policies, alerts, tokens):
    app.add_typer(module.app, name=module.__name__.rpartition(".")[2])
command(app, "doctor")(doctor.doctor)
command(app, "login")(login.login)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(version("slipway"))
        except PackageNotFoundError:
            print("unknown")
        raise typer.Exit


@app.callback()
def main(
    ctx: typer.Context,
    output: Annotated[Output | None, typer.Option("-o", "--output", help="How to print.", show_default="table")] = None,
    url: Annotated[
        str | None,
        typer.Option("--url", envvar="SLIPWAY_URL", help="Address of Slipway.", show_default="http://127.0.0.1:8000"),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option("--token", envvar="SLIPWAY_TOKEN", help="API token.", show_default="that of make up or login"),
    ] = None,
    serving: Annotated[
        str | None,
        typer.Option(
            "--serving", envvar="SLIPWAY_SERVING_URL", help="Inference server.", show_default="port 8080 beside --url"
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """From a trained model to a monitored, reversible production endpoint."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal of another encoding is no reason to stop
    ctx.obj = Globals(output=output, url=url, token=token, serving=serving)
