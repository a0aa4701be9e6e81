"""Figures and marks of the optimization lab."""

from __future__ import annotations

from typing import Any

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from registry.search_selectors import state_of
from slipway.dashboard import words
from slipway.jobs.models import State

register = template.Library()
DASH = "–"


@register.simple_tag
def search_pill(search: Any) -> SafeString:
    """The state of a search as icon, word and colour."""
    state = state_of(search)
    tone, icon = words.TONES[state]
    label = _("Searching") if state == State.RUNNING else State(state).label
    return format_html('<span class="pill {}"><span aria-hidden="true">{}</span>{}</span>', tone, icon, label)


@register.simple_tag
def lab_mark(kind: str) -> SafeString:
    """The mark of a kind of point, before its word in the legend."""
    shape = '<rect class="mark parent" x="2" y="2" width="9" height="9"/>'
    if kind != "parent":
        shape = format_html('<circle class="mark {}" cx="6.5" cy="6.5" r="5"/>', kind)
    return format_html('<svg class="legend-mark" viewBox="0 0 13 13" aria-hidden="true">{}</svg>', SafeString(shape))


@register.simple_tag
def speed_range(cost: Any) -> str:
    """The interval of a speed-up, of two intervals of a ratio of times."""
    return f"{1 / cost.ratio_high:.2f} – {1 / cost.ratio_low:.2f}"


@register.filter
def share_of(part: Any, whole: Any) -> str:
    """One size as a share of another."""
    return f"{100 * part / whole:.0f} %" if part and whole else DASH


@register.filter
def add_to(value: float, more: float) -> str:
    """A place in a drawing, moved; with a point, whatever the language."""
    return f"{float(value) + float(more):.1f}"
