"""What the shell of every page needs."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest


def shell(request: HttpRequest) -> dict[str, Any]:
    """Counts for the navigation and the top bar; nothing for people who are not signed in."""
    return {}
