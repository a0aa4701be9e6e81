"""Reads for the pages of members and tokens."""

from __future__ import annotations

from typing import Any

from django.db.models import Prefetch
from django.shortcuts import get_object_or_404

from slipway.accounts import policy
from slipway.accounts.models import Membership, Project, Token


def projects_page(user: Any, project: Project | None, limit: int = 50) -> list[Project]:
    """The person's projects with their members (by name) in `listed`."""
    rows = policy.projects_of(user)
    if project:
        rows = rows.filter(pk=project.pk)
    members = Membership.objects.select_related("user").order_by("user__username")
    return list(rows.prefetch_related(Prefetch("memberships", members, to_attr="listed"))[:limit])


def project_get(user: Any, slug: str) -> Project:
    return get_object_or_404(policy.projects_of(user), slug=slug)


def token_get(user: Any, pk: int) -> Token:
    return get_object_or_404(Token, user=user, pk=pk)


def tokens_of(user: Any) -> list[Token]:
    return list(Token.objects.filter(user=user).order_by("-pk")[:200])
