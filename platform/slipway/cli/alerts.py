"""`slipway alerts`: what a person should look at."""

from __future__ import annotations

from typing import Annotated

import typer

from slipway.cli import output
from slipway.cli.command import Limit, Run, command, noun

app = noun("What a person should look at.")


@command(app, "list")
def alerts_list(
    run: Run,
    state: Annotated[str | None, typer.Option("--state", help="firing, acknowledged or resolved.")] = None,
    limit: Limit = 50,
) -> None:
    """Newest first."""
    run.listing(
        run.api.rows("/alerts", limit, state=state),
        ("id", "state", "title", "text", "since"),
        lambda row: (row["id"], row["state"], row["title"], row["text"], output.when(row["created_at"])),
    )


@command(app, "ack")
def alerts_ack(run: Run, alert: Annotated[int, typer.Argument(metavar="ALERT", min=1, help="Id of an alert.")]) -> None:
    """Says that somebody looks after it."""
    data = run.api.post(f"/alerts/{alert}/acknowledge")
    run.done(data, f"Alert {alert} ({data['title']}) is acknowledged.")
