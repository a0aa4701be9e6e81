"""Template tags of the visual language: numbers with units, times, states, digests and small drawings."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from typing import Any

from django import template
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from slipway.accounts import policy
from slipway.dashboard import words as texts
from slipway.dashboard.templatetags import drawings, lab, rooms
from slipway.environment import environment

register = template.Library()
for part in (drawings, lab, rooms):
    register.tags.update(part.register.tags)
    register.filters.update(part.register.filters)
DASH = "–"


# Numbers and times


@register.filter
def bytesize(value: Any) -> str:
    """1153433 → 1.15 MB (powers of 1000)."""
    if value in (None, ""):
        return DASH
    size = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


@register.filter
def millis(value: Any) -> str:
    """Milliseconds in the fitting unit."""
    if value in (None, ""):
        return DASH
    ms = float(value)
    if ms < 1:
        return f"{ms * 1000:.0f} µs"
    return f"{ms:.1f} ms" if ms < 1000 else f"{ms / 1000:.2f} s"


@register.filter
def percent(value: Any, digits: int = 2) -> str:
    """A share 0..1 as percent."""
    return DASH if value in (None, "") else f"{float(value) * 100:.{digits}f} %"


@register.filter
def figure(value: Any) -> str:
    """A number as people read it: thousands separated, four significant digits, or a dash."""
    if value in (None, ""):
        return DASH
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"


@register.filter
def span(seconds: Any) -> str:
    """A duration in the fitting unit."""
    if seconds is None:
        return DASH
    if isinstance(seconds, dt.timedelta):
        seconds = seconds.total_seconds()
    return texts.duration(float(seconds))


@register.simple_tag
def between(start: dt.datetime | None, end: dt.datetime | None) -> str:
    """How long something took, or takes so far."""
    return span(((end or timezone.now()) - start).total_seconds()) if start else DASH


@register.filter
def ago(value: dt.datetime | None) -> SafeString | str:
    """Relative time, the absolute one on hover; a module keeps it current."""
    if value is None:
        return DASH
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        value.isoformat(),
        value.strftime("%Y-%m-%d %H:%M:%S UTC"),
        texts.relative((timezone.now() - value).total_seconds()),
    )


# Words with an icon


@register.simple_tag
def pill(value: str, text: Any = "") -> SafeString:
    """A state as icon, word and colour."""
    tone, icon = texts.TONES.get(str(value), ("", "●"))
    return format_html('<span class="pill {}"><span aria-hidden="true">{}</span>{}</span>', tone, icon, text or value)


@register.filter
def state_pill(row: Any) -> SafeString:
    """The state of a record."""
    return pill(row.state, row.get_state_display())


@register.simple_tag
def copy(text: str, label: str = "") -> SafeString:
    """A button that copies `text` and says so."""
    return format_html(
        '<button type="button" class="linkish copy" data-copy="{}" aria-label="{}">{}</button>',
        text,
        _("Copy %(what)s") % {"what": label or text[:40]},
        _("copy"),
    )


@register.filter
def digest(sha256: str) -> SafeString:
    """Twelve characters of a digest; a click copies all of it."""
    return format_html(
        '<code title="{}">{}</code> {}', sha256, sha256[:12], copy(sha256, _("digest %(d)s") % {"d": sha256[:12]})
    )


@register.inclusion_tag("ui/snippet.html")
def snippet(text: str, label: str = "") -> dict[str, str]:
    """A block of code with a copy button."""
    return {"text": text, "label": label}


# What the signed-in person may do


@register.simple_tag(takes_context=True)
def can(context: template.Context, action: str, project: Any) -> bool:
    """Whether the person may `action` in `project`."""
    return policy.allows(context["request"].user, action, project)


@register.simple_tag
def needs(action: str) -> str:
    """Why a button is disabled for the person's role."""
    return texts.needs(action)


_numbers = itertools.count()


@register.inclusion_tag("ui/action.html", takes_context=True)
def action(
    context: template.Context,
    url: str,
    label: Any,
    effect: Any = "",
    *,
    kind: str = "",
    needs: str = "",
    project: Any = None,
    off: Any = "",
    key: str = "",
    fields: Any = None,
    testid: str = "",
    note: Any = "",
) -> dict[str, Any]:
    """A button for a change, with a sentence that says what will happen before it does.

    `needs` and `project` name the permission, `off` another reason why it is disabled; `note` asks for a
    sentence to go with it.
    """
    request: HttpRequest = context["request"]
    if needs and project is not None and not policy.allows(request.user, needs, project):
        off = texts.needs(needs)
    return {
        "url": url,
        "label": label,
        "effect": effect,
        "kind": kind,
        "off": off,
        "id": f"act-{key or next(_numbers)}",
        "fields": fields or {},
        "testid": testid or key,
        "note": note,
        "csrf_token": context.get("csrf_token"),
        "back": request.get_full_path(),
    }


@register.simple_tag(takes_context=True)
def query(context: template.Context, **changes: Any) -> str:
    """The address's query with some values changed; None or "" removes one."""
    values = context["request"].GET.copy()
    values.pop("before", None)
    for key, value in changes.items():
        values.pop(key, None)
        if value not in (None, ""):
            values[key] = value
    text = values.urlencode()
    return f"?{text}" if text else "?"


@register.filter
def item(mapping: Any, key: Any) -> Any:
    """mapping[key], or None."""
    return mapping.get(key) if hasattr(mapping, "get") else None


@register.simple_tag
def delta(change: dict[str, Any], name: str, better: str) -> SafeString | str:
    """A change against the base: `better` says which direction is good ("more" or "less")."""
    value = change.get(name)
    if value is None:
        return ""
    text = f"{value:+.0%}" if better == "less" else f"{value:+.4g}"
    direction = "text-good" if (value > 0) == (better == "more") else "text-bad"
    tone = "muted" if abs(value) < 1e-9 else direction
    return format_html('<br><span class="small {}">{}</span>', tone, text.replace("%", " %").replace("-", "−"))


@register.filter
def name_field(alias: Any) -> dict[str, str]:
    """The hidden field that names an alias."""
    return {"name": alias.name}


@register.filter
def tensors(signature: dict[str, Any]) -> list[tuple[str, list[Any]]]:
    """(title, tensors) of both sides of a signature."""
    return [(_("Inputs"), signature.get("inputs") or []), (_("Outputs"), signature.get("outputs") or [])]


@register.filter
def shape(dims: list[int]) -> str:
    """[-1, 64] → [any, 64]"""
    free = _("any")
    return f"[{', '.join(free if dim < 0 else str(dim) for dim in dims)}]"


@register.filter
def pretty(value: Any) -> str:
    """JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)[:20_000]


@register.filter
def finding(value: Any) -> str:
    """One finding of a scan as a sentence."""
    if isinstance(value, dict):
        return " ".join(str(value[key]) for key in ("severity", "text", "message", "detail", "where") if value.get(key))
    return str(value)


@register.inclusion_tag("ui/snippet.html")
def mlflow_snippet() -> dict[str, str]:
    """How a training script registers its model here."""
    text = (
        f"export MLFLOW_TRACKING_URI={environment.public_base}/mlflow\nexport MLFLOW_TRACKING_TOKEN=…\npython train.py"
    )
    return {"text": text, "label": ""}


@register.filter
def words(text: str) -> list[str]:
    """A literal list for loops."""
    return text.split()


@register.filter
def floatdot(value: float) -> str:
    """A number for an attribute: a point, whatever the language."""
    return f"{value:.4f}"


@register.filter
def plain(value: Any) -> str:
    """A JSON value on one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)[:500]


@register.filter
def revision_field(row: Any) -> dict[str, int]:
    """The hidden field that says which state of a record the person saw."""
    return {"revision": row.revision}


@register.filter
def key(row: Any, word: str) -> str:
    """A stable id for a button of one row."""
    return f"{word}-{row.pk}"
