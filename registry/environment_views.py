"""Pages of environments: what is prepared, and what a version's own is made of."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db.models import Sum
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from registry import environments, packages, selectors
from registry.forms import PackagesForm
from registry.models import Environment
from slipway.accounts.pages import SignedIn, act, attempt, posted, show_failure


@login_required
@require_http_methods(["GET", "POST"])
def version_packages(request: SignedIn, pk: int) -> HttpResponse:
    """The version's own list of packages, in place of the recorded one."""
    row = selectors.version_get(request.user, pk)
    form = PackagesForm(posted(request), initial={"requirements": "\n".join(row.packages)})
    if request.method == "POST" and form.is_valid():
        lines = form.cleaned_data["requirements"]
        outcome = attempt(lambda: packages.packages_set(actor=request.user, version=row, lines=lines))
        if outcome.value:
            messages.success(request, _("Saved. Formats are made with these packages from now on."))
            return redirect("version-export", row.pk)
        show_failure(form, outcome.failure)
    context = {
        "section": "models", "project": row.model.project, "model": row.model, "version": row, "form": form,
        "needs_nothing": packages.needs_nothing(row),
    }  # fmt: skip
    return render(request, "registry/version_packages.html", context, status=422 if form.errors else 200)


@login_required
@require_POST
def version_prepare(request: SignedIn, pk: int) -> HttpResponse:
    """Prepares an environment for a version, and proves it with it."""
    row = selectors.version_get(request.user, pk)
    name = request.POST.get("name", "")
    outcome = attempt(lambda: environments.environment_request(actor=request.user, version=row, name=name))
    if outcome.value:
        return redirect("job", outcome.value.pk)
    if outcome.failure:
        messages.error(request, outcome.failure.text)
    return redirect("version-export", row.pk)


@login_required
@require_GET
def version_environment(request: SignedIn, pk: int, file: str) -> HttpResponse:
    """One of the files that build the version's environment elsewhere."""
    row = selectors.version_get(request.user, pk)
    if file not in environments.FILES:
        raise Http404
    outcome = attempt(lambda: environments.file_of(row, file))
    if outcome.value is None:
        messages.error(request, outcome.failure.text if outcome.failure else "")
        return redirect("version-export", row.pk)
    answer = HttpResponse(outcome.value, content_type="text/plain; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="{file}"'
    return answer


@login_required
@require_GET
def environment_list(request: SignedIn) -> HttpResponse:
    """What is prepared on the workers' disks."""
    rows = list(selectors.environments_seen(request.user).select_related("job"))
    total = Environment.objects.aggregate(size=Sum("size"))["size"] or 0
    context = {"section": "models", "rows": rows, "total": total}
    return render(request, "registry/environments.html", context)


@login_required
@require_POST
def environment_remove(request: SignedIn, pk: int) -> HttpResponse:
    """Takes one off the disk."""
    row = get_object_or_404(selectors.environments_seen(request.user), pk=pk)
    return act(
        request,
        lambda: environments.environment_evict(actor=request.user, row=row),
        _("The environment “%(name)s” is removed.") % {"name": row.name},
        reverse("environments"),
    )
