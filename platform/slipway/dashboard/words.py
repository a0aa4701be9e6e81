"""Times, durations and states as people read them."""

from __future__ import annotations

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

# state: (tone, icon). A tone is a colour of the token sheet; the icon and the word carry it without colour.
TONES: dict[str, tuple[str, str]] = {
    "queued": ("", "◌"),
    "running": ("run", "●"),
    "succeeded": ("good", "✓"),
    "failed": ("bad", "✕"),
    "cancelled": ("", "–"),
    "pending": ("run", "●"),
    "ready": ("good", "✓"),
    "rejected": ("bad", "✕"),
    "none": ("", "○"),
    "approved": ("good", "✓"),
    "declined": ("bad", "✕"),
    "unknown": ("", "○"),
    "clean": ("good", "✓"),
    "suspicious": ("warn", "▲"),
    "live": ("good", "●"),
    "warm": ("", "◐"),
    "shadow": ("run", "◍"),
    "retired": ("", "–"),
    "progressing": ("run", "●"),
    "paused": ("warn", "❚❚"),
    "baking": ("run", "◔"),
    "promoted": ("good", "✓"),
    "rolled-back": ("bad", "↩"),
    "aborted": ("bad", "✕"),
    "firing": ("bad", "▲"),
    "acknowledged": ("warn", "◔"),
    "resolved": ("good", "✓"),
    "loading": ("run", "●"),
    "draining": ("warn", "◔"),
    "ok": ("good", "✓"),
    "bad": ("bad", "✕"),
    "warn": ("warn", "▲"),
    "promote": ("good", "✓"),
    "abort": ("bad", "✕"),
    "wait": ("run", "◔"),
    "quiet": ("", "○"),
    "measured": ("", "✓"),
    "refused": ("warn", "▲"),
}

_NEEDS = {
    "write": gettext_lazy("Needs the role developer, operator or admin."),
    "approve": gettext_lazy("Needs the role approver or admin."),
    "deploy": gettext_lazy("Needs the role operator or admin."),
    "infer": gettext_lazy("Needs the role developer, operator or admin."),
    "admin": gettext_lazy("Needs the role admin."),
}


def needs(action: str) -> str:
    """Which roles may do this."""
    return str(_NEEDS.get(action, ""))


def duration(seconds: float) -> str:
    """A duration in the fitting unit."""
    if seconds < 1:
        return _("%(n)d ms") % {"n": round(seconds * 1000)}
    if seconds < 60:
        return _("%(n)s s") % {"n": f"{seconds:.1f}".removesuffix(".0") if seconds < 10 else round(seconds)}
    if seconds < 3600:
        return _("%(n)d min") % {"n": seconds // 60}
    if seconds < 86400:
        return _("%(n)d h") % {"n": seconds // 3600}
    return _("%(n)d d") % {"n": seconds // 86400}


def relative(seconds: float) -> str:
    """How long ago (or, negative, how soon)."""
    if -5 < seconds < 5:
        return _("just now")
    if seconds < 0:
        return _("in %(span)s") % {"span": duration(float(round(-seconds)))}
    return _("%(span)s ago") % {"span": duration(float(round(seconds)))}
