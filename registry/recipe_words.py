"""Recipes in the reader's language. What is stored, logged and answered by the API stays as the engine says it."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _

from engine.optimize.base import optimizers
from engine.sentence import in_turn


def optimizer_words(name: str) -> str:
    """What an optimizer is called; its name where it is no longer installed."""
    plugin = optimizers().get(name)
    return _(plugin.label) if plugin else name


def recipe_words(steps: list[dict[str, Any]]) -> str:
    """The steps of a recipe, one after the other."""
    return in_turn(optimizer_words(step["optimizer"]) for step in steps).said(_)
