"""Writes: projects, members and tokens."""

from __future__ import annotations

import datetime as dt
import math

from django.db import transaction
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


@transaction.atomic
def project_create(*, actor: User | None, slug: str, name: str) -> Project:
    """Makes a project; its creator is its admin."""
    project = Project(slug=slug, name=name or slug)
    project.full_clean()
    project.save()
    if actor is not None:
        Membership.objects.create(project=project, user=actor, role=Role.ADMIN)
    return project


@transaction.atomic
def member_set(*, actor: User | None, project: Project, user: User, role: str) -> Membership:
    """Gives a user a role in a project, replacing the one it had."""
    policy.require(actor, policy.ADMIN, project)
    if role not in Role.values:
        raise Problem(f"There is no role “{role}”.", field="role")
    member, _made = Membership.objects.update_or_create(project=project, user=user, defaults={"role": role})
    return member


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
    _no_more_than(getattr(user, "used_token", None), expires_at, rate, burst)
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
    return token, text


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


def _no_more_than(maker: Token | None, expires_at: dt.datetime | None, rate: float | None, burst: int | None) -> None:
    """A token makes only tokens that can do no more than itself: otherwise its end and its quota mean nothing."""
    if maker is None:
        return
    if maker.expires_at is not None and (expires_at is None or expires_at > maker.expires_at):
        raise Problem(_("A token cannot make one that lives longer than itself."), field="expires_at")
    if maker.rate is not None and (rate is None or rate > maker.rate or (burst or 0) > (maker.burst or 0)):
        raise Problem(_("A token cannot make one that may call more than itself."), field="rate")


def token_revoke(*, user: User, token_id: int) -> None:
    """Deletes one of the user's tokens; calls with it fail from now on."""
    if not Token.objects.filter(user=user, pk=token_id).delete()[0]:
        raise Problem("There is no such token.", code="not_found", status=404)
