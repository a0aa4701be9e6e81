"""Forms of projects, members and tokens."""

from __future__ import annotations

import datetime as dt

from django import forms
from django.contrib.auth.forms import AuthenticationForm
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from slipway.accounts.models import LEAST_RATE, MOST_RATE, Role, Scope


class SignInForm(AuthenticationForm):
    """Signing in; says when somebody has to wait after too many failures."""

    def get_invalid_login_error(self) -> forms.ValidationError:
        wait = getattr(self.request, "sign_in_wait", None)
        if wait is None:
            return super().get_invalid_login_error()
        text = gettext("Too many failed attempts. Try again in %(n)d s.") % {"n": round(wait) or 1}
        return forms.ValidationError(text, code="wait")


class ProjectForm(forms.Form):
    """A new project; its maker becomes its admin."""

    slug = forms.CharField(
        label=_("Short name"),
        max_length=63,
        help_text=_("Lower-case letters, digits and hyphens; it is a part of addresses."),
    )
    name = forms.CharField(label=_("Name"), max_length=100)


class MemberForm(forms.Form):
    """A user's role in a project."""

    username = forms.CharField(max_length=150)
    role = forms.ChoiceField(choices=Role.choices)


class QuotaForm(forms.Form):
    """How often a token may call endpoints."""

    rate = forms.FloatField(
        label=_("Requests a second"), min_value=LEAST_RATE, max_value=MOST_RATE, required=False,
        help_text=_("How often it may call endpoints, on average. Empty: as often as it likes."),
    )  # fmt: skip
    burst = forms.IntegerField(
        label=_("Requests at once"), min_value=1, max_value=MOST_RATE, required=False,
        help_text=_("What may come in one go. Empty: the requests of one second."),
    )  # fmt: skip


class TokenForm(QuotaForm):
    """A new API token."""

    name = forms.CharField(label=_("Name"), max_length=100, help_text=_("What it is for."))
    scope = forms.ChoiceField(label=_("Scope"), choices=Scope.choices, initial=Scope.WRITE)
    days = forms.IntegerField(
        label=_("Days until it expires"), min_value=1, max_value=3650, required=False, help_text=_("Empty: never.")
    )
    field_order = ["name", "scope", "days"]

    def expires_at(self) -> dt.datetime | None:
        days = self.cleaned_data["days"]
        return timezone.now() + dt.timedelta(days=days) if days else None
