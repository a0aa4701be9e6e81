"""Pages of members, projects, tokens and language; signing in and out is Django's."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from slipway.accounts import forms, policy, selectors, services
from slipway.accounts.models import Role, User
from slipway.accounts.pages import SignedIn, act, attempt, number, posted, project_of, show_failure
from slipway.api.problems import Problem

ACTIONS = {
    policy.VIEW: gettext_lazy("See"),
    policy.WRITE: gettext_lazy("Register, export, retrain"),
    policy.APPROVE: gettext_lazy("Approve"),
    policy.DEPLOY: gettext_lazy("Deploy, roll out"),
    policy.INFER: gettext_lazy("Call endpoints"),
    policy.ADMIN: gettext_lazy("Members"),
}


@login_required
@require_http_methods(["GET", "POST"])
def members(request: SignedIn) -> HttpResponse:
    """Members of the person's projects, what the roles may do, and the form for a new project."""
    form = forms.ProjectForm(posted(request))
    if request.method == "POST" and form.is_valid():
        outcome = attempt(lambda: services.project_create(actor=request.user, **form.cleaned_data))
        if outcome.value:
            messages.success(request, _("The project is made; you are its admin."))
            return redirect("settings")
        show_failure(form, outcome.failure)
    project = project_of(request)
    matrix = [(role, label, [action in policy.ALLOWED[role] for action in ACTIONS]) for role, label in Role.choices]
    context = {
        "section": "settings", "tab": "members", "project": project, "form": form, "roles": Role.choices,
        "projects": selectors.projects_page(request.user, project), "actions": ACTIONS.items(), "matrix": matrix,
    }  # fmt: skip
    return render(request, "accounts/members.html", context, status=422 if form.is_bound and form.errors else 200)


@login_required
@require_POST
def member_set(request: SignedIn, slug: str) -> HttpResponse:
    """Gives a user a role in a project."""
    project = selectors.project_get(request.user, slug)
    form = forms.MemberForm(request.POST)
    name = request.POST.get("username", "")[:150]
    done = _("%(name)s is now in %(project)s.") % {"name": name, "project": project.name}
    return act(request, lambda: _member_set(request, project, form), done, reverse("settings"))


def _member_set(request: SignedIn, project: Any, form: forms.MemberForm) -> Any:
    policy.require(request.user, policy.ADMIN, project)  # before a name is looked up: it must not tell who exists
    if not form.is_valid():
        raise Problem(_("Give a user name and one of the roles."), field="username")
    user = User.objects.filter(username=form.cleaned_data["username"], is_active=True).first()
    if user is None:
        raise Problem(_("There is no user of this name."), field="username")
    return services.member_set(actor=request.user, project=project, user=user, role=form.cleaned_data["role"])


@login_required
@never_cache
@require_http_methods(["GET", "POST"])
def tokens(request: SignedIn) -> HttpResponse:
    """The person's tokens; a new one is shown once, on this answer."""
    form, made = forms.TokenForm(posted(request)), ""
    if request.method == "POST" and form.is_valid():
        outcome = attempt(lambda: _token(request, form))
        if outcome.failure:
            show_failure(form, outcome.failure)
        else:
            made, form = outcome.value or "", forms.TokenForm()
    context = {
        "section": "settings",
        "tab": "tokens",
        "form": form,
        "made": made,
        "tokens": selectors.tokens_of(request.user),
    }
    return render(request, "accounts/tokens.html", context, status=422 if form.is_bound and form.errors else 200)


def _token(request: SignedIn, form: forms.TokenForm) -> str:
    values = form.cleaned_data
    _row, text = services.token_create(
        user=request.user, name=values["name"], scope=values["scope"], expires_at=form.expires_at(),
        rate=values["rate"], burst=values["burst"],
    )  # fmt: skip
    return text


@login_required
@require_http_methods(["GET", "POST"])
def token_quota(request: SignedIn, pk: int) -> HttpResponse:
    """Another quota for one of the person's own tokens."""
    token = selectors.token_get(request.user, pk)
    form = forms.QuotaForm(posted(request), initial={"rate": token.rate, "burst": token.burst})
    if request.method == "POST" and form.is_valid():
        revision = number(request.POST.get("revision"))
        outcome = attempt(
            lambda: services.token_quota_change(user=request.user, token=token, revision=revision, **form.cleaned_data)
        )
        if outcome.failure is None:
            messages.success(request, _("The quota is changed. The servers follow within seconds."))
            return redirect("settings-tokens")
        show_failure(form, outcome.failure)
    context = {"section": "settings", "tab": "tokens", "form": form, "token": token}
    return render(request, "accounts/token_quota.html", context, status=422 if form.errors else 200)


@login_required
@require_POST
def token_revoke(request: SignedIn, pk: int) -> HttpResponse:
    """Deletes one of the person's own tokens."""
    return act(
        request,
        lambda: services.token_revoke(user=request.user, token_id=pk),
        _("Revoked."),
        reverse("settings-tokens"),
    )


@login_required
@require_GET
def language(request: SignedIn) -> HttpResponse:
    """Language and theme."""
    return render(request, "accounts/language.html", {"section": "settings", "tab": "language"})
