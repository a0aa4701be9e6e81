"""The door to MLflow: every request is judged here before a byte of it is forwarded."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, close_old_connections
from django.db.models import Q
from django.http.request import split_domain_port, validate_host

from registry.mlflow import ownership, rules
from registry.mlflow.access import Verdict, Verdicts, credential_of, is_same_origin
from registry.mlflow.rules import Access
from registry.models import Model, Version
from slipway.environment import environment
from slipway.jobs.models import Job

log = structlog.get_logger(__name__)

Scope = MutableMapping[str, Any]
Send = Callable[[Any], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

# Whose files are in a place is remembered for a moment: a training run stores many at once.
PLACES = 4096
PLACE_SECONDS = 5.0


class Refused(Exception):
    """An answer of our own in place of MLflow's."""

    def __init__(self, status: int, code: str, text: str, headers: Headers | None = None) -> None:
        super().__init__(text)
        self.status, self.code, self.text, self.headers = status, code, text, headers or []


class Door:
    """Judges requests; the database is asked in a few threads that keep their connections."""

    def __init__(self) -> None:
        self._verdicts = Verdicts()
        self._places: dict[ownership.Place, tuple[str, float]] = {}
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="mlflow-access")

    def close(self) -> None:
        """Ends the threads."""
        self._threads.shutdown(wait=False)

    async def admit(self, scope: Scope, headers: dict[bytes, bytes], path: str) -> Verdict:
        """The verdict of a request that may pass; raises the `Refused` answer otherwise."""
        domain, _ = split_domain_port(headers.get(b"host", b"").decode("latin-1"))
        if not validate_host(domain, settings.ALLOWED_HOSTS):
            raise Refused(400, "INVALID_PARAMETER_VALUE", "This host name is not one of SLIPWAY_ALLOWED_HOSTS.")
        access = rules.access_of(scope["method"], path)
        if access is Access.CLOSED:
            raise Refused(403, "PERMISSION_DENIED", "This part of MLflow is closed behind Slipway.")
        credential = credential_of(headers)
        verdict = None
        if credential is not None:
            verdict = self._verdicts.remembered(credential)
            if verdict is None:
                look_up = asyncio.get_running_loop().run_in_executor
                try:
                    verdict = await look_up(self._threads, self._verdicts.look_up, credential)
                except (OperationalError, InterfaceError) as error:
                    log.warning("mlflow_access_database_away", error=str(error))
                    raise away("Slipway's database does not answer. Try again in a few seconds.") from error
        if credential is None or verdict is None:
            raise _anonymous(scope, headers)
        unsafe = scope["method"] not in {"GET", "HEAD", "OPTIONS"}
        if credential.kind == "session" and unsafe and not is_same_origin(headers, scheme_of(scope, headers)):
            raise Refused(403, "PERMISSION_DENIED", "A signed-in browser may only send this from Slipway's pages.")
        if not verdict.permits(access):
            raise Refused(403, "PERMISSION_DENIED", _denial(access, verdict))
        return verdict

    async def placed(self, scope: Scope, path: str, verdict: Verdict) -> None:
        """Raises the `Refused` answer when files of another project's version would change (see `ownership`)."""
        if verdict.projects is None:
            return
        try:
            place = ownership.place_of(scope["method"], path, scope["query_string"])
        except ownership.Denied as denied:
            raise Refused(403, "PERMISSION_DENIED", str(denied)) from None
        if place is None:
            return
        known = self._places.get(place)
        if known is None or known[1] < time.monotonic():
            try:
                owner = await asyncio.get_running_loop().run_in_executor(self._threads, _owner, place)
            except (OperationalError, InterfaceError) as error:
                log.warning("mlflow_access_database_away", error=str(error))
                raise away("Slipway's database does not answer. Try again in a few seconds.") from error
            if len(self._places) >= PLACES:
                self._places.clear()
            known = self._places[place] = (owner, time.monotonic() + PLACE_SECONDS)
        if known[0] and not verdict.may_write_in(known[0]):
            raise Refused(403, "PERMISSION_DENIED", "These files belong to a project in which you may not write.")

    async def registered(self, path: str, body: bytes, verdict: Verdict) -> bytes:
        """The body of a change of a registered model, as it may pass on (see `ownership`)."""
        look_up = asyncio.get_running_loop().run_in_executor
        try:
            names = ownership.names_in(body)
            owners = await look_up(self._threads, _owners, names) if names else {}
            return ownership.judged(path, body, verdict, owners)
        except ownership.Denied as denied:
            code = "PERMISSION_DENIED" if denied.status == 403 else "INVALID_PARAMETER_VALUE"
            raise Refused(denied.status, code, str(denied)) from None
        except (OperationalError, InterfaceError) as error:
            log.warning("mlflow_access_database_away", error=str(error))
            raise away("Slipway's database does not answer. Try again in a few seconds.") from error


def _owner(place: ownership.Place) -> str:
    """Slug of the project whose version came first out of a run or a logged model, or an empty text."""
    close_old_connections()
    if place.model:
        source = Q(mlflow_source=f"models:/{place.model}")
        uri = f"mlflow-artifacts:/{place.experiment}/models/{place.model}/artifacts"
        rows = Version.objects.filter(source | Q(mlflow_source=uri) | Q(artifacts__uri=uri))
    else:
        rows = Version.objects.filter(mlflow_run_id=place.run)
    found = rows.order_by("id").values_list("model__project__slug", flat=True).first()
    if found is None and place.run:  # a run that records one of our jobs
        found = Job.objects.filter(mlflow_run_id=place.run).values_list("project__slug", flat=True).first()
    return found or ""


def _owners(names: list[str]) -> dict[str, str]:
    """{MLflow name: slug of the project that its model is in}."""
    close_old_connections()
    # PostgreSQL holds no NUL, so no model has a name with one.
    wanted = [name for name in names if "\x00" not in name]
    return dict(Model.objects.filter(mlflow_name__in=wanted).values_list("mlflow_name", "project__slug"))


async def answer(send: Send, refused: Refused) -> None:
    """An answer of our own: MLflow's JSON form of an error, or plain text where nothing can be asked."""
    headers = list(refused.headers)
    if refused.status == 503:
        content, body = b"text/plain; charset=utf-8", refused.text.encode() + b"\n"
    else:
        content = b"application/json"
        body = json.dumps({"error_code": refused.code, "message": refused.text}).encode() if refused.code else b""
    headers += [(b"content-type", content), (b"content-length", str(len(body)).encode())]
    headers.append((b"cache-control", b"no-store"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _anonymous(scope: Scope, headers: dict[bytes, bytes]) -> Refused:
    wants_page = scope["method"] == "GET" and b"text/html" in headers.get(b"accept", b"")
    if wants_page and b"authorization" not in headers:
        query = scope["query_string"].decode("latin-1")
        here = quote(scope["path"]) + (f"?{query}" if query else "")
        login = f"/login/?next={quote(here, safe='/')}"
        return Refused(302, "", "", [(b"location", login.encode())])
    text = (
        "This token is unknown, expired or revoked."
        if b"authorization" in headers
        else "Sign in, or send an API token (MLFLOW_TRACKING_TOKEN)."
    )
    challenge = [(b"www-authenticate", b'Bearer realm="slipway"')]
    return Refused(401, "UNAUTHENTICATED", text, challenge)


def _denial(access: Access, verdict: Verdict) -> str:
    if access is Access.READ:
        return "This account is not a member of any project."
    if access is Access.WRITE:
        return "Changing something in MLflow needs a role that may write and, by token, one of scope “write”."
    return "This part of MLflow is for administrators of Slipway."


def away(text: str) -> Refused:
    """503: something behind us does not answer; clients are told when to come again."""
    return Refused(503, "TEMPORARILY_UNAVAILABLE", text, [(b"retry-after", b"5")])


def scheme_of(scope: Scope, headers: dict[bytes, bytes]) -> str:
    """`https` also where TLS ends at a proxy in front, if settings say that there is one."""
    forwarded = headers.get(b"x-forwarded-proto", b"")
    return "https" if environment.https and forwarded == b"https" else str(scope.get("scheme", "http"))
