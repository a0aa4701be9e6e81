"""`slipway policies`: when models are retrained."""

from __future__ import annotations

from typing import Annotated

import typer

from slipway.cli import output, refs
from slipway.cli.client import Json
from slipway.cli.command import Limit, Run, Wait, Yes, command, noun
from slipway.cli.follow import jobs_finish
from slipway.cli.versions import model_names

app = noun("When models are retrained: on a schedule, by a signed hook, by hand.")
Policy = Annotated[str, typer.Argument(metavar="POLICY", help=refs.POLICY)]


@command(app, "list")
def policies_list(
    run: Run,
    model: Annotated[str | None, typer.Option("--model", help=refs.MODEL)] = None,
    limit: Limit = 50,
) -> None:
    """Newest first."""
    model_id = refs.model_id(run.api, model) if model else None
    page = run.api.rows("/policies", limit, model=model_id)
    names = {} if run.json else model_names(run.api, page["results"])
    run.listing(
        page,
        ("id", "policy", "enabled", "cron", "hook", "cool-down s"),
        lambda row: (
            row["id"],
            f"{names[row['model']]}/{row['name']}",
            row["enabled"],
            row["cron"],
            row["hook_url"],
            row["cooldown_seconds"],
        ),
    )


@command(app, "create")
def policies_create(
    run: Run,
    model: Annotated[str, typer.Argument(metavar="MODEL", help=refs.MODEL)],
    name: Annotated[str, typer.Argument(metavar="NAME")],
    cron: Annotated[str, typer.Option("--cron", help="Five fields, in UTC, as in '0 3 * * *'.")] = "",
    hook: Annotated[bool, typer.Option("--hook/--no-hook", help="Whether a signed call fires it.")] = True,
    cooldown: Annotated[int, typer.Option("--cooldown", min=0, help="Seconds it rests after it fired.")] = 0,
) -> None:
    """A policy; `slipway policies secret` shows what signs calls of its hook."""
    body: Json = {
        "model": refs.model_id(run.api, model),
        "name": name,
        "cron": cron,
        "hook": hook,
        "cooldown_seconds": cooldown,
    }
    data = run.api.create("/policies", body)
    run.done(data, f"Policy {data['name']} has the id {data['id']}.")


@command(app, "fire")
def policies_fire(run: Run, policy: Policy, wait: Wait = False) -> None:
    """Retrains now."""
    data = run.api.post(f"/policies/{refs.policy_id(run.api, policy)}/fire")
    if wait:
        jobs_finish(run, [data["job"]])
        return
    run.done(data, f"Job {data['job']} retrains. Follow it with `slipway jobs watch {data['job']}`.")


@command(app, "secret")
def policies_secret(run: Run, policy: Policy) -> None:
    """The secret that signs calls of the hook (Standard Webhooks)."""
    data = run.api.post(f"/policies/{refs.policy_id(run.api, policy)}/secret")
    run.show(data, lambda found: output.say(found["secret"]))


@command(app, "rotate")
def policies_rotate(run: Run, policy: Policy, yes: Yes = False) -> None:
    """A new secret; calls signed with the old one fail from now on."""
    policy_id = refs.policy_id(run.api, policy)
    run.confirm(f"Replace the secret of policy {policy}? Callers need the new one.", yes)
    data = run.api.post(f"/policies/{policy_id}/rotate")
    run.show(data, lambda found: output.say(found["secret"]))
