"""`slipway models`: named lines of versions."""

from __future__ import annotations

from typing import Annotated

import typer

from slipway.cli import output, refs
from slipway.cli.client import Json
from slipway.cli.command import Limit, Project, Run, Yes, command, noun

app = noun("Named lines of versions, and their aliases.")
Model = Annotated[str, typer.Argument(metavar="MODEL", help=refs.MODEL)]
Alias = Annotated[str, typer.Argument(metavar="ALIAS", help="As in champion, challenger, or a word of your own.")]
TASKS = (
    "image-classification, text-classification, tabular-classification, tabular-regression, "
    "recommendation, embedding or other."
)


def aliases_of(row: Json) -> str:
    """`champion → 3, challenger → 4`."""
    return ", ".join(f"{alias['name']} → {alias['version']}" for alias in row["aliases"])


@command(app, "list")
def models_list(
    run: Run,
    task: Annotated[str | None, typer.Option("--task", help=TASKS)] = None,
    archived: Annotated[bool, typer.Option("--archived", help="The archived ones.")] = False,
    project: Project = None,
    limit: Limit = 50,
) -> None:
    """Newest first; archived ones only with --archived."""
    page = run.api.rows("/models", limit, task=task, project=project, archived="true" if archived else "false")
    run.listing(
        page,
        ("id", "model", "task", "versions", "aliases", "project", "created"),
        lambda row: (
            row["id"],
            row["name"],
            row["task"],
            row["last_number"],
            aliases_of(row),
            row["project"],
            output.when(row["created_at"]),
        ),
    )


@command(app, "show")
def models_show(run: Run, model: Model) -> None:
    """One model with its latest versions."""
    run.show(run.api.get(f"/models/{refs.model_id(run.api, model)}"), _card)


def _card(row: Json) -> None:
    output.record(
        (
            ("model", row["name"]),
            ("id", row["id"]),
            ("project", row["project"]),
            ("task", row["task"]),
            ("aliases", aliases_of(row)),
            ("tags", ", ".join(row["tags"])),
            ("MLflow name", row["mlflow_name"]),
            ("description", row["description"]),
            ("created", output.when(row["created_at"])),
            ("archived", output.when(row["archived_at"])),
        )
    )
    output.say()
    output.table(
        ("version", "id", "state", "approval", "origin", "metrics", "created"),
        (
            (
                version["number"],
                version["id"],
                version["state"],
                version["approval"],
                version["origin"],
                metrics_of(version),
                output.when(version["created_at"]),
            )
            for version in row["latest_versions"]
        ),
        empty="No versions yet.",
    )


def metrics_of(version: Json) -> str:
    """The first few metrics on one line."""
    return ", ".join(f"{name} {output.cell(value)}" for name, value in list(version["metrics"].items())[:3])


@command(app, "create")
def models_create(
    run: Run,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    project: Annotated[str, typer.Option("--project", envvar="SLIPWAY_PROJECT", help="Slug of its project.")],
    task: Annotated[str, typer.Option("--task", help=TASKS)] = "other",
    description: Annotated[str, typer.Option("--description", help="Markdown.")] = "",
) -> None:
    """A model without versions."""
    data = run.api.create(
        "/models", {"project": project, "name": name, "task": task, "description": description}
    )  # fmt: skip
    run.done(data, f"Model {data['name']} has the id {data['id']}.")


@command(app, "archive")
def models_archive(
    run: Run,
    model: Model,
    restore: Annotated[bool, typer.Option("--restore", help="Take it back instead.")] = False,
    yes: Yes = False,
) -> None:
    """Takes a model off the lists and refuses new versions; nothing is deleted."""
    path = f"/models/{refs.model_id(run.api, model)}"
    read = run.api.read(path)
    if not restore:
        run.confirm(f"Archive model {read.row['name']} with {read.row['last_number']} versions?", yes)
    data = run.api.change("PATCH", path, {"archived": not restore}, read.etag)
    run.done(data, f"Model {data['name']} is {'back' if restore else 'archived'}.")


@command(app, "alias")
def models_alias(
    run: Run,
    model: Model,
    alias: Alias,
    number: Annotated[int, typer.Argument(metavar="NUMBER", min=1, help="Number of the version.")],
) -> None:
    """Points an alias at a version, taking it from the one that had it."""
    path = f"/models/{refs.model_id(run.api, model)}/aliases/{refs.segment(alias)}"
    data = run.api.change("PUT", path, {"version": number})
    run.done(data, f"{data['name']} of {model} is now version {data['version']}.")


@command(app, "unalias")
def models_unalias(run: Run, model: Model, alias: Alias, yes: Yes = False) -> None:
    """Removes an alias; the version stays."""
    path = f"/models/{refs.model_id(run.api, model)}/aliases/{refs.segment(alias)}"
    run.confirm(f"Remove the alias {alias} of {model}?", yes)
    run.done(run.api.change("DELETE", path), f"{model} has no alias {alias} any more.")
