"""The form of an endpoint's serving settings, in plain words; and the same settings as sentences."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.validators import RegexValidator
from django.utils.translation import gettext, gettext_lazy, ngettext
from django.utils.translation import gettext_lazy as _

from deployments.models import (
    MOST_BATCH,
    MOST_BUDGET_MS,
    MOST_CACHE_MB,
    MOST_CACHE_S,
    MOST_CALLS,
    BatchingMode,
    Endpoint,
)
from deployments.tuning import HEADER, EndpointSettings

COLUMNS = (
    "limit_concurrency", "limit_queue", "cache_mb", "cache_ttl_s", "batching_mode", "batching_max",
    "batching_budget_ms", "sticky_header",
)  # fmt: skip
_NEEDED = gettext_lazy("Give both of these, or neither.")


class SettingsForm(forms.Form):
    """Every field may stay empty: then the servers decide."""

    limit_concurrency = forms.IntegerField(
        label=_("Requests at once"), min_value=1, max_value=MOST_CALLS, required=False,
        help_text=_("For each version, in each server process. Empty: no limit."),
    )  # fmt: skip
    limit_queue = forms.IntegerField(
        label=_("Requests that may wait"), min_value=0, max_value=MOST_CALLS, required=False,
        help_text=_("More than these are refused at once, so that callers can go elsewhere."),
    )  # fmt: skip
    cache_mb = forms.IntegerField(
        label=_("Memory for answers, MB"), min_value=1, max_value=MOST_CACHE_MB, required=False,
        help_text=_("Equal requests are answered from memory, without the model. Empty: every request is computed."),
    )  # fmt: skip
    cache_ttl_s = forms.IntegerField(
        label=_("Keep an answer for, seconds"), min_value=1, max_value=MOST_CACHE_S, required=False
    )
    batching_mode = forms.ChoiceField(
        label=_("Answer waiting requests together"), required=False,
        choices=[(BatchingMode.AUTO, BatchingMode.AUTO.label), (BatchingMode.OFF, BatchingMode.OFF.label)],
        help_text=_("Measured when a model is loaded; no request ever waits for others to come."),
    )  # fmt: skip
    batching_max = forms.IntegerField(
        label=_("Together at most"), min_value=2, max_value=MOST_BATCH, required=False,
        help_text=_("Empty: as measured."),
    )  # fmt: skip
    batching_budget_ms = forms.FloatField(
        label=_("A shared run may take, ms"), min_value=0.01, max_value=MOST_BUDGET_MS, required=False,
        help_text=_("Empty: as measured."),
    )  # fmt: skip
    sticky_header = forms.CharField(
        label=_("Keep callers on one version by the header"), max_length=64, required=False,
        validators=[RegexValidator(HEADER, _("The name of a header in lower case: letters, digits and hyphens."))],
        help_text=_("Requests with one value of it go to one version while traffic is split. Empty: x-slipway-key."),
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint, *args: Any, **kwargs: Any) -> None:
        values = {name: getattr(endpoint, name) for name in COLUMNS}
        values["batching_mode"] = values["batching_mode"] or BatchingMode.AUTO
        super().__init__(*args, initial=values, **kwargs)

    def clean(self) -> dict[str, Any]:
        found: dict[str, Any] = super().clean() or {}
        for one, other in (("limit_concurrency", "limit_queue"), ("cache_mb", "cache_ttl_s")):
            for name, partner in ((one, other), (other, one)):
                if name in found and found[name] is None and found.get(partner) is not None:
                    self.add_error(name, _NEEDED)
        if found.get("batching_mode") == BatchingMode.OFF:
            for name in ("batching_max", "batching_budget_ms"):
                if found.get(name) is not None:
                    self.add_error(name, gettext("Leave this empty while requests are never answered together."))
        return found

    def settings(self) -> EndpointSettings:
        """All settings as the service takes them."""
        values = self.cleaned_data
        bounds = {"max": values["batching_max"], "budget_ms": values["batching_budget_ms"]}
        mode = values["batching_mode"] or BatchingMode.AUTO
        auto = mode == BatchingMode.AUTO and bounds["max"] is None and bounds["budget_ms"] is None
        return EndpointSettings.model_validate(
            {
                "sticky_header": values["sticky_header"] or None,
                "limits": _both(concurrency=values["limit_concurrency"], queue=values["limit_queue"]),
                "cache": _both(mb=values["cache_mb"], ttl_s=values["cache_ttl_s"]),
                "batching": None if auto else {"mode": str(mode), **bounds},
            }
        )


def _both(**values: Any) -> dict[str, Any] | None:
    return None if None in values.values() else values


def settings_told(endpoint: Endpoint) -> list[tuple[str, str]]:
    """[(name, what holds)]: the settings in words, those left to the servers too."""
    return [
        (gettext("Limit"), _limit(endpoint)),
        (gettext("Answers from memory"), _cache(endpoint)),
        (gettext("Requests answered together"), _batching(endpoint)),
        (
            gettext("Callers stay on one version by"),
            gettext("the header %(name)s") % {"name": endpoint.sticky_header or "x-slipway-key"},
        ),
    ]


def _limit(endpoint: Endpoint) -> str:
    if endpoint.limit_concurrency is None or endpoint.limit_queue is None:
        return gettext("none")
    at_once = ngettext("%(n)d request at once", "%(n)d requests at once", endpoint.limit_concurrency)
    wait = ngettext("%(n)d may wait", "%(n)d may wait", endpoint.limit_queue)
    return f"{at_once % {'n': endpoint.limit_concurrency}}, {wait % {'n': endpoint.limit_queue}}"


def _cache(endpoint: Endpoint) -> str:
    if endpoint.cache_mb is None:
        return gettext("none; every request is computed")
    return gettext("%(mb)d MB, each kept for %(n)d s") % {"mb": endpoint.cache_mb, "n": endpoint.cache_ttl_s}


def _batching(endpoint: Endpoint) -> str:
    if endpoint.batching_mode == BatchingMode.OFF:
        return gettext("never")
    words = [gettext("where measuring shows that it helps")]
    if endpoint.batching_max is not None:
        words.append(gettext("at most %(n)d") % {"n": endpoint.batching_max})
    if endpoint.batching_budget_ms is not None:
        words.append(gettext("at most %(ms)s ms a run") % {"ms": f"{endpoint.batching_budget_ms:g}"})
    return ", ".join(words)
