"""The playground: a real request from a person's inputs, its answer, and the same call as code."""

from __future__ import annotations

import json
from typing import Any

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods

from deployments import forms, selectors
from deployments import playground as play
from deployments.answers import answer_table
from deployments.inputs import class_names, inputs_of
from deployments.models import Deployment, DeploymentState, Endpoint
from registry import examples, snippets
from slipway.accounts import policy
from slipway.accounts.pages import SignedIn, attempt, posted

KINDS = ("table", "image", "text", "json")


def _asked(shown: list[Deployment]) -> Deployment | None:
    """The deployment that requests are made for: the one with most of the traffic."""
    return max(shown, key=lambda row: (row.state == DeploymentState.LIVE, row.weight, row.pk), default=None)


def _calls(endpoint: Endpoint, body: str) -> list[tuple[str, str]]:
    """(label, code) of the same call from elsewhere."""
    url, token = snippets.infer_url(endpoint.name), endpoint.access == "token"
    found = [
        ("curl", snippets.curl(url, body, token)),
        (_("Python, httpx"), snippets.python(url, body, token)),
        (_("Python, tritonclient"), snippets.tritonclient(endpoint.name, body, token)),
    ]
    return [(label, code) for label, code in found if code]


def _answered(answer: play.Answer, shown: list[Deployment], asked: Deployment | None) -> dict[str, Any]:
    """What the answer's panel shows: who answered, and the outputs as a table."""
    by = next((row for row in shown if str(row.pk) == answer.deployment), None)
    artifact = (by or asked).artifact if (by or asked) else None  # type: ignore[union-attr]
    classes = class_names(artifact, artifact.version) if artifact else []
    return {
        "answer": answer,
        "by": by,
        "by_label": selectors.label_of(by) if by else "",
        "table": answer_table(answer.document, classes) if answer.good else None,
    }


@login_required
@require_http_methods(["GET", "POST"])
def playground(request: SignedIn, name: str) -> HttpResponse:
    """The page; a POST answers the page again, or its answer alone to the page's own script."""
    row = selectors.endpoint_get(request.user, name)
    shown = selectors.shown_on(row)
    asked = _asked(shown)
    signature = snippets.served_signature(asked.artifact) if asked else {}
    example = snippets.shortened(snippets.example_request(signature))
    form = forms.PlaygroundForm(posted(request), initial={"body": example})
    if row.access != "token":
        del form.fields["token"]
    context: dict[str, Any] = {"endpoint": row, "form": form, "body": example}
    if request.method == "POST" and form.is_valid():
        if not policy.allows(request.user, policy.INFER, row.project):
            raise PermissionDenied(_("Your role may not call endpoints."))
        body = form.cleaned_data["body"]
        answer = play.send(row.name, body, form.cleaned_data.get("token", ""))
        context |= {**_answered(answer, shown, asked), "body": body}
    context["calls"] = _calls(row, context["body"])
    status = 422 if form.is_bound and form.errors else 200
    if request.htmx:  # type: ignore[attr-defined]
        return render(request, "deployments/_answer.html", context, status=status)
    inputs = inputs_of(signature, asked.artifact.version if asked else None)
    kind = request.GET.get("input", "")
    context |= {
        "section": "endpoints", "project": row.project, "signature": signature, "live": bool(shown),
        "inputs": inputs, "description": json.dumps(inputs, ensure_ascii=False, separators=(",", ":")),
        "kind": kind if kind in inputs["kinds"] else inputs["first"],
        "dataset": examples.dataset_of(asked.artifact.version) if asked else None,
    }  # fmt: skip
    return render(request, "deployments/playground.html", context, status=status)


@login_required
@require_GET
def playground_rows(request: SignedIn, name: str) -> JsonResponse:
    """The first rows of the data that the served version was held against: {columns, rows, target, name}."""
    row = selectors.endpoint_get(request.user, name)
    asked = _asked(selectors.shown_on(row))
    dataset = examples.dataset_of(asked.artifact.version) if asked else None
    if dataset is None:
        return JsonResponse({"error": _("There are no rows to load: the version has no CSV data set.")}, status=404)
    outcome = attempt(lambda: examples.example_rows(dataset))
    if outcome.failure:
        return JsonResponse({"error": outcome.failure.text}, status=outcome.failure.status)
    return JsonResponse({**(outcome.value or {}), "name": dataset.name})
