"""What every command shares: -o, --url, --token, errors as text and exit codes, confirmation."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from slipway.cli import output
from slipway.cli.client import Api, Json
from slipway.cli.connection import connect
from slipway.cli.errors import CliError, ExitCode
from slipway.cli.output import Output

OutputOption = Annotated[Output | None, typer.Option("-o", "--output", help="How to print.", show_default="table")]
UrlOption = Annotated[str | None, typer.Option("--url", help="Address of Slipway.", show_default=False)]
TokenOption = Annotated[str | None, typer.Option("--token", help="API token.", show_default=False)]
ServingOption = Annotated[
    str | None, typer.Option("--serving", help="Address of the inference server.", show_default=False)
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Wait = Annotated[bool, typer.Option("--wait", help="Follow the job and end with its state.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many rows.")]
Project = Annotated[
    str | None, typer.Option("--project", envvar="SLIPWAY_PROJECT", help="Slug of a project.", show_default=False)
]
_SHARED = {"output_": OutputOption, "url_": UrlOption, "token_": TokenOption, "serving_": ServingOption}


@dataclass
class Globals:
    """Options before the noun; the same options after the verb win."""

    output: Output | None = None
    url: str | None = None
    token: str | None = None
    serving: str | None = None


class Run:
    """One running command: its options, its connection, its way of printing."""

    def __init__(self, options: Globals) -> None:
        self.options = options
        self.json = options.output is Output.JSON

    @functools.cached_property
    def api(self) -> Api:
        """The server, put together when a command first needs it."""
        return Api(connect(self.options.url, self.options.token, self.options.serving))

    def show(self, data: Any, table: Callable[[Any], None]) -> None:
        """Prints the API's answer as JSON, or as the table that `table` draws."""
        if not self.json:
            table(data)
        elif data is not None:
            print(output.as_json(data))

    def listing(self, page: Json, columns: Sequence[str], row: Callable[[Json], Sequence[Any]]) -> None:
        """Prints a list; a sentence on stderr says when there is more."""
        self.show(page, lambda data: output.table(columns, map(row, data["results"])))
        if page["next"] and not self.json:
            output.note("There are more; see --limit.")

    def done(self, data: Any, text: str) -> None:
        """After a change: JSON, or one sentence."""
        self.show(data, lambda _: output.say(text))

    def confirm(self, question: str, yes: bool) -> None:
        """Asks before something is lost. Without a terminal there is nobody to ask, so it refuses."""
        if yes:
            return
        if not sys.stdin.isatty():
            raise CliError(f"{question} There is no terminal to ask on: say --yes.", ExitCode.USAGE)
        if not typer.confirm(output.clean(question), err=True):
            raise CliError("Nothing was changed.", ExitCode.FAILED)


def report(error: CliError) -> None:
    """Prints an error, quietly: its sentence and its lines."""
    output.note(f"slipway: {error.text}")
    for line in error.lines:
        output.note(f"  {line}")


def command(app: typer.Typer, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declares a command `function(run, …)`: adds the shared options, catches errors and Ctrl-C."""

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        own = inspect.signature(function, eval_str=True)

        @functools.wraps(function)
        def wrapper(ctx: typer.Context, **given: Any) -> None:
            before = ctx.obj if isinstance(ctx.obj, Globals) else Globals()
            after = {key.rstrip("_"): given.pop(key) for key in _SHARED}
            options = Globals(**{key: value or getattr(before, key) for key, value in after.items()})
            guarded(lambda: function(Run(options), **given))

        parameters = [inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)]
        its = list(own.parameters.values())[1:]
        parameters += [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in its]
        parameters += [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
            for key, kind in _SHARED.items()
        ]
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {each.name: each.annotation for each in parameters}
        del wrapper.__wrapped__  # type: ignore[attr-defined]  # its signature is not the command's
        return app.command(name)(wrapper)

    return declare


def guarded(work: Callable[[], Any]) -> None:
    """Runs a command's body; what goes wrong ends in a sentence and an exit code."""
    try:
        work()
        sys.stdout.flush()
    except CliError as error:
        report(error)
        raise typer.Exit(int(error.code)) from None
    except (KeyboardInterrupt, typer.Abort):
        print(file=sys.stderr)
        raise typer.Exit(int(ExitCode.INTERRUPTED)) from None


def noun(help: str) -> typer.Typer:
    """A group of commands around one noun."""
    return typer.Typer(help=help, no_args_is_help=True, rich_markup_mode="rich")
