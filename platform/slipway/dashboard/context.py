"""What the shell of every page needs."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from slipway.accounts import policy
from slipway.dashboard import selectors
from slipway.environment import environment


def shell(request: HttpRequest) -> dict[str, Any]:
    """Projects and counts for the navigation and the top bar; nothing for people who are not signed in.

    Fragments never touch them, so both are read only when a template does.
    """
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return {"LANGUAGES": settings.LANGUAGES}
    return {
        "LANGUAGES": settings.LANGUAGES,
        "shell_projects": SimpleLazyObject(lambda: list(policy.projects_of(user)[:50])),
        "shell_counts": SimpleLazyObject(lambda: selectors.shell_counts(user)),
        "shell_project": request.GET.get("project", ""),
        "sandbox_off": environment.sandbox == "off",
        "public_base": environment.public_base,
        "serving_base": environment.serving_base,
    }
