"""A search for the best variant of an artifact, and each variant that it tried."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from engine.optimize.lab.conclude import Conclusion
from engine.optimize.lab.goal import Goal
from engine.optimize.lab.trial import Judgement, Measured, Trial
from engine.optimize.recipe import Recipe
from engine.sentence import Sentence
from registry.recipe_words import recipe_words


class TrialState(models.TextChoices):
    QUEUED = "queued", _("Queued")
    RUNNING = "running", _("Running")
    MEASURED = "measured", _("Measured")
    REFUSED = "refused", _("Refused")
    FAILED = "failed", _("Failed")
    CANCELLED = "cancelled", _("Cancelled")


TRIAL_ENDS = (TrialState.MEASURED, TrialState.REFUSED, TrialState.FAILED, TrialState.CANCELLED)
TRIAL_LIVE = (TrialState.QUEUED, TrialState.RUNNING)
# What was cancelled or failed may be tried again; what was measured stays as it was measured.
TRIAL_TRANSITIONS: dict[str, frozenset[str]] = {
    TrialState.QUEUED: frozenset({TrialState.RUNNING, TrialState.FAILED, TrialState.CANCELLED}),
    TrialState.RUNNING: frozenset({TrialState.RUNNING, *TRIAL_ENDS}),
    TrialState.MEASURED: frozenset(),
    TrialState.REFUSED: frozenset(),
    TrialState.FAILED: frozenset({TrialState.RUNNING}),
    TrialState.CANCELLED: frozenset({TrialState.QUEUED, TrialState.RUNNING}),
}


class Search(models.Model):
    """One goal for one artifact. Its state is that of its job; its trials are rows, so that it can go on anywhere.

    parts: the rows it works with, {"evaluation", "calibration"}: {"sha256", "uri", "file_name", "rows"} where the
    evaluation set was split, with "share" and "seed"; empty where every data set is used as it is. Where the goal
    names slices, "fed" tells in the same way of "groups", and of rows less the columns that are no inputs of the model.
    "answers" are the parent's, on the rows that judge.
    """

    PROJECT_PATH = "artifact__version__model__project"

    artifact = models.ForeignKey("registry.Artifact", on_delete=models.CASCADE, related_name="searches")
    # Restricted: what a search found holds for these rows and no others.
    dataset = models.ForeignKey("registry.Dataset", on_delete=models.RESTRICT, related_name="searches")
    calibration = models.ForeignKey("registry.Dataset", on_delete=models.RESTRICT, null=True, related_name="+")
    training = models.ForeignKey("registry.Dataset", on_delete=models.RESTRICT, null=True, related_name="+")
    goal = models.JSONField()
    parts = models.JSONField(default=dict)
    survey = models.JSONField(default=dict)
    baseline = models.JSONField(default=dict)
    profile = models.JSONField(default=dict)
    sensitivity = models.JSONField(default=list)
    conclusion = models.JSONField(default=dict)
    job = models.ForeignKey("jobs.Job", on_delete=models.SET_NULL, null=True, related_name="+")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(db_default=Now())
    deadline = models.DateTimeField(null=True)
    # When it was last cancelled or failed; the time until it is taken up again does not count.
    stopped_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "searches"

    def __str__(self) -> str:
        return f"search {self.pk}"

    @property
    def asked(self) -> Goal:
        """The goal as the engine knows it."""
        return Goal.model_validate(self.goal)

    @property
    def seed(self) -> int:
        return self.asked.seed

    @property
    def base(self) -> Measured | None:
        """What the artifact itself costs; None before that was measured."""
        return Measured.model_validate(self.baseline) if self.baseline else None

    @property
    def found(self) -> Conclusion | None:
        """What came of it; None before it ended."""
        return Conclusion.model_validate(self.conclusion) if self.conclusion else None


class SearchTrial(models.Model):
    """One recipe that was tried; at most once for each search."""

    PROJECT_PATH = "search__artifact__version__model__project"

    search = models.ForeignKey(Search, on_delete=models.CASCADE, related_name="trials")
    key = models.CharField(max_length=64)
    recipe = models.JSONField()
    label = models.CharField(max_length=500)
    # A Sentence as JSON; of old rows the plain text.
    why = models.TextField(blank=True)
    state = models.CharField(max_length=10, choices=TrialState.choices, default=TrialState.QUEUED)
    reason = models.TextField(blank=True)
    judged = models.JSONField(default=dict)
    measured = models.JSONField(default=dict)
    confusion = models.JSONField(default=dict)
    size = models.BigIntegerField(null=True)
    # Models on the way that took long to make, by the key of the recipe so far: {"sha256", "uri"}.
    halfway = models.JSONField(default=dict)
    seconds = models.FloatField(default=0)
    artifact = models.ForeignKey("registry.Artifact", on_delete=models.SET_NULL, null=True, related_name="+")
    job = models.ForeignKey("jobs.Job", on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["search", "key"], name="recipe_once_per_search"),
            models.CheckConstraint(condition=Q(state__in=TrialState.values), name="trial_state_known"),
        ]

    def __str__(self) -> str:
        return self.label

    @property
    def steps(self) -> list[dict[str, Any]]:
        return list(self.recipe["steps"])

    @property
    def title(self) -> str:
        """The label in the reader's language."""
        return recipe_words(self.steps)

    @property
    def idea(self) -> Sentence:
        """Why it is tried."""
        return Sentence.of_stored(self.why)

    @property
    def quality(self) -> Judgement | None:
        return Judgement.model_validate(self.judged) if self.judged else None

    @property
    def cost(self) -> Measured | None:
        return Measured.model_validate(self.measured) if self.measured else None

    def as_trial(self) -> Trial:
        """What the engine is told of it once it ended; one that a person cancelled counts as failed."""
        state: Any = TrialState.FAILED.value if self.state == TrialState.CANCELLED else str(self.state)
        return Trial(
            recipe=Recipe.model_validate(self.recipe),
            why=self.idea,
            state=state,
            reason=self.reason,
            judged=self.quality,
            measured=self.cost,
            size_bytes=self.size,
            seconds=self.seconds,
        )
