"""Writes: projects, members and tokens."""

from __future__ import annotations

import datetime as dt

from django.db import transaction

from slipway.accounts import policy
from slipway.accounts.models import Membership, Project, Role, Scope, Token, User, token_digest
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
    member, _ = Membership.objects.update_or_create(project=project, user=user, defaults={"role": role})
    return member


def token_create(
    *,
    user: User,
    name: str,
    scope: str = Scope.WRITE,
    expires_at: dt.datetime | None = None,
    text: str | None = None,
) -> tuple[Token, str]:
    """Makes a token and returns it with its text, which is not kept anywhere."""
    if scope not in Scope.values:
        raise Problem(f"There is no scope “{scope}”.", field="scope")
    text = text or Token.new_text()
    token = Token.objects.create(
        user=user,
        name=name[:100] or "token",
        scope=scope,
        digest=token_digest(text),
        prefix=text[:9],
        expires_at=expires_at,
    )
    return token, text


def token_revoke(*, user: User, token_id: int) -> None:
    """Deletes one of the user's tokens; calls with it fail from now on."""
    if not Token.objects.filter(user=user, pk=token_id).delete()[0]:
        raise Problem("There is no such token.", code="not_found", status=404)
