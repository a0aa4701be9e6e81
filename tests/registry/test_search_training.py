"""Trials that tune in the torch environment: made by workers as jobs, and what took long made once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.optimize.lab.state import Proposal
from engine.optimize.recipe import Recipe
from engine.sentence import say
from registry import searches
from registry.models import Artifact, Model
from registry.search_models import SearchTrial
from slipway import paths
from slipway.jobs.models import JobLog, State
from tests.registry import lab

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("use_mlflow", "environments")]
CUT = ("prune-channels", {"amount": 0.25})
TUNE = ("fine-tuning", {"epochs": 2, "seconds": 20})


@pytest.fixture
def environments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Those that other tests prepare, too."""
    kept = Path(os.environ.get("SLIPWAY_TEST_ENVIRONMENTS", tmp_path))
    monkeypatch.setattr(paths, "environments", lambda: kept)


@pytest.fixture
def base(model: Model) -> Artifact:
    return lab.artifact(model)


def test_tuned_model_is_made_once_when_recipes_begin_alike(base: Artifact) -> None:
    lab.dataset(base.version, lab.rows(200))
    training = lab.dataset(base.version, lab.rows(400, seed=2), role="training")
    search = searches.search_request(
        actor=None, artifact=base, goal={"trials": 1, "minutes": 5, "max_loss": 100}, training=training
    )
    lab.run(search.job)
    search.refresh_from_db()
    recipes = [Recipe.of(CUT, TUNE), Recipe.of(CUT, TUNE, ("static-quantization", {}))]
    searches.trials_submit(search=search, proposals=[Proposal(recipe, say("alike")) for recipe in recipes])
    for child in lab.children(search)[1:]:
        assert lab.run(child).state == State.SUCCEEDED
    bare, quantized = (SearchTrial.objects.get(search=search, key=recipe.key) for recipe in recipes)
    assert [bare.state, quantized.state] == ["measured", "measured"], (bare.reason, quantized.reason)
    assert bare.artifact is not None and bare.halfway[bare.key]["sha256"] == bare.artifact.sha256
    assert quantized.halfway == {} and quantized.size != bare.size
    said = JobLog.objects.filter(job=quantized.job).values_list("text", flat=True)
    assert any("made by a former trial" in text for text in said)
    assert lab.finish(search).state == State.SUCCEEDED
