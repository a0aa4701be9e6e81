"""Options of `slipway endpoints` and `slipway rollout` that say how requests are answered.

Bounds and combinations are the API's to check; here is only what belongs to the command line.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from slipway.cli.client import Json
from slipway.cli.errors import CliError, ExitCode


def _option(kind: Any, name: str, help: str, metavar: str | None = None) -> Any:
    return Annotated[kind, typer.Option(name, help=help, metavar=metavar, show_default=False)]


SETTINGS = {
    "concurrency": _option(int | None, "--concurrency", "Requests at once, per version and server process."),
    "queue": _option(int | None, "--queue", "Requests that may wait; more get 503 at once."),
    "cache_mb": _option(int | None, "--cache-mb", "Memory for answers to equal requests, in MB."),
    "cache_ttl": _option(int | None, "--cache-ttl", "Seconds that an answer is kept."),
    "batching": _option(str | None, "--batching", "auto: waiting requests share a run where it helps; off: never."),
    "batching_max": _option(int | None, "--batching-max", "Requests that share a run at most."),
    "batching_ms": _option(float | None, "--batching-budget-ms", "Milliseconds that a shared run may take."),
    "sticky_header": _option(str | None, "--sticky-header", "Its value keeps a caller on one version."),
}
RESETS = {"limits": "limits", "cache": "cache", "batching": "batching", "sticky-header": "sticky_header"}
RESET = {"reset": _option(list[str] | None, "--reset", "Back to what the servers do; repeatable.", "|".join(RESETS))}
RUNTIME = {
    "provider": _option(str | None, "--provider", "cpu, cuda or openvino. Without: as the replaced version, else cpu."),
    "upstream": _option(str | None, "--upstream", "A V2 server that answers in its place.", "http://HOST:PORT"),
    "upstream_model": _option(str | None, "--upstream-model", "What that server calls the model."),
    "upstream_version": _option(str | None, "--upstream-version", "Its version of the model. Without: its choice."),
    "upstream_timeout": _option(float | None, "--upstream-timeout", "Seconds until it is given up. Without: 10."),
}


def takes(*groups: Json) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Gives a command `function(run, …, **chosen)` the options of these groups; None where one is not given."""

    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        own = inspect.signature(function, eval_str=True)
        its = [each for each in own.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
        for group in groups:
            its += [
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
                for name, kind in group.items()
            ]
        function.__signature__ = own.replace(parameters=its)  # type: ignore[attr-defined]
        return function

    return declare


def settings_of(given: Json, chosen: Json) -> Json:
    """The API's `settings`. `given`: those that hold now, so that one half of a pair may be changed alone."""
    changes: Json = {}
    for name in chosen.get("reset") or []:
        if name not in RESETS:
            raise CliError(f"--reset {name}: one of {', '.join(RESETS)}.", ExitCode.USAGE)
        changes[RESETS[name]] = None
    values = {
        "limits": _said(concurrency=chosen["concurrency"], queue=chosen["queue"]),
        "cache": _said(mb=chosen["cache_mb"], ttl_s=chosen["cache_ttl"]),
        "batching": _said(mode=chosen["batching"], max=chosen["batching_max"], budget_ms=chosen["batching_ms"]),
        **_said(sticky_header=chosen["sticky_header"]),
    }
    for name, value in values.items():
        if value in ({}, None):
            continue
        if name in changes:
            raise CliError(f"--reset {name}: another option sets it at the same time.", ExitCode.USAGE)
        changes[name] = _joined(name, given.get(name), value)
    return changes


def _joined(name: str, before: Any, value: Any) -> Any:
    if name == "sticky_header":
        return value
    if name == "batching":
        if value.get("mode") == "off":
            return value
        before = {"mode": "auto", **{key: each for key, each in (before or {}).items() if key != "mode"}}
    return {**(before or {}), **value}


def runtime_of(chosen: Json) -> Json:
    """The parts of a body that say what runs the deployment: nothing, where nothing was asked for."""
    url, model = chosen["upstream"], chosen["upstream_model"]
    its = _said(model=model, version=chosen["upstream_version"], timeout_s=chosen["upstream_timeout"])
    if its and not url:
        raise CliError("Say where the other server is: --upstream http://HOST:PORT.", ExitCode.USAGE)
    if url and not model:
        raise CliError("Say what the other server calls the model: --upstream-model NAME.", ExitCode.USAGE)
    return _said(provider=chosen["provider"], upstream={"url": url, **its} if url else None)


def _said(**parts: Any) -> Json:
    return {key: value for key, value in parts.items() if value is not None}


def settings_told(row: Json) -> list[tuple[str, str]]:
    """The settings of an endpoint in words, for its card; only what is set."""
    settings, words = row["settings"], []
    if limits := settings.get("limits"):
        words.append(("limits", f"{limits['concurrency']} at once, {limits['queue']} may wait"))
    if cache := settings.get("cache"):
        words.append(("cache", f"{cache['mb']} MB, each answer kept for {cache['ttl_s']} s"))
    if batching := settings.get("batching"):
        bounds = [f"at most {batching['max']}"] if batching.get("max") else []
        bounds += [f"at most {batching['budget_ms']:g} ms a run"] if batching.get("budget_ms") else []
        words.append(("batching", ", ".join([batching["mode"], *bounds])))
    if header := settings.get("sticky_header"):
        words.append(("sticky header", header))
    return words


def runtime_told(row: Json) -> str:
    """`cpu`, `cuda`, or `http://triton:8000 digits/2`: what runs a deployment."""
    if not (upstream := row["upstream"]):
        return str(row["provider"])
    version = f"/{upstream['version']}" if upstream.get("version") else ""
    return f"{upstream['url']} {upstream['model']}{version}"
