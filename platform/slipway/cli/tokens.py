"""`slipway tokens`: one's own API tokens and how often they may call endpoints."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import typer

from slipway.cli import output, refs
from slipway.cli.client import Json
from slipway.cli.command import Limit, Run, Yes, command, noun
from slipway.cli.errors import CliError, ExitCode

app = noun("Your own API tokens: make, list, change the quota, revoke.")
Token = Annotated[str, typer.Argument(metavar="TOKEN", help="Id or name of one of your tokens.")]
Rate = Annotated[
    float | None, typer.Option("--rate", help="Inference requests a second, on average.", show_default=False)
]
Burst = Annotated[
    int | None,
    typer.Option("--burst", help="Requests at once. Without one: those of one second.", show_default=False),
]


def quota_of(row: Json) -> str:
    """`10/s, 20 at once`, or `none`."""
    return "none" if row["rate"] is None else f"{row['rate']:g}/s, {row['burst']} at once"


@command(app, "list")
def tokens_list(run: Run, limit: Limit = 50) -> None:
    """Newest first; their text is stored nowhere."""
    run.listing(
        run.api.rows("/tokens", limit),
        ("id", "token", "begins with", "scope", "quota", "last used", "expires"),
        lambda row: (
            row["id"],
            row["name"],
            row["prefix"],
            row["scope"],
            quota_of(row),
            output.when(row["last_used_at"]),
            output.when(row["expires_at"]),
        ),
    )


@command(app, "create")
def tokens_create(
    run: Run,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.")],
    scope: Annotated[str, typer.Option("--scope", help="read, write or infer.")] = "write",
    days: Annotated[
        int | None, typer.Option("--days", min=1, max=3650, help="Days until it expires.", show_default="never")
    ] = None,
    rate: Rate = None,
    burst: Burst = None,
) -> None:
    """Prints the text of a new token, this once."""
    body: Json = {"name": name, "scope": scope, "rate": rate, "burst": burst}
    if days:
        body["expires_at"] = (dt.datetime.now(dt.UTC) + dt.timedelta(days=days)).isoformat()
    # Not repeated when the answer is lost: the text would be lost with it, and a second token be made.
    run.show(run.api.post("/tokens", body), lambda made: output.say(made["token"]))


@command(app, "quota")
def tokens_quota(
    run: Run,
    token: Token,
    rate: Rate = None,
    burst: Annotated[int | None, typer.Option("--burst", help="Requests at once.", show_default="as before")] = None,
    none: Annotated[bool, typer.Option("--none", help="Takes the quota away.")] = False,
) -> None:
    """Changes how often a token may call endpoints; what is not named stays. Its text stays the same."""
    if none == (rate is not None or burst is not None):
        raise CliError("Say --rate, --burst or both, or else --none.", ExitCode.USAGE)
    path = f"/tokens/{refs.token_id(run.api, token)}"
    read = run.api.read(path)
    body = {"rate": None} if none else {k: v for k, v in (("rate", rate), ("burst", burst)) if v is not None}
    data = run.api.change("PATCH", path, body, read.etag)
    run.done(data, f"Quota of {data['name']}: {quota_of(data)}. The servers follow within seconds.")


@command(app, "revoke")
def tokens_revoke(run: Run, token: Token, yes: Yes = False) -> None:
    """Deletes a token; calls with it fail from now on."""
    path = f"/tokens/{refs.token_id(run.api, token)}"
    name = run.api.get(path)["name"]
    run.confirm(f"Revoke the token {name}? Calls with it fail from now on.", yes)
    run.done(run.api.change("DELETE", path), f"Token {name} is revoked.")
