"""Template tags of the visual language."""

from __future__ import annotations

from django import template

register = template.Library()
