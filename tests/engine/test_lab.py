"""The lab's judgement, front, conclusion and plan."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.evaluate import paired
from engine.evaluate.outputs import Outputs
from engine.optimize.lab import amounts
from engine.optimize.lab.conclude import Conclusion, conclude
from engine.optimize.lab.goal import Goal
from engine.optimize.lab.pareto import front
from engine.optimize.lab.plan import next_recipes
from engine.optimize.lab.promise import upper_among
from engine.optimize.lab.trial import Judgement, Measured, Survey, Trial
from engine.optimize.recipe import Recipe
from engine.sentence import Sentence

BASE = Measured(p50_ms=2, p95_ms=2.2, p99_ms=2.4, size_bytes=40_000_000, peak_memory_mb=150)


NET = Survey(
    parameters=10**7,
    weight_bytes=4 * 10**7,
    operators={"Conv": 20, "Gemm": 1},
    bytes_by_operator={"Conv": 39 * 10**6, "Gemm": 10**6},
    calibration=True,
    training=True,
    rows=540,
)


def trial(options: dict[str, object], loss: float, ratio: float, size: int, upper: float | None = None) -> Trial:
    return Trial(
        recipe=Recipe.of(("dynamic-quantization", options)),
        state="measured",
        judged=Judgement(
            metric="accuracy", baseline=98, value=98 - loss, loss=loss, loss_upper=upper or loss + 0.3, rows=540
        ),
        measured=Measured(
            p50_ms=2 * ratio,
            p95_ms=2.2 * ratio,
            p99_ms=2.4 * ratio,
            ratio=ratio,
            ratio_low=ratio * 0.98,
            ratio_high=ratio * 1.02,
            size_bytes=size,
            peak_memory_mb=100,
        ),
    )


def test_loss_is_bounded_in_95_of_100_when_drawn_again_and_again() -> None:
    random = np.random.default_rng(5)
    lost_share, won_share, rows = 0.03, 0.015, 540
    held = 0
    for _ in range(4_000):
        lost, won, _ = random.multinomial(rows, [lost_share, won_share, 1 - lost_share - won_share])
        held += paired.difference_upper(int(lost), int(won), rows) >= lost_share - won_share
    assert held / 4_000 == pytest.approx(0.95, abs=0.015)
    assert paired.difference_upper(0, 0, 540) > 0.002


def test_classes_and_confusion_are_told_when_there_is_a_truth() -> None:
    truth = np.array([0] * 20 + [1] * 20)
    after = truth.copy()
    after[:4] = 1
    found = paired.judge("tabular-classification", Outputs(truth, None), Outputs(after, None), truth)
    judged = Judgement.model_validate(found)
    assert judged.loss == 10 and judged.worst is not None and judged.worst.name == "0" and judged.worst.loss == 20
    assert found["confusion"] == {"labels": ["0", "1"], "before": [[20, 0], [0, 20]], "after": [[16, 4], [0, 20]]}
    assert judged.p_value == pytest.approx(0.125)  # 2 × (1/2)⁴


def test_loss_is_in_percent_of_the_error_when_numbers_are_predicted() -> None:
    random = np.random.default_rng(1)
    truth = random.normal(size=300)
    error = random.normal(size=300)
    before, after = (Outputs(None, (truth + error * scale)[:, None]) for scale in (1, 1.1))
    found = paired.judge("tabular-regression", before, after, truth)
    assert found["loss"] == pytest.approx(10) and found["loss_upper"] == pytest.approx(10, abs=0.01)


def test_agreement_is_judged_when_there_is_no_truth() -> None:
    scores = np.eye(3)[[0, 1, 2, 0]]
    other = np.eye(3)[[0, 1, 2, 1]]
    found = paired.judge("embedding", Outputs(None, scores), Outputs(None, other), None)
    assert found["metric"] == "agreement" and found["value"] == 75 and found["loss"] == 25


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)), max_size=12))
def test_front_is_what_nothing_dominates(points: list[tuple[int, int, int]]) -> None:
    kept = front(points)
    for index, point in enumerate(points):
        beaten = any(all(a <= b for a, b in zip(other, point, strict=True)) and other != point for other in points)
        first = points.index(point) == index
        assert (index in kept) == (not beaten and first)


def test_share_is_found_when_quality_breaks_somewhere() -> None:
    for border in (0.0, 0.12, 0.4, 0.63, 0.95):
        outcomes: dict[float, bool] = {}
        while (share := amounts.following(outcomes)) is not None:
            outcomes[share] = share <= border
        good = max((share for share, well in outcomes.items() if well), default=0.0)
        assert good <= border and border - good < 0.12 and len(outcomes) <= amounts.TRIES


def test_best_of_those_that_keep_the_promise_is_recommended_with_reasons() -> None:
    trials = [trial({}, 0.2, 0.4, 10**7), trial({"per_channel": True}, 2.5, 0.1, 10**6)]
    found = conclude(Goal(), BASE, trials)
    assert found.recommended == trials[0].key and set(found.front) == {one.key for one in trials}
    assert "2.50 times the speed" in str(found.reasons[0]) and "25.0 % of the size" in str(found.reasons[0])
    unsure = conclude(Goal(), BASE, [trial({}, 0.9, 0.4, 10**7, upper=1.6)])
    assert unsure.recommended and "too few to prove" in str(unsure.reasons[-1])
    both = conclude(
        Goal(), BASE, [trial({}, 0.9, 0.4, 10**6, upper=1.6), trial({"per_channel": True}, 0.2, 0.4, 10**7)]
    )
    assert both.recommended == trial({"per_channel": True}, 0, 1, 1).key and "cannot be ruled out" in str(
        both.reasons[-1]
    )
    bold = trial({}, 0.9, 0.1, 10**6, upper=1.6)
    much = conclude(Goal(), BASE, [bold, trial({"per_channel": True}, 0.2, 0.4, 10**7)])
    assert much.recommended == bold.key and "is proven to keep the promise, with 2.50 times" in str(much.reasons[-1])
    assert conclude(Goal(sure=True), BASE, [trial({}, 0.9, 0.4, 10**7, upper=1.6)]).recommended is None


def test_conclusion_is_said_in_another_language_when_it_was_stored() -> None:
    found = conclude(Goal(latency_ms=0.5), BASE, [trial({}, 2.5, 0.4, 10**7)])
    stored = Conclusion.model_validate_json(found.model_dump_json())
    words = {
        "%(recipe)s would do with %(wishes)s.": "<%(wishes)s | %(recipe)s>",
        "%(before)s and %(after)s": "%(after)s & %(before)s",
        "a latency of %(most)s ms": "%(most)s!",
        "Dynamic int8 quantization": "D8",
    }
    assert stored.relax[0].said(lambda text: words.get(text, text)) == "<a loss of 2.50 points & 0.88! | D8>"
    old = Conclusion.model_validate({"reasons": ["It has 5.1 % of the size."]})
    assert str(old.reasons[0]) == "It has 5.1 % of the size."


def test_idea_of_a_trial_is_said_when_it_was_stored_as_plain_text() -> None:
    told = next_recipes(Goal(), NET, [], 100)[0].why
    assert Sentence.of_stored(told.model_dump_json()) == told
    assert str(Sentence.of_stored("smallest weights, 50% of the channels")) == "smallest weights, 50% of the channels"
    assert str(Sentence.of_stored("")) == ""


def test_slower_variant_is_called_slower_when_only_its_size_counts() -> None:
    found = conclude(Goal(prefer="size"), BASE, [trial({}, 0, 3.0, 10**7)])
    assert found.recommended and "slower than its parent" in str(found.reasons[0])
    assert conclude(Goal(prefer="latency"), BASE, [trial({}, 0, 3.0, 10**7)]).recommended is None


def test_nothing_is_recommended_for_speed_when_it_is_not_surely_faster() -> None:
    speed = Goal(prefer="latency")
    smaller = trial({}, 0.2, 1.0, 10**7, upper=0.5)  # as fast, a quarter of the size
    found = conclude(speed, BASE, [smaller])
    assert found.recommended is None and found.offered == smaller.key
    assert "faster than the model as it is" in str(found.reasons[0])
    assert "has 25.0 % of the size at the same speed, and on these rows it loses 0.20 points" in str(found.reasons[1])
    # What seems faster by less than measuring can tell is not, either.
    assert conclude(speed, BASE, [trial({}, 0.2, 0.985, 10**7)]).recommended is None
    assert conclude(speed, BASE, [trial({}, 0.2, 0.97, 10**7)]).recommended is not None
    # Not offered: slower, hardly smaller, or losing too much.
    for other in (trial({}, 0.2, 1.04, 10**7), trial({}, 0.2, 1.0, 39 * 10**6), trial({}, 2.5, 1.0, 10**7)):
        assert conclude(speed, BASE, [other]).offered is None
    # A proof is worth as much here.
    bold = trial({"per_channel": True}, 0.9, 1.0, 9 * 10**6, upper=1.6)
    assert conclude(speed, BASE, [bold, smaller]).offered == smaller.key
    for wish in ("size", "balanced"):
        small = conclude(Goal(prefer=wish), BASE, [smaller])
        assert small.recommended == smaller.key and small.offered is None
    stored = Conclusion.model_validate({"recommended": None, "reasons": []})
    assert stored.offered is None


def test_best_that_fits_is_recommended_when_the_model_itself_exceeds_the_budgets() -> None:
    fits = trial({}, 0.2, 1.2, 10**7)
    found = conclude(Goal(prefer="latency", size_mb=20), BASE, [fits])
    assert found.recommended == fits.key and "slower than its parent" in str(found.reasons[0])
    assert "does not keep the budgets" in str(found.reasons[-1])
    assert conclude(Goal(prefer="latency", size_mb=50), BASE, [fits]).recommended is None


def test_what_to_relax_is_said_when_nothing_keeps_the_promise() -> None:
    found = conclude(Goal(latency_ms=0.5), BASE, [trial({}, 0.2, 0.4, 10**7)])
    assert found.recommended is None and found.nearest and "a latency of 0.88 ms" in str(found.relax[0])
    refused = trial({}, 3.0, 1, 1).model_copy(update={"state": "refused", "measured": None})
    assert "3.00 instead of 1" in str(conclude(Goal(), BASE, [refused]).relax[0])


def test_bound_is_wider_when_it_is_the_best_of_many() -> None:
    judged = trial({}, 0.2, 0.4, 10**7, upper=0.8).judged
    assert judged is not None
    bounds = [upper_among(judged, count) for count in (1, 2, 20, 200)]
    assert bounds[0] == pytest.approx(0.8) and bounds == sorted(bounds)
    assert bounds[2] == pytest.approx(0.2 + 0.6 * 2.807 / 1.645, abs=1e-3)  # z at 0.05 / 20
    many = [trial({"per_channel": bool(number)}, 0.2, 0.4, 10**7, upper=0.8) for number in range(2)]
    assert conclude(Goal(sure=True), BASE, many[:1]).recommended
    refused = [one.model_copy(update={"state": "refused", "measured": None}) for one in many * 10]
    lucky = conclude(Goal(sure=True), BASE, [many[0], *refused])
    assert lucky.recommended is None and "more rows, for the best of 21" in str(lucky.relax[0])


def test_nothing_long_is_begun_when_the_time_is_nearly_over() -> None:
    trials: list[Trial] = []
    goal = Goal(trials=60, minutes=10)
    while proposals := next_recipes(goal, NET, trials, 30):
        assert not any(step.optimizer == "fine-tuning" for one in proposals for step in one.recipe.steps)
        trials += [world(one.recipe, 0.5) for one in proposals]
    tuned = next_recipes(goal, NET, trials, 300)[0].recipe
    assert [step.optimizer for step in tuned.steps] == ["prune-channels", "fine-tuning"]
    trials.append(world(tuned, 0.5))
    # What was tuned is there: the quantized form of it takes no second tuning.
    again = next_recipes(goal, NET, trials, 30)[0].recipe
    assert again.steps[:2] == tuned.steps and again.steps[2].optimizer == "static-quantization"


def test_class_is_guarded_when_the_whole_looks_well() -> None:
    one = trial({}, 0.2, 0.4, 10**7)
    assert one.judged is not None
    slices = [{"name": "7", "rows": 40, "baseline": 100.0, "value": 92.5, "loss": 7.5}]
    judged = Judgement.model_validate({**one.judged.model_dump(), "slices": slices})
    found = conclude(Goal(), BASE, [one.model_copy(update={"judged": judged})])
    assert found.recommended is None
    assert conclude(Goal(max_slice_loss=10), BASE, [one.model_copy(update={"judged": judged})]).recommended


def world(recipe: Recipe, bears: float, blocks: float = 0.0) -> Trial:
    """A net whose quality bears that a share of its channels goes, and of its residual blocks."""
    size, ratio, loss = 4 * 10**7, 1.0, 0.0
    left = 1.0
    for step in recipe.steps:
        if step.optimizer.startswith("prune-channels"):
            left *= 1 - float(step.options["amount"])
            if 1 - left > bears:
                loss = 5.0
        elif step.optimizer == "prune-blocks":
            ratio *= 1 - float(step.options["amount"])
            loss = max(loss, 5.0 * (float(step.options["amount"]) > blocks))
        elif step.optimizer in ("static-quantization", "codebook", "float16"):
            size //= 4
            ratio *= 0.2 if step.optimizer == "static-quantization" else 2
    made = trial({}, loss, ratio * left**2, int(size * left**2))
    return made.model_copy(update={"recipe": recipe, "state": "refused" if loss else "measured"})


def unproven(one: Trial) -> Trial:
    assert one.judged is not None
    judged = one.judged.model_copy(update={"rows": 100, "loss_upper": one.judged.loss + 2.3})
    return one.model_copy(update={"judged": judged})


@pytest.mark.parametrize("bears", [0.0, 0.3, 0.6, 0.8])
def test_search_ends_near_the_best_when_quality_breaks_somewhere(bears: float) -> None:
    trials: list[Trial] = []
    goal = Goal(trials=60, prefer="balanced")
    while proposals := next_recipes(goal, NET, trials, 1000):
        assert all(str(proposal.why) for proposal in proposals)
        trials += [world(proposal.recipe, bears) for proposal in proposals]
    assert len({one.key for one in trials}) == len(trials) < 50
    best = conclude(goal, BASE, trials)
    chosen = next(one for one in trials if one.key == best.recommended)
    assert chosen.measured is not None and chosen.measured.ratio <= 0.2 * (1 - max(0.0, bears - 0.15)) ** 2
    again: list[Trial] = trials[: len(trials) // 2]
    assert next_recipes(goal, NET, again, 1000) and not next_recipes(goal, NET, again, 0)


def test_channels_are_cut_from_the_network_without_the_blocks_that_it_can_spare() -> None:
    survey = NET.model_copy(update={"blocks": 8})
    trials: list[Trial] = []
    goal = Goal(trials=60)
    while proposals := next_recipes(goal, survey, trials, 1000):
        trials += [world(proposal.recipe, 0.6, blocks=0.65) for proposal in proposals]
    shares = {
        one.recipe.steps[0].options["amount"] for one in trials if one.recipe.steps[0].optimizer == "prune-blocks"
    }
    assert shares == {0.5, 0.625, 0.75}
    cut = [
        one.recipe.steps for one in trials if any(step.optimizer.startswith("prune-ch") for step in one.recipe.steps)
    ]
    heads = {(steps[0].optimizer, steps[0].options["amount"], steps[1].optimizer) for steps in cut}
    assert heads == {("prune-blocks", 0.625, "fine-tuning")}
    # With rows too few for a proof, what holds on them is built on.
    few: list[Trial] = []
    while proposals := next_recipes(goal, survey, few, 1000):
        few += [unproven(world(proposal.recipe, 0.6, blocks=0.65)) for proposal in proposals]
    heads = {one.recipe.steps[0].options["amount"] for one in few if len(one.recipe.steps) > 3}
    assert heads == {0.625} and not any("provable" in str(one.why) for one in few)
    none: list[Trial] = []
    while proposals := next_recipes(goal, survey, none, 1000):
        none += [world(proposal.recipe, 0.6, blocks=0.0) for proposal in proposals]
    assert any(one.recipe.steps[0].optimizer.startswith("prune-channels") for one in none)
    best = conclude(goal, BASE, none).recommended
    assert next(one for one in none if one.key == best).recipe.steps[0].optimizer.startswith("prune-channels")
