"""Pages of the optimization lab: the goal, and a search as it goes."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext, gettext_lazy
from django.views.decorators.http import require_GET, require_http_methods

from engine.optimize.lab.trial import GUARDED_ROWS
from registry import lab_page, search_selectors, searches, selectors
from registry.goal_form import GoalForm
from registry.scatter import scatter_of
from registry.search_models import TrialState
from slipway.accounts.pages import SignedIn, attempt, number, posted, show_failure, text_in

SORTS = {
    "": gettext_lazy("Best first"),
    "loss": gettext_lazy("Loss"),
    "latency": gettext_lazy("Time of a call"),
    "size": gettext_lazy("Size"),
    "newest": gettext_lazy("Newest"),
}


@login_required
@require_http_methods(["GET", "POST"])
def version_search(request: SignedIn, pk: int) -> HttpResponse:
    """Says what is promised, and starts the search."""
    row = selectors.version_get(request.user, pk)
    artifacts = selectors.artifacts_of(row)
    newest = selectors.evaluation_set(row)
    initial = {"artifact": request.GET.get("artifact"), "dataset": newest}
    form = GoalForm(request.user, artifacts, posted(request), initial=initial)
    if request.method == "POST" and form.is_valid():
        chosen = next(one for one in artifacts if str(one.pk) == form.cleaned_data["artifact"])
        outcome = attempt(lambda: searches.search_request(actor=request.user, artifact=chosen, **form.asked()))
        if outcome.value:
            return redirect("lab", outcome.value.pk)
        show_failure(form, outcome.failure)
    context = {
        "section": "models", "project": row.model.project, "model": row.model, "version": row, "form": form,
        "onnx": [one for one in artifacts if one.format == "onnx"], "newest": newest,
    }  # fmt: skip
    return render(request, "registry/search_new.html", context, status=422 if form.errors else 200)


@login_required
@require_GET
def search(request: SignedIn, pk: int) -> HttpResponse:
    """One search: live while it runs, then what it found. The address holds the filter, the order and the trial."""
    row = search_selectors.search_get(request.user, pk)
    standing = search_selectors.standing_of(row)
    state, sort = text_in(request.GET, "state", 20), text_in(request.GET, "sort", 20)
    trials = search_selectors.trials_sorted(standing, state=state, sort=sort)
    chosen = lab_page.chosen_of(standing, number(request.GET.get("trial"), 2**63 - 1))
    version = row.artifact.version
    context: dict[str, Any] = {
        "section": "models", "project": version.model.project, "model": version.model, "version": version,
        "search": row, "standing": standing, "goal": row.asked, "job": row.job,
        "rows": lab_page.table_of(row, standing, trials),
        "states": [(value, label, standing.counts[value]) for value, label in TrialState.choices],
        "sorts": SORTS.items(), "scatter": scatter_of(standing), "chosen": chosen, "best": standing.recommended,
        "offered": standing.offered,
        "reasons": [words.said(gettext) for words in standing.conclusion.reasons],
        "relax": [words.said(gettext) for words in standing.conclusion.relax],
        "sizes": lab_page.sizes_of(row), "sensitivity": lab_page.sensitivity_of(row),
    }  # fmt: skip
    if chosen is not None:
        context |= {"diff": lab_page.diff_of(row, chosen), "confusions": lab_page.confusions_of(chosen)}
        context |= {"slices": lab_page.slices_of(row, chosen), "least": GUARDED_ROWS}
        context["chosen_rows"] = lab_page.table_of(row, standing, [chosen])
    return render(request, "registry/search.html", context)
