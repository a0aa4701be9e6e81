"""Pages of endpoints, deploying, rollouts and targets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from deployments import forms, selectors, services, story
from deployments import rollouts as moves
from deployments.models import DeploymentState, Endpoint
from deployments.settings_forms import SettingsForm, settings_told
from registry import selectors as registered
from registry import snippets
from slipway.accounts import policy
from slipway.accounts.models import Project
from slipway.accounts.pages import SignedIn, act, attempt, number, posted, project_of, show_failure
from slipway.environment import environment

MOVES: dict[str, Callable[..., Any]] = {
    "pause": moves.rollout_pause,
    "resume": moves.rollout_resume,
    "promote": moves.rollout_promote,
    "full": moves.rollout_full,
    "abort": moves.rollout_abort,
    "roll-back": moves.rollout_roll_back,
}


@login_required
@require_GET
def endpoints(request: SignedIn) -> HttpResponse:
    """Endpoints with weights and figures."""
    project = project_of(request)
    page = selectors.endpoints_page(request.user, project, request.GET)
    shown = [row for endpoint in page for row in endpoint.desired]
    context = {"section": "endpoints", "project": project, "page": page, "shown": shown}
    return render(request, "deployments/endpoints.html", context)


def _deploy_project(request: SignedIn) -> Project | None:
    """The project that a form without an answer yet is about: the one named, else the first allowed."""
    slug = request.POST.get("project") or request.GET.get("project")
    rows = forms.projects_for(request.user, policy.DEPLOY)
    return (rows.filter(slug=slug).first() if slug else None) or rows.first()


@login_required
@require_http_methods(["GET", "POST"])
def endpoint_new(request: SignedIn) -> HttpResponse:
    """A new name that answers."""
    project = _deploy_project(request)
    artifacts = registered.servable(request.user, project) if project else registered.Artifact.objects.none()
    initial = {"project": project and project.slug, "artifact": number(request.GET.get("artifact"))}
    form = forms.EndpointForm(request.user, _unsliced(artifacts), posted(request), initial=initial)
    if request.method == "POST" and form.is_valid():
        outcome = attempt(lambda: services.endpoint_create(actor=request.user, **form.cleaned_data))
        if outcome.value:
            return redirect("endpoint", outcome.value.name)
        show_failure(form, outcome.failure)
    status = 422 if form.is_bound and form.errors else 200
    context = {"section": "endpoints", "form": form, "possible": project is not None}
    return render(request, "deployments/endpoint_new.html", context, status=status)


def _unsliced(rows: Any) -> Any:
    """A choice field filters its rows, which a slice does not allow."""
    return (
        registered.Artifact.objects.filter(pk__in=[row.pk for row in rows])
        .select_related("version__model")
        .order_by("-pk")
    )


@login_required
@require_GET
def endpoint(request: SignedIn, name: str) -> HttpResponse:
    """One endpoint: split, charts, histogram, replicas, history, serving settings."""
    row = selectors.endpoint_get(request.user, name)
    return render(request, "deployments/endpoint.html", _endpoint(request, row, SettingsForm(row)))


@login_required
@require_http_methods(["GET", "POST"])
def endpoint_settings(request: SignedIn, name: str) -> HttpResponse:
    """Changes the serving settings; a refusal is shown at its field, on the endpoint's page."""
    row = selectors.endpoint_get(request.user, name)
    if request.method == "GET":
        return redirect("endpoint", name)
    policy.require(request.user, policy.DEPLOY, row.project)
    form = SettingsForm(row, request.POST)
    if form.is_valid():
        revision = number(request.POST.get("revision"))
        outcome = attempt(
            lambda: services.settings_change(
                actor=request.user, endpoint=row, settings=form.settings(), revision=revision
            )
        )
        if outcome.value:
            messages.success(request, _("Saved. The servers follow within seconds."))
            return redirect("endpoint", name)
        show_failure(form, outcome.failure)
    return render(request, "deployments/endpoint.html", _endpoint(request, row, form), status=422)


def _endpoint(request: SignedIn, row: Endpoint, form: SettingsForm) -> dict[str, Any]:
    shown = selectors.shown_on(row)
    servers = selectors.servers(shown)
    return {
        "section": "endpoints",
        "project": row.project,
        "endpoint": row,
        "settings_facts": settings_told(row),
        "settings_form": form,
        "shown": shown,
        "live": [one for one in shown if one.state == DeploymentState.LIVE],
        "rollout": selectors.rollout_under_way(row),
        "returnable": selectors.returnable(row),
        "history": selectors.history_of(row),
        "servers": [one for one in servers if not one["quiet"]],
        "quiet": [one for one in servers if one["quiet"]],
        "generation": selectors.generation(),
        "span": request.GET.get("span", "900"),
        "spans": [("900", _("15 min")), ("3600", _("1 h")), ("21600", _("6 h"))],
        "infer_url": snippets.infer_url(row.name),
    }


@login_required
@require_POST
def endpoint_return(request: SignedIn, name: str, pk: int) -> HttpResponse:
    """Starts a rollout at once to an artifact of the history."""
    row = selectors.endpoint_get(request.user, name)
    wanted = next((one for one in selectors.history_of(row) if one.pk == pk), None)
    if wanted is None:
        raise Http404
    steps = [{"mode": "full", "weight": 100, "min_seconds": 60.0}]
    done = _("Started: the servers load version %(n)d, then it takes all traffic.") % {
        "n": wanted.artifact.version.number
    }
    return act(
        request,
        lambda: moves.rollout_start(
            actor=request.user,
            endpoint=row,
            artifact=wanted.artifact,
            steps=steps,
            provider=wanted.provider,
            upstream=wanted.upstream or None,
        ),
        done,
        reverse("endpoint", args=[name]),
    )


@login_required
@require_http_methods(["GET", "POST"])
def deploy(request: SignedIn) -> HttpResponse:
    """Chooses artifact, endpoint and plan, says what will happen, and starts it."""
    version = registered.version_get(request.user, number(request.GET.get("version")) or 0)
    project = version.model.project
    artifacts = registered.deployable(version)
    rows = Endpoint.objects.filter(project=project).order_by("name")
    newest = artifacts.order_by("-pk").first()
    initial = {
        "artifact": number(request.GET.get("artifact")) or (newest and newest.pk),
        "endpoint": request.GET.get("endpoint"),
    }
    form = forms.DeployForm(rows, artifacts.select_related("version__model"), posted(request), initial=initial)
    context = {
        "section": "endpoints", "project": project, "version": version, "model": version.model, "form": form,
        "endpoints": rows.exists(), "newest": newest,
    }  # fmt: skip
    if request.method == "POST" and form.is_valid():
        if request.POST.get("confirmed") != "1":
            return render(request, "deployments/deploy.html", {**context, "effect": _effect(form), "confirm": True})
        outcome = attempt(lambda: _start(request, form))
        if outcome.value:
            return redirect(outcome.value)
        show_failure(form, outcome.failure)
    status = 422 if form.is_bound and form.errors else 200
    return render(request, "deployments/deploy.html", context, status=status)


def _live(endpoint_: Endpoint) -> Any:
    rows = endpoint_.deployments.filter(state=DeploymentState.LIVE).select_related("artifact__version")
    return rows.order_by("-weight").first()


def _effect(form: Any) -> str:
    """The first effect of the plan in a sentence."""
    chosen, artifact = form.cleaned_data["endpoint"], form.cleaned_data["artifact"]
    stable = _live(chosen)
    if stable is None:
        words = {"endpoint": chosen.name, "n": artifact.version.number}
        first = _("Version %(n)d takes all traffic of %(endpoint)s, which serves nothing yet.") % words
    else:
        steps, _guard = form.plan()
        first = story.plan_effect(chosen.name, stable.artifact.version.number, artifact.version.number, steps)
    return " ".join([first, *form.runtime_told()])


def _start(request: SignedIn, form: Any) -> str:
    """Places the first artifact or starts a rollout; answers the page to go to."""
    chosen, artifact = form.cleaned_data["endpoint"], form.cleaned_data["artifact"]
    if _live(chosen) is None:
        services.deployment_place(actor=request.user, endpoint=chosen, artifact=artifact, **form.runtime())
        return reverse("endpoint", args=[chosen.name])
    steps, guard = form.plan()
    row = moves.rollout_start(
        actor=request.user, endpoint=chosen, artifact=artifact, steps=steps, guard=guard, **form.runtime()
    )
    return reverse("rollout", args=[row.pk])


@login_required
@require_GET
def rollouts(request: SignedIn) -> HttpResponse:
    """Rollouts, newest first."""
    project = project_of(request)
    page = selectors.rollouts_page(request.user, project, request.GET)
    context = {"section": "rollouts", "project": project, "page": page, "filtered": bool(request.GET.get("state"))}
    return render(request, "deployments/rollouts.html", context)


@login_required
@require_GET
def rollout(request: SignedIn, pk: int) -> HttpResponse:
    """One rollout: traffic, evidence, decisions, and the moves that apply."""
    row = selectors.rollout_get(request.user, pk)
    context = {
        "section": "rollouts",
        "project": row.endpoint.project,
        "rollout": row,
        "endpoint": row.endpoint,
        "headline": story.headline(row),
        "split": story.split(row),
        "steps": story.steps(row),
        "guards": story.guards(row),
        "moves": story.moves(row),
        "decisions": selectors.decisions_of(row),
        "sides": [row.candidate, row.stable],
        "revision": {"revision": row.revision},
        "servers": selectors.servers([row.candidate, row.stable]) if row.is_live else [],
        "generation": selectors.generation(),
        "public_base": environment.public_base,
    }
    return render(request, "deployments/rollout.html", context)


@login_required
@require_POST
def rollout_act(request: SignedIn, pk: int, move: str) -> HttpResponse:
    """Pause, resume, promote, full, abort or roll back: one service call on what the person saw."""
    if move not in MOVES:
        raise Http404
    row = selectors.rollout_get(request.user, pk)
    revision = number(request.POST.get("revision"))
    return act(
        request,
        lambda: MOVES[move](actor=request.user, rollout=row, revision=revision),
        "",
        reverse("rollout", args=[pk]),
    )


@login_required
@require_GET
def targets(request: SignedIn) -> HttpResponse:
    """Where models run, and the server processes there."""
    project = project_of(request)
    rows = selectors.targets(request.user, project)
    context = {
        "section": "targets",
        "project": project,
        "targets": rows,
        "live": selectors.live_count(rows),
        "servers": selectors.servers([]),
        "generation": selectors.generation(),
        "serving_base": environment.serving_base,
    }
    return render(request, "deployments/targets.html", context)
