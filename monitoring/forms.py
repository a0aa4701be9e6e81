"""Forms of the monitoring pages."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from registry.models import Model
from slipway.accounts import policy


class PolicyForm(forms.Form):
    """When a model is retrained."""

    model = forms.ModelChoiceField(Model.objects.none(), label=_("Model"), empty_label=None)
    name = forms.CharField(label=_("Name"), max_length=100)
    cron = forms.CharField(
        label=_("Schedule"),
        max_length=100,
        required=False,
        help_text=_("Cron in UTC: minute hour day month weekday, for example 0 3 * * 1. Empty: no schedule."),
    )
    hook = forms.BooleanField(label=_("Fire on a signed POST to its hook"), required=False, initial=True)

    def __init__(self, user: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        rows = policy.visible(user, Model.objects.filter(archived_at__isnull=True).select_related("project"))
        first = list(rows.order_by("name").values_list("pk", flat=True)[:500])
        self.fields["model"].queryset = Model.objects.filter(pk__in=first).order_by("name")  # type: ignore[attr-defined]
