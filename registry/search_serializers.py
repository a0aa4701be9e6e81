"""Searches and their trials as JSON."""

from __future__ import annotations

from rest_framework import serializers

from engine.optimize.lab.goal import Goal
from registry.search_models import Search, SearchTrial, TrialState
from registry.search_selectors import state_of
from registry.serializers import RowsField

_GOAL = "Any of: " + ", ".join(Goal.model_fields) + "."


class SearchRequest(serializers.Serializer):
    """What to look for, and which rows to judge and to learn on."""

    goal = serializers.DictField(required=False, default=dict, help_text=_GOAL)
    dataset = RowsField(help_text="Evaluation set; the version's newest without it.")
    calibration = RowsField(
        help_text="Without it, and without training rows, 30 % of the evaluation set calibrate and are not judged on.",
    )
    training = RowsField(help_text="Rows to tune with after pruning.")


class SearchSerializer(serializers.ModelSerializer):
    """The row of a list."""

    project = serializers.SerializerMethodField()
    state = serializers.SerializerMethodField()

    class Meta:
        model = Search
        fields = [
            "id", "project", "artifact", "dataset", "calibration", "training", "goal", "state", "job", "created_at",
            "deadline",
        ]  # fmt: skip
        read_only_fields = fields

    def get_project(self, search: Search) -> str:
        return search.artifact.version.model.project.slug

    def get_state(self, search: Search) -> str:
        return state_of(search)


class TrialSerializer(serializers.ModelSerializer):
    state = serializers.ChoiceField(choices=TrialState.choices)
    why = serializers.CharField(source="idea", help_text="Why it is tried.")

    class Meta:
        model = SearchTrial
        fields = [
            "id", "key", "label", "recipe", "why", "state", "reason", "judged", "measured", "size", "seconds",
            "confusion", "artifact", "job",
        ]  # fmt: skip
        read_only_fields = fields


class StandingSerializer(serializers.Serializer):
    """One search as it stands: while it runs, the front and the recommendation are those of the trials so far."""

    id = serializers.IntegerField(source="search.pk")
    project = serializers.CharField(source="search.artifact.version.model.project.slug")
    version = serializers.IntegerField(source="search.artifact.version_id")
    artifact = serializers.IntegerField(source="search.artifact_id")
    dataset = serializers.IntegerField(source="search.dataset_id")
    calibration = serializers.IntegerField(source="search.calibration_id", allow_null=True)
    training = serializers.IntegerField(source="search.training_id", allow_null=True)
    goal = serializers.DictField(source="search.goal")
    state = serializers.CharField(help_text="queued, running, succeeded, failed or cancelled.")
    reason = serializers.CharField(source="search.job.reason", default="", help_text="Why it failed.")
    progress = serializers.FloatField(source="search.job.progress", default=0.0)
    seconds_left = serializers.FloatField()
    counts = serializers.DictField(child=serializers.IntegerField(), help_text="Trials by state, and those tried.")
    parts = serializers.DictField(source="search.parts", help_text="How the evaluation set was split, if it was.")
    baseline = serializers.DictField(source="search.baseline", help_text="What the artifact itself costs.")
    profile = serializers.DictField(source="search.profile", help_text="The machine that all figures hold for.")
    survey = serializers.DictField(source="search.survey")
    sensitivity = serializers.ListField(source="search.sensitivity", child=serializers.DictField())
    front = serializers.ListField(source="conclusion.front", child=serializers.CharField(), help_text="Keys of trials.")
    recommended = TrialSerializer(allow_null=True)
    offered = TrialSerializer(
        allow_null=True, help_text="Much smaller at the same speed, where speed was asked for and nothing is faster."
    )
    reasons = serializers.ListField(source="conclusion.reasons", child=serializers.CharField())
    nearest = serializers.ListField(source="conclusion.nearest", child=serializers.CharField())
    relax = serializers.ListField(source="conclusion.relax", child=serializers.CharField())
    job = serializers.IntegerField(source="search.job_id", allow_null=True)
    created_at = serializers.DateTimeField(source="search.created_at")
    deadline = serializers.DateTimeField(source="search.deadline", allow_null=True)
