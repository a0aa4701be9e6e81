"""Pages of models, versions and datasets."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import InvalidPage
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.safestring import mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from registry import comparison, environments, forms, lineage, markdown, packages, selectors, services, snippets
from registry.models import Task, Version
from registry.search_selectors import searches_of
from slipway.accounts.models import User
from slipway.accounts.pages import SignedIn, act, attempt, number, posted, project_of, show_failure
from slipway.environment import environment

TABS = {
    "overview": gettext_lazy("Overview"),
    "signature": gettext_lazy("Signature"),
    "artifacts": gettext_lazy("Artifacts"),
    "metrics": gettext_lazy("Metrics"),
    "variants": gettext_lazy("Variants"),
    "lineage": gettext_lazy("Lineage"),
    "deployments": gettext_lazy("Deployments"),
    "jobs": gettext_lazy("Jobs"),
    "audit": gettext_lazy("Audit"),
}


@login_required
@require_GET
def models(request: SignedIn) -> HttpResponse:
    """The table of models."""
    project = project_of(request)
    page = selectors.models_page(request.user, project, request.GET)
    filtered = any(request.GET.get(key) for key in ("q", "task", "starred", "archived", "before"))
    context = {
        "section": "models", "project": project, "page": page, "tasks": Task.choices, "filtered": filtered,
        "public_base": environment.public_base,
    }  # fmt: skip
    return render(request, "registry/models.html", context)


@login_required
@require_http_methods(["GET", "POST"])
def model_new(request: SignedIn) -> HttpResponse:
    """A model without versions."""
    initial = {"project": request.GET.get("project"), "task": Task.TABULAR_CLASSIFICATION}
    form = forms.ModelForm(request.user, posted(request), initial=initial)
    if request.method == "POST" and form.is_valid():
        outcome = attempt(lambda: services.model_create(actor=request.user, **form.cleaned_data))
        if outcome.value:
            return redirect("model", outcome.value.pk)
        show_failure(form, outcome.failure)
    return render(request, "registry/model_new.html", {"section": "models", "form": form}, status=_status(form))


@login_required
@require_GET
def upload(request: SignedIn) -> HttpResponse:
    """Drop an ONNX file; the module of the page streams it to the API."""
    initial = {
        "project": request.GET.get("project"),
        "model": request.GET.get("model"),
        "task": request.GET.get("task") or Task.TABULAR_CLASSIFICATION,
    }
    form = forms.UploadForm(request.user, initial=initial)
    context = {"section": "models", "form": form, "limit_mb": environment.max_upload_mb}
    return render(request, "registry/upload.html", context)


@login_required
@require_GET
def model(request: SignedIn, pk: int) -> HttpResponse:
    """A model with its versions."""
    row = selectors.model_get(request.user, pk)
    page = selectors.versions_page(row, request.GET.get("before"), request.GET.get("state", ""))
    latest = page.rows[0] if page.rows else None
    context = {"section": "models", "project": row.project, "model": row, "page": page, "latest": latest}
    return render(request, "registry/model.html", context)


@login_required
@require_http_methods(["GET", "POST"])
def model_edit(request: SignedIn, pk: int) -> HttpResponse:
    """Task, description and tags."""
    row = selectors.model_get(request.user, pk)
    initial = {"task": row.task, "description": row.description, "tags": ", ".join(row.tags)}
    form = forms.ModelChangeForm(posted(request), initial=initial)
    if request.method == "POST" and form.is_valid():
        outcome = attempt(lambda: services.model_update(actor=request.user, model=row, **form.cleaned_data))
        if outcome.value:
            messages.success(request, _("Saved."))
            return redirect("model", row.pk)
        show_failure(form, outcome.failure)
    context = {"section": "models", "project": row.project, "model": row, "form": form}
    return render(request, "registry/model_edit.html", context, status=_status(form))


@login_required
@require_POST
def model_star(request: SignedIn, pk: int) -> HttpResponse:
    """Puts a model on the person's own list, or takes it off."""
    row = selectors.model_get(request.user, pk)
    return act(
        request,
        lambda: services.model_star(actor=request.user, model=row, starred=not row.starred),
        "",
        reverse("model", args=[pk]),
    )


@login_required
@require_POST
def model_archive(request: SignedIn, pk: int) -> HttpResponse:
    """Hides a model from the list, or brings it back; nothing is deleted."""
    row = selectors.model_get(request.user, pk)
    archived = row.archived_at is None
    done = _("Archived. It is under the filter “archived”.") if archived else _("Back in the list.")
    return act(
        request,
        lambda: services.model_update(actor=request.user, model=row, archived=archived),
        done,
        reverse("model", args=[pk]),
    )


@login_required
@require_GET
def version(request: SignedIn, pk: int, tab: str = "overview") -> HttpResponse:
    """A version; its tabs have addresses."""
    if tab not in TABS:
        raise Http404
    row = selectors.version_get(request.user, pk)
    artifacts = selectors.artifacts_of(row)
    context = {**_version_context(row, artifacts), "tab": tab, "tabs": TABS.items()}
    context |= _tab(request.user, row, artifacts, tab)
    return render(request, f"registry/version_{tab}.html", context)


def _version_context(row: Version, artifacts: list[Any]) -> dict[str, Any]:
    return {
        "section": "models",
        "project": row.model.project,
        "model": row.model,
        "version": row,
        "artifacts": artifacts,
        "main": selectors.main_artifact(artifacts),
        "approve_yes": {"approve": "1"},
        "approve_no": {"approve": "0"},
        "onnx": [artifact for artifact in artifacts if artifact.format == "onnx"],
    }


def _tab(user: User, row: Version, artifacts: list[Any], tab: str) -> dict[str, Any]:
    """What one tab shows beyond the header."""
    if tab == "overview":
        measured = selectors.measurements_of(artifacts)
        return {
            "card": mark_safe(markdown.safe_html(row.card)) if row.card else "",  # noqa: S308  (sanitized by nh3)
            "measured": measured,
            "metric_names": selectors.metric_names(measured),
            "snippets": snippets.for_version(row, artifacts),
        }
    if tab == "variants":
        command = f"slipway search start {row.model.name}/{row.number} --max-loss 1"
        return {"searches": searches_of(user, artifacts), "command": command}
    if tab == "metrics":
        measured = selectors.measurements_of(artifacts)
        return {"measured": measured, "metric_names": selectors.metric_names(measured)}
    if tab == "lineage":
        return {"drawing": lineage.draw(row, artifacts, list(row.datasets.order_by("id")[:20]))}
    if tab == "deployments":
        return {"deployments": selectors.deployments_of(artifacts)}
    if tab == "jobs":
        return {"jobs": selectors.jobs_of(row, artifacts)}
    if tab == "audit":
        return {"entries": selectors.audit_of(row)}
    return {}


@login_required
@require_http_methods(["GET", "POST"])
def version_export(request: SignedIn, pk: int) -> HttpResponse:
    """Chooses formats and starts one export job for each."""
    row = selectors.version_get(request.user, pk)
    ways = environments.ways_of(row)
    form = forms.ExportForm(ways, posted(request))
    if request.method == "POST" and form.is_valid():
        chosen = {"exporters": form.cleaned_data["exporters"], "options": form.cleaned_data["options"]}
        outcome = attempt(lambda: services.export_request(actor=request.user, version=row, **chosen))
        if outcome.value:
            messages.success(request, _("Started: each format is a job of its own."))
            return redirect("version-tab", row.pk, "jobs")
        show_failure(form, outcome.failure)
    more = {"ways": ways, "chosen": request.POST.getlist("exporters"), "files": environments.FILES}
    more |= {"needs_nothing": packages.needs_nothing(row)}
    return _version_form(request, row, form, "export", **more)


@login_required
@require_http_methods(["GET", "POST"])
def version_optimize(request: SignedIn, pk: int) -> HttpResponse:
    """Chooses an artifact and a method and starts an optimize job."""
    row = selectors.version_get(request.user, pk)
    artifacts = selectors.artifacts_of(row)
    form = forms.OptimizeForm(artifacts, posted(request), initial={"artifact": request.GET.get("artifact")})
    if request.method == "POST" and form.is_valid():
        chosen = next(one for one in artifacts if str(one.pk) == form.cleaned_data["artifact"])
        asked = {name: form.cleaned_data[name] for name in ("optimizer", "options")}
        outcome = attempt(lambda: services.optimize_request(actor=request.user, artifact=chosen, **asked))
        if outcome.value:
            return redirect("job", outcome.value.pk)
        show_failure(form, outcome.failure)
    return _version_form(request, row, form, "optimize", searchable=True, chosen=[form["optimizer"].value()])


@login_required
@require_http_methods(["GET", "POST"])
def version_alias(request: SignedIn, pk: int) -> HttpResponse:
    """Points an alias at this version."""
    row = selectors.version_get(request.user, pk)
    form = forms.AliasForm(posted(request))
    if request.method == "POST" and form.is_valid():
        name = form.cleaned_data["name"]
        outcome = attempt(lambda: services.alias_set(actor=request.user, model=row.model, name=name, version=row))
        if outcome.value:
            messages.success(request, _("“%(alias)s” now names version %(n)d.") % {"alias": name, "n": row.number})
            return redirect("version", row.pk)
        show_failure(form, outcome.failure)
    return _version_form(request, row, form, "alias")


@login_required
@require_POST
def version_alias_remove(request: SignedIn, pk: int) -> HttpResponse:
    """Takes an alias away; the version stays."""
    row = selectors.version_get(request.user, pk)
    name = request.POST.get("name", "")
    return act(
        request,
        lambda: services.alias_remove(actor=request.user, model=row.model, name=name),
        _("“%(alias)s” is removed.") % {"alias": name},
        reverse("version", args=[pk]),
    )


@login_required
@require_POST
def version_decide(request: SignedIn, pk: int) -> HttpResponse:
    """Approves or declines."""
    row = selectors.version_get(request.user, pk)
    approve, note = request.POST.get("approve") == "1", request.POST.get("note", "")[:1000]
    return act(
        request,
        lambda: services.version_decide(actor=request.user, version=row, approve=approve, note=note),
        _("Approved.") if approve else _("Declined."),
        reverse("version", args=[pk]),
    )


FORMS = {
    "export": (
        gettext_lazy("Export"),
        gettext_lazy(
            "Converts the source in the sandbox, compares the result with the source on real rows, "
            "and refuses it beyond the tolerance."
        ),
    ),
    "optimize": (
        gettext_lazy("Optimize"),
        gettext_lazy("Makes a variant of the artifact and measures both: quality, latency, size."),
    ),
    "alias": (
        gettext_lazy("Set alias"),
        gettext_lazy("An alias names one version of the model; the version that has it now loses it."),
    ),
}


def _version_form(request: SignedIn, row: Version, form: Any, name: str, **more: Any) -> HttpResponse:
    title, effect = FORMS[name]
    context = {
        "section": "models", "project": row.model.project, "model": row.model, "version": row,
        "form": form, "title": title, "effect": effect, **more,
    }  # fmt: skip
    page = "registry/version_export.html" if name == "export" else "registry/version_form.html"
    return render(request, page, context, status=_status(form))


def _status(form: Any) -> int:
    return 422 if form.is_bound and form.errors else 200


@login_required
@require_GET
def compare(request: SignedIn) -> HttpResponse:
    """Two to five versions side by side; the first one is the base."""
    ids = [number(text) for text in request.GET.getlist("v")]
    try:
        rows = selectors.compare(request.user, [pk for pk in dict.fromkeys(ids) if pk][:5])
    except InvalidPage as error:
        raise Http404 from error
    only = request.GET.get("only") == "1"
    context = {
        "section": "models", "project": rows[0].model.project, "versions": rows, "only": only,
        "groups": comparison.table(rows, only_differences=only),
    }  # fmt: skip
    return render(request, "registry/compare.html", context)


@login_required
@require_GET
def datasets(request: SignedIn) -> HttpResponse:
    """Content-addressed rows."""
    project = project_of(request)
    page = selectors.datasets_page(request.user, project, request.GET.get("before"))
    return render(request, "registry/datasets.html", {"section": "datasets", "project": project, "page": page})
