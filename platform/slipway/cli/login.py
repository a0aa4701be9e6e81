"""`slipway login`: remembers an address and its token."""

from __future__ import annotations

import sys

import typer

from slipway.cli import output
from slipway.cli.client import Api
from slipway.cli.command import Run
from slipway.cli.connection import (
    DEFAULT_URL,
    Connection,
    address,
    config_read,
    config_write,
    connect,
    is_loopback,
    token_check,
)
from slipway.cli.errors import CliError, ExitCode


def login(run: Run) -> None:
    """Asks for a token, tries it, and stores it for this address (readable by you alone)."""
    options = run.options
    url = address(options.url or DEFAULT_URL)
    if not is_loopback(url) and url.startswith("http://"):
        output.note(f"{url} is not encrypted: anybody on the way can read the token.")
    token = options.token
    if token:
        output.note("The token is that of --token or SLIPWAY_TOKEN.")
    else:
        ask = sys.stdin.isatty()
        token = typer.prompt("API token", hide_input=True, err=True) if ask else sys.stdin.readline()
    token = token_check(token or "")
    if not token:
        raise CliError("There is no token to store.", ExitCode.USAGE)
    serving = address(options.serving, "--serving") if options.serving else ""
    try:
        Api(Connection(url, token, serving or url, "")).get("/models", limit=1)
    except CliError as error:
        if error.status != 403:
            raise
        output.note("This token is of scope “infer”: it is for `slipway endpoints predict` only.")
    config = config_read()
    config["servers"][url] = {"token": token, **({"serving": serving} if serving else {})}
    config["current"] = url
    path = config_write(config)
    output.say(f"Signed in at {url}. The token is in {path}.")
    used = connect(url, None, None)
    if used.token != token:
        output.note(f"Here the token of {used.source} comes first.")
