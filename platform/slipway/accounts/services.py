"""Writes: projects, members and tokens."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

from django.db import transaction
from django.db.models import F
from django.utils.translation import gettext as _

from slipway.accounts import policy
from slipway.accounts.models import (
    LEAST_RATE,
    MOST_RATE,
    Membership,
    Project,
    Role,
    Scope,
    Token,
    User,
    token_digest,
)
from slipway.api.problems import Problem
from slipway.audit.services import record


@transaction.atomic
def project_create(*, actor: User | None, slug: str, name: str) -> Project:
    """Makes a project; its creator is its admin."""
    project = Project(slug=slug, name=name or slug)
    project.full_clean()
    project.save()
    record(actor=actor, action="project.create", target=project, project_id=project.pk, name=slug)
    if actor is not None:
        Membership.objects.create(project=project, user=actor, role=Role.ADMIN)
    return project


@transaction.atomic
def member_set(*, actor: User | None, project: Project, user: User, role: str) -> Membership:
    """Gives a user a role in a project, replacing the one it had."""
    policy.require(actor, policy.ADMIN, project)
    if role not in Role.values:
        raise Problem(f"There is no role “{role}”.", field="role")
    before = Membership.objects.select_for_update().filter(project=project, user=user).first()
    if before is not None and before.role == role:
        return before
    member, _made = Membership.objects.update_or_create(project=project, user=user, defaults={"role": role})
    member_told(actor=actor, member=member, before=before.role if before else None, role=role)
    return member


def member_told(*, actor: User | None, member: Membership, before: str | None, role: str | None) -> None:
    """The audit entry of a change of roles; None is no member."""
    record(
        actor=actor,
        action="member.set" if role else "member.remove",
        target=member,
        project_id=member.project_id,
        name=member.user.username,
        before=before,
        role=role,
    )


@transaction.atomic
def token_create(
    *,
    user: User,
    name: str,
    scope: str = Scope.WRITE,
    expires_at: dt.datetime | None = None,
    text: str | None = None,
    rate: float | None = None,
    burst: int | None = None,
) -> tuple[Token, str]:
    """Makes a token and returns it with its text, which is not kept anywhere.

    `rate` inference requests a second on average and `burst` at once; without a burst, those of one second.
    """
    if scope not in Scope.values:
        raise Problem(f"There is no scope “{scope}”.", field="scope")
    rate, burst = _quota(rate, burst)
    maker = getattr(user, "used_token", None)
    _no_longer_than(maker, expires_at)
    _not_limited(maker)
    text = text or Token.new_text()
    token = Token.objects.create(
        user=user,
        name=name[:100] or "token",
        scope=scope,
        digest=token_digest(text),
        prefix=text[:9],
        expires_at=expires_at,
        rate=rate,
        burst=burst,
    )
    _told(user, "token.create", token, scope=scope, expires_at=expires_at, **_quota_of(token))
    return token, text


def _told(actor: User, action: str, token: Token, **data: Any) -> None:
    """A token belongs to a person and to no project, and so does its entry."""
    known = {"name": token.name, "prefix": token.prefix, "user": token.user.username}
    record(actor=actor, action=action, target=token, project_id=None, **known, **data)


def _quota_of(token: Token) -> dict[str, float | int | None]:
    return {"rate": token.rate, "burst": token.burst}


@transaction.atomic
def token_quota_change(
    *, user: User, token: Token, rate: float | None, burst: int | None, revision: int | None = None
) -> Token:
    """Gives one of the user's tokens another quota, or none; the inference servers follow within seconds.

    What it used up before counts on: a quota that is changed is not a fresh one.
    """
    locked = Token.objects.select_for_update(no_key=True).filter(user=user, pk=token.pk).first()
    if locked is None:
        raise _no_token()
    if revision is not None and revision != locked.revision:
        raise Problem(_("This token changed since you looked. Read it again."), code="precondition_failed", status=412)
    rate, burst = _quota(rate, burst)
    _not_limited(getattr(user, "used_token", None))
    before, after = _quota_of(locked), {"rate": rate, "burst": burst}
    if before != after:
        Token.objects.filter(pk=locked.pk).update(rate=rate, burst=burst, revision=F("revision") + 1)
        locked.refresh_from_db()
        _told(user, "token.quota", locked, before=before, **after)
    return locked


def _quota(rate: float | None, burst: int | None) -> tuple[float | None, int | None]:
    if rate is None:
        if burst is not None:
            raise Problem(_("A burst needs a number of requests a second."), field="burst")
        return None, None
    if not LEAST_RATE <= rate <= MOST_RATE:  # written so that NaN fails too
        raise Problem(_("Between 0.001 and 1,000,000 requests a second."), field="rate")
    if burst is not None and not 1 <= burst <= MOST_RATE:
        raise Problem(_("Between 1 and 1,000,000 requests at once."), field="burst")
    return rate, burst or max(1, math.ceil(rate))


def _no_longer_than(maker: Token | None, expires_at: dt.datetime | None) -> None:
    """A token makes only tokens that end with it at the latest: otherwise its end means nothing."""
    if maker is None or maker.expires_at is None:
        return
    if expires_at is None or expires_at > maker.expires_at:
        raise Problem(_("A token cannot make one that lives longer than itself."), field="expires_at")


def _not_limited(maker: Token | None) -> None:
    """A token with a quota makes no others and changes no quotas: many small ones would make its own mean nothing."""
    if maker is not None and maker.rate is not None:
        raise Problem(_("A token with a quota cannot make tokens or change quotas."), field="rate")


def _no_token() -> Problem:
    return Problem("There is no such token.", code="not_found", status=404)


@transaction.atomic
def token_revoke(*, user: User, token_id: int, actor: User | None = None) -> None:
    """Deletes one of the user's tokens; calls with it fail from now on. `actor`: who does it for them."""
    token = Token.objects.select_for_update().filter(user=user, pk=token_id).first()
    if token is None:
        raise _no_token()
    _told(actor or user, "token.revoke", token)
    token.delete()
