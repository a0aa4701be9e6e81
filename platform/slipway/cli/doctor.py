"""`slipway doctor`: is everything there, and what to do about what is not."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from slipway.cli import output
from slipway.cli.client import Api, Json
from slipway.cli.command import Run
from slipway.cli.connection import is_loopback
from slipway.cli.errors import CliError, ExitCode

CLOCK_ATTENTION, CLOCK_BAD = 5.0, 300.0  # beyond five minutes signed hooks are refused


class Finding(NamedTuple):
    """One line: `state` is good, attention or bad; `hint` says what to do."""

    check: str
    state: str
    text: str
    hint: str = ""


def doctor(run: Run) -> None:
    """Checks address, token, database, Redis, MLflow, the inference server and the clock."""
    found = list(findings(run.api))
    run.show([each._asdict() for each in found], lambda _: _table(found))
    bad = sum(each.state == "bad" for each in found)
    if bad:
        raise CliError(f"{bad} of {len(found)} checks are bad.", ExitCode.FAILED)


def _table(found: list[Finding]) -> None:
    output.table(("", "check", "finding", "what to do"), ((e.state, e.check, e.text, e.hint) for e in found))


def findings(api: Api) -> Iterator[Finding]:
    """Every check that makes sense, in order; without a server there is only the first."""
    url = api.connection.url
    try:
        health, skew = _health(api)
    except CliError as error:
        yield Finding("address", "bad", error.text, "Start Slipway (`make up`), or set --url or SLIPWAY_URL.")
    else:
        yield _address(url)
        yield from _parts(health)
        yield from _token(api)
        yield from _guarded("MLflow", "Look at the log of the process `mlflow`.", lambda: _mlflow(api))
        if skew is not None:
            yield _clock(skew)
    yield from _guarded("serving", SERVING_HINT, lambda: _serving(api))


SERVING_HINT = "Is the process `serving` up? Set --serving or SLIPWAY_SERVING_URL where it runs elsewhere."


def _guarded(check: str, hint: str, look: Callable[[], Finding]) -> Iterator[Finding]:
    try:
        yield look()
    except CliError as error:
        yield Finding(check, "bad", error.text, hint)


def _health(api: Api) -> tuple[Json, float | None]:
    """`/healthz`, and how many seconds the server's clock is ahead of ours."""
    import httpx

    from slipway.cli.client import reaching

    url = f"{api.connection.url}/healthz"
    before = time.time()
    with reaching(url):
        response = api.http.get(url, timeout=httpx.Timeout(10, connect=5))
    middle = (before + time.time()) / 2
    try:
        health = response.json()
        if "database" not in health:
            raise ValueError
    except (ValueError, TypeError):
        raise CliError(f"{url} answers {response.status_code}, but not as Slipway does.", ExitCode.SERVER) from None
    try:
        # The header has whole seconds: on the average it is half a second behind.
        skew = parsedate_to_datetime(response.headers["Date"]).timestamp() + 0.5 - middle
    except (KeyError, ValueError):
        skew = None
    return health, skew


def _address(url: str) -> Finding:
    if url.startswith("http://") and not is_loopback(url):
        return Finding(
            "address", "attention", f"{url} is not encrypted", "Use https: the token can be read on the way."
        )
    return Finding("address", "good", f"{url} answers")


def _parts(health: Json) -> Iterator[Finding]:
    if health["database"] == "ok":
        yield Finding("database", "good", "PostgreSQL answers")
    else:
        yield Finding("database", "bad", "PostgreSQL does not answer", "Look at DATABASE_URL and PostgreSQL's log.")
    if health.get("redis") == "ok":
        yield Finding("redis", "good", "Redis answers")
    else:
        hint = "Jobs begin later until it is back. Look at REDIS_URL."
        yield Finding("redis", "attention", "Redis does not answer", hint)
    if "sandbox" in health:
        if health["sandbox"] in ("ok", "on", True):
            yield Finding("sandbox", "good", "untrusted models are parsed in isolation")
        else:
            hint = "Models are refused, or parsed without walls if SLIPWAY_SANDBOX=off says so."
            yield Finding("sandbox", "bad", f"isolation: {health['sandbox']}", hint)


def _token(api: Api) -> Iterator[Finding]:
    """What the token may do, tried without changing anything: a model without a name is never made."""
    source = api.connection.source
    if not api.connection.token:
        yield Finding("token", "bad", "there is none", "Run `slipway login`, or set SLIPWAY_TOKEN.")
        return
    try:
        page = api.get("/models", limit=1)
    except CliError as error:
        infer = error.status == 403
        hint = (
            "It is of scope “infer”: for `endpoints predict` only." if infer else "Make a new one on your account page."
        )
        yield Finding("token", "attention" if infer else "bad", f"{error.text} ({source})", hint)
        return
    yield Finding("token", "good", f"accepted ({source})")
    try:
        api.post("/models", {})
    except CliError as error:
        if error.code is ExitCode.INVALID:
            yield Finding("rights", "good", "it may read and, where your role allows it, change")
        else:
            yield Finding("rights", "attention", "it may only read", "To change things make a token of scope “write”.")
    if not page["results"]:
        hint = "Upload or register one, or ask an admin of the project to make you a member."
        yield Finding("models", "attention", "you see no models", hint)


def _mlflow(api: Api) -> Finding:
    url = f"{api.connection.url}/mlflow/api/2.0/mlflow/experiments/search"
    answer: Any = api.fetch("GET", url, params={"max_results": 1}, timeout=15).json()
    if not isinstance(answer, dict):
        raise CliError("/mlflow/ answers, but not as MLflow does.", ExitCode.SERVER)
    return Finding("MLflow", "good", f"answers at {api.connection.url}/mlflow/")


def _serving(api: Api) -> Finding:
    base = api.connection.serving
    name = api.fetch("GET", f"{base}/v2", timeout=5).json().get("name", "?")
    try:
        api.fetch("GET", f"{base}/v2/health/ready", timeout=5)
    except CliError as error:
        if error.code is ExitCode.UNREACHABLE:
            raise
        return Finding("serving", "attention", f"{base} is not ready yet", "It is loading models; look again soon.")
    return Finding("serving", "good", f"{name} answers at {base}")


def _clock(skew: float) -> Finding:
    amount = abs(skew)
    if amount < CLOCK_ATTENTION:
        return Finding("clock", "good", "the clocks agree")
    text = f"the server's clock is {dt.timedelta(seconds=round(amount))} {'ahead of' if skew > 0 else 'behind'} yours"
    hint = "Set the clocks (NTP): from five minutes on, signed hooks are refused."
    return Finding("clock", "bad" if amount > CLOCK_BAD else "attention", text, hint)
