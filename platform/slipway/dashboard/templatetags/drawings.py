"""Small drawings: split bars, sparklines, the dot of a guard. What they show stands beside them as text."""

from __future__ import annotations

from typing import Any

from django import template
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

register = template.Library()
DASH = "–"


@register.simple_tag
def bar(*shares: float, thin: bool = False) -> SafeString:
    """A split bar of shares in percent; the numbers stand beside it, so it is hidden from readers."""
    rows, x = [], 0.0
    for index, share in enumerate(shares):
        width = max(0.0, min(float(share or 0), 100 - x))
        rows.append((f"{x:.2f}", f"{width:.2f}", index % 4 + 1))
        x += width
    return format_html(
        '<svg class="bar{}" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">{}</svg>',
        " thin" if thin else "",
        format_html_join("", '<rect x="{}" y="0" width="{}" height="10" class="s{}"/>', rows),
    )


@register.simple_tag
def bars(parts: list[dict[str, Any]]) -> SafeString:
    """A split bar of [{share, tone}] with the tone given."""
    rows, x = [], 0.0
    for part in parts:
        width = max(0.0, min(float(part["share"] or 0), 100 - x))
        rows.append((f"{x:.2f}", f"{width:.2f}", part["tone"]))
        x += width
    return format_html(
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">{}</svg>',
        format_html_join("", '<rect x="{}" y="0" width="{}" height="10" class="s{}"/>', rows),
    )


@register.simple_tag
def sparkline(values: list[float] | None, label: str = "") -> SafeString | str:
    """A small line, for the eye only: the newest value stands beside it."""
    if not values or len(values) < 2:
        return DASH
    top = max(values) or 1
    points = " L".join(
        f"{index * 96 / (len(values) - 1):.1f} {22 - value / top * 20:.1f}" for index, value in enumerate(values)
    )
    return format_html(
        '<svg class="spark" viewBox="0 0 96 24" role="img" aria-label="{}"><path d="M{}"/></svg>', label, points
    )


@register.simple_tag
def evidence(position: Any, tone: str) -> SafeString:
    """The dot of one guard between abort (left) and promote (right)."""
    at = 8 + 84 * max(0.0, min(1.0, float(position if position is not None else 0.5)))
    return format_html(
        '<svg class="ev {}" role="img" aria-label="{}"><line x1="0" x2="100%" y1="11" y2="11"/>'
        '<line class="tick" x1="8%" x2="8%" y1="2" y2="20"/><line class="tick" x1="92%" x2="92%" y1="2" y2="20"/>'
        '<circle cx="{}%" cy="11" r="6"/></svg>',
        tone,
        _("%(share)d %% of the way from abort to promote")
        % {"share": round(100 * float(position if position is not None else 0.5))},
        f"{at:.1f}",
    )


@register.simple_tag
def tone_bar(percent: float, tone: int) -> SafeString:
    """One bar of a histogram in the colour of its deployment."""
    return bars([{"share": percent, "tone": (tone - 1) % 4 + 1}])


@register.simple_tag
def swatch(tone: int) -> SafeString:
    """The colour of a deployment before its name."""
    return format_html(
        '<svg class="key s{}" viewBox="0 0 12 12" aria-hidden="true"><rect width="12" height="12" rx="3"/></svg>', tone
    )
