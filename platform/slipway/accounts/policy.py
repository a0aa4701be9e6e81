"""The one policy module: which rows a user sees, and which actions a role may take.

Every queryset that reaches a person goes through `visible`; every write service calls `require`.
A stranger's id therefore gives 404, a teammate without the role 403.
"""

from __future__ import annotations

from typing import Any, TypeVar

from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.utils.translation import gettext as _

from slipway.accounts.models import Membership, Project, Role, User

M = TypeVar("M", bound=Model)

VIEW = "view"
WRITE = "write"  # register, upload, export, optimize, retrain
APPROVE = "approve"  # approve versions and gated rollout steps
DEPLOY = "deploy"  # endpoints, rollouts, weights
INFER = "infer"  # call protected endpoints
ADMIN = "admin"  # members, policies, webhooks

ALLOWED: dict[str, frozenset[str]] = {
    Role.VIEWER: frozenset({VIEW}),
    Role.DEVELOPER: frozenset({VIEW, WRITE, INFER}),
    Role.APPROVER: frozenset({VIEW, APPROVE}),
    Role.OPERATOR: frozenset({VIEW, WRITE, DEPLOY, INFER}),
    Role.ADMIN: frozenset({VIEW, WRITE, APPROVE, DEPLOY, INFER, ADMIN}),
}


def roles_of(user: Any) -> dict[int, str]:
    """{project id: role} of a user, read once per request object."""
    cached = getattr(user, "_roles", None)
    if cached is None:
        cached = dict(Membership.objects.filter(user_id=user.pk).values_list("project_id", "role"))
        user._roles = cached
    return cached


def projects_of(user: Any) -> QuerySet[Project]:
    """The projects a user sees."""
    if not user.is_authenticated:
        return Project.objects.none()
    return Project.objects.all() if user.is_superuser else Project.objects.filter(pk__in=roles_of(user))


def visible(user: Any, rows: QuerySet[M]) -> QuerySet[M]:
    """`rows` cut down to the projects of `user`. The model names the way to its project in `PROJECT_PATH`."""
    if not user.is_authenticated:
        return rows.none()
    if user.is_superuser:
        return rows
    path: str = getattr(rows.model, "PROJECT_PATH", "project")
    return rows.filter(**{f"{path}__in": list(roles_of(user))})


def allows(user: Any, action: str, project: Project | int) -> bool:
    """Whether the user's role in the project includes the action (and the token it came by does)."""
    if not user.is_authenticated:
        return False
    token = getattr(user, "used_token", None)
    if token is not None:
        allowed_by_token = {"read": (VIEW,), "infer": (INFER,), "write": tuple(ALLOWED[Role.ADMIN])}
        if action not in allowed_by_token[token.scope]:
            return False
    if user.is_superuser:
        return True
    role = roles_of(user).get(project if isinstance(project, int) else project.pk)
    return role is not None and action in ALLOWED[role]


def require(actor: User | None, action: str, project: Project | int) -> None:
    """Raises PermissionDenied unless allowed. `None` is Slipway itself (workers, policies)."""
    if actor is not None and not allows(actor, action, project):
        raise PermissionDenied(
            _("Your role in this project does not allow this (needs “%(action)s”).") % {"action": action}
        )
