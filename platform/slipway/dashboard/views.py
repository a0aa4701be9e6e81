"""Home, search, the counts of the shell, the audit log and the pages for errors."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from slipway.accounts.pages import SignedIn, act, newest, project_of
from slipway.audit import services as audit
from slipway.dashboard import selectors


@login_required
@require_GET
def home(request: SignedIn) -> HttpResponse:
    """What serves, what needs attention, what happened."""
    project = project_of(request)
    attention = selectors.needs_attention(request.user, project)
    checklist = selectors.checklist(request.user, project)
    return render(
        request,
        "dashboard/home.html",
        {
            "section": "home",
            "project": project,
            "tiles": selectors.home_tiles(request.user, project),
            "attention": attention,
            "calm": not any(attention.values()),
            "activity": selectors.activity(request.user, project),
            "checklist": checklist,
            "checklist_done": all(step["done"] for step in checklist),
        },
    )


@login_required
@require_GET
def search(request: SignedIn) -> JsonResponse:
    """What the palette shows."""
    return JsonResponse({"results": selectors.search(request.user, request.GET.get("q", ""))})


@login_required
@require_GET
def counts(request: SignedIn) -> JsonResponse:
    """Numbers for the navigation, the top bar and the favicon."""
    return JsonResponse(selectors.shell_counts(request.user))


@login_required
@require_GET
def audit_page(request: SignedIn) -> HttpResponse:
    """Who did what, newest first."""
    project = project_of(request)
    rows = selectors.audit_entries(request.user, project)
    return render(
        request,
        "dashboard/audit.html",
        {"section": "settings", "tab": "audit", "project": project, "page": newest(rows, request.GET.get("before"))},
    )


@login_required
@require_POST
def audit_check(request: SignedIn) -> HttpResponse:
    """Reads the whole chain and says whether every link holds."""
    if not request.user.is_superuser:
        raise PermissionDenied(_("Only an administrator of this installation can check the whole chain."))
    checked, broken = audit.chain_verify()
    back = reverse("settings-audit")
    if broken is None:
        text = _("The chain holds: %(n)d entries checked, every digest matches.") % {"n": checked}
        return act(request, lambda: None, text, back)
    text = _("The chain is broken at position %(n)d: an entry was changed or removed.") % {"n": broken}
    return render(request, "dashboard/audit.html", _broken(request, text), status=409)


def _broken(request: SignedIn, text: str) -> dict[str, object]:
    rows = selectors.audit_entries(request.user, None)
    return {"section": "settings", "tab": "audit", "project": None, "broken": text, "page": newest(rows, None)}


def server_error(request: HttpRequest) -> HttpResponse:
    """The page for an unexpected error: a reference, and nothing that asks the database."""
    return render(request, "500.html", {"reference": getattr(request, "request_id", "")}, status=500)
