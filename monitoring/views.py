"""Alerts, watched deployments, retraining policies, and the data of the charts."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from deployments import selectors as deployed
from monitoring import forms, selectors, services
from monitoring.models import AlertState
from slipway.accounts.pages import SignedIn, act, attempt, number, posted, project_of, show_failure


@login_required
@require_GET
def monitoring(request: SignedIn) -> HttpResponse:
    """Alerts first, then every live deployment with its figures."""
    project = project_of(request)
    state = request.GET.get("state", "")
    context = {
        "section": "monitoring",
        "project": project,
        "page": selectors.alerts_page(request.user, project, state, request.GET.get("before")),
        "states": AlertState.choices,
        "watched": selectors.watched(request.user, project),
    }
    return render(request, "monitoring/monitoring.html", context)


@login_required
@require_POST
def alert_acknowledge(request: SignedIn, pk: int) -> HttpResponse:
    """Somebody looks after an alert."""
    alert = selectors.alert_get(request.user, pk)
    done = _("Acknowledged: it stays open and no longer counts as firing.")
    return act(
        request,
        lambda: services.alert_acknowledge(actor=request.user, alert=alert),
        done,
        reverse("monitoring"),
    )


@login_required
@require_GET
def series(request: SignedIn, name: str) -> JsonResponse:
    """The points of an endpoint's charts, and the marks of its rollouts."""
    endpoint = deployed.endpoint_get(request.user, name)
    seconds = number(request.GET.get("span")) or 900
    shown = deployed.shown_on(endpoint)
    data = selectors.series(shown, seconds if seconds in selectors.SPANS else 900)
    for line, row in zip(data["lines"], shown, strict=True):
        line["label"] = deployed.label_of(row)
    data["marks"] = deployed.marks_of(endpoint, since=data["times"][0])
    return JsonResponse(data)


# Retraining policies (a part of the settings)


def _policies(request: SignedIn, form: Any, **more: Any) -> dict[str, Any]:
    project = project_of(request)
    return {
        "section": "settings", "tab": "policies", "project": project, "form": form,
        "policies": selectors.policies_page(request.user, project),
        **more,
    }  # fmt: skip


@login_required
@require_http_methods(["GET", "POST"])
def policies(request: SignedIn) -> HttpResponse:
    """Policies with their last firings, and the form for a new one."""
    initial = {"model": number(request.GET.get("model"))}
    form = forms.PolicyForm(request.user, posted(request), initial=initial)
    if request.method == "POST" and form.is_valid():
        outcome = attempt(lambda: services.policy_create(actor=request.user, **form.cleaned_data))
        if outcome.value:
            return redirect("settings-policies")
        show_failure(form, outcome.failure)
    status = 422 if form.is_bound and form.errors else 200
    return render(request, "monitoring/policies.html", _policies(request, form), status=status)


@login_required
@require_POST
def policy_fire(request: SignedIn, pk: int) -> HttpResponse:
    """Retrains now."""
    row = selectors.policy_get(request.user, pk)
    return act(
        request,
        lambda: services.policy_fire(actor=request.user, policy=row),
        _("Fired: the retraining is a job."),
        reverse("settings-policies"),
    )


@login_required
@require_POST
def policy_toggle(request: SignedIn, pk: int) -> HttpResponse:
    """Switches a policy on or off."""
    row = selectors.policy_get(request.user, pk)
    enabled = not row.enabled
    return act(
        request,
        lambda: services.policy_update(actor=request.user, policy=row, enabled=enabled),
        _("Switched on.") if enabled else _("Switched off: neither schedule nor hook fire it."),
        reverse("settings-policies"),
    )


@login_required
@require_POST
@never_cache
def policy_secret(request: SignedIn, pk: int) -> HttpResponse:
    """Shows the secret of a hook, on this answer only."""
    row = selectors.policy_get(request.user, pk)
    outcome = attempt(lambda: services.policy_secret(actor=request.user, policy=row))
    if outcome.failure:
        messages.error(request, outcome.failure.text)
        return redirect("settings-policies")
    context = _policies(request, forms.PolicyForm(request.user), revealed=row.pk, secret=outcome.value)
    return render(request, "monitoring/policies.html", context)
