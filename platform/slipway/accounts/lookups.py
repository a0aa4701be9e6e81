"""Finding the project a request names, among those its user sees."""

from __future__ import annotations

from typing import Any

from slipway.accounts import policy
from slipway.accounts.models import Project
from slipway.api.problems import Problem


def project_named(user: Any, slug: str | None) -> Project:
    """The project with this slug; without one the only, or the first, project of the user."""
    rows = policy.projects_of(user)
    if slug and "\x00" in slug:  # no text that PostgreSQL could look for
        rows = rows.none()
    project = rows.filter(slug=slug).first() if slug else rows.order_by("id").first()
    if project is None:
        raise Problem(
            f"There is no project “{slug}”." if slug else "You are in no project yet.",
            field="project",
            status=404,
        )
    return project
