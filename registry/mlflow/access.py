"""Who may use MLflow through the one port: tokens and session cookies into a verdict.

MLflow knows no projects, so its door asks for a role in any of ours: whoever sees a project may read, whoever
may write in one may log and register. What becomes of a version is decided by the registry, per project.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import time
from collections import OrderedDict
from dataclasses import dataclass
from importlib import import_module
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib import auth
from django.db import close_old_connections
from django.http import HttpRequest, parse_cookie
from django.utils import timezone

from registry.mlflow.rules import Access
from slipway.accounts import policy
from slipway.accounts.authentication import bearer, token_of
from slipway.accounts.models import Project

CACHE_SECONDS = 5.0
CACHE_SIZE = 2000


@dataclass(frozen=True)
class Verdict:
    """What a credential may do, until when (monotonic seconds) this may be believed."""

    user: str
    read: bool
    write: bool
    admin: bool
    until: float
    # Slugs of the projects in which it may write (None: in all), and where what names no project goes when it
    # may not go to the first one.
    projects: frozenset[str] | None = frozenset()
    home: str = ""

    def may_write_in(self, slug: str) -> bool:
        return self.projects is None or slug in self.projects

    def permits(self, access: Access) -> bool:
        return {Access.READ: self.read, Access.WRITE: self.write, Access.ADMIN: self.admin}.get(access, False)


@dataclass(frozen=True)
class Credential:
    """A token's text or a session's key."""

    kind: str
    text: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.kind}:{self.text}".encode()).hexdigest()


def credential_of(headers: dict[bytes, bytes]) -> Credential | None:
    """The credential of a request: bearer, basic (the token as password), else the session cookie."""
    header = headers.get(b"authorization", b"").decode("latin-1")
    if header:
        text = bearer(header) or _basic_password(header)
        return Credential("token", text) if text else None
    cookies = parse_cookie(headers.get(b"cookie", b"").decode("latin-1"))
    key = cookies.get(settings.SESSION_COOKIE_NAME, "")
    return Credential("session", key) if key else None


def _basic_password(header: str) -> str | None:
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(value.strip(), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return decoded.partition(":")[2] or None


class Verdicts:
    """Verdicts of the last few seconds, so that a page of MLflow's UI costs one look-up and not fifty."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Verdict] = OrderedDict()
        self._lock = Lock()

    def remembered(self, credential: Credential) -> Verdict | None:
        with self._lock:
            verdict = self._known.get(credential.digest)
        return verdict if verdict is not None and verdict.until > time.monotonic() else None

    def look_up(self, credential: Credential) -> Verdict | None:
        """Asks the database (blocking; call it in a thread). None for an unknown or ended credential."""
        close_old_connections()
        try:
            verdict = _from_token(credential.text) if credential.kind == "token" else _from_session(credential)
        finally:
            close_old_connections()
        if verdict is not None:
            with self._lock:
                self._known[credential.digest] = verdict
                self._known.move_to_end(credential.digest)
                while len(self._known) > CACHE_SIZE:
                    self._known.popitem(last=False)
        return verdict


def _from_token(text: str) -> Verdict | None:
    token = token_of(text)
    if token is None:
        return None
    token.user.used_token = token  # type: ignore[attr-defined]
    left = (token.expires_at - timezone.now()).total_seconds() if token.expires_at else CACHE_SECONDS
    return _verdict(token.user, min(CACHE_SECONDS, left))


def _from_session(credential: Credential) -> Verdict | None:
    request = HttpRequest()
    request.session = import_module(settings.SESSION_ENGINE).SessionStore(credential.text)
    user = auth.get_user(request)
    return _verdict(user, CACHE_SECONDS) if user.is_authenticated and user.is_active else None


def _verdict(user: Any, seconds: float) -> Verdict:
    ids = [0] if user.is_superuser else list(policy.roles_of(user))
    writable = [project for project in ids if policy.allows(user, policy.WRITE, project)]
    slugs: list[str] = []
    home = ""
    if writable and not user.is_superuser:
        slugs = list(Project.objects.filter(pk__in=writable).order_by("id").values_list("slug", flat=True))
        first = Project.objects.order_by("id").values_list("slug", flat=True).first()
        home = slugs[0] if slugs and slugs[0] != first else ""
    return Verdict(
        user=user.get_username(),
        read=any(policy.allows(user, policy.VIEW, project) for project in ids),
        write=bool(writable),
        admin=bool(writable) and user.is_superuser,
        until=time.monotonic() + seconds,
        projects=None if user.is_superuser else frozenset(slugs),
        home=home,
    )


def is_same_origin(headers: dict[bytes, bytes], scheme: str) -> bool:
    """Whether an unsafe request that carries our cookie was sent by one of our own pages."""
    site = headers.get(b"sec-fetch-site")
    if site is not None and site != b"same-origin":
        return False
    origin = headers.get(b"origin", b"").decode("latin-1").lower()
    if not origin:
        return site == b"same-origin"
    own = f"{scheme}://{headers.get(b'host', b'').decode('latin-1')}".lower()
    return _with_port(origin) in {_with_port(text.lower()) for text in (own, *settings.CSRF_TRUSTED_ORIGINS)}


def _with_port(origin: str) -> tuple[str, str, int | None]:
    try:
        parts = urlsplit(origin)
        return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:  # not an origin at all
        return "", origin, None
