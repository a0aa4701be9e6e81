"""Endpoints, deployments and rollouts as JSON."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from deployments import tuning
from deployments.models import (
    MOST_BATCH,
    MOST_BUDGET_MS,
    MOST_CACHE_MB,
    MOST_CACHE_S,
    MOST_CALLS,
    MOST_TIMEOUT_S,
    Access,
    BatchingMode,
    Decision,
    Deployment,
    Endpoint,
    Provider,
    Rollout,
    Target,
)

# How the API describes the settings; `tuning` checks them.


class LimitsSerializer(serializers.Serializer):
    """Of each deployment, in each server process; what is beyond them is refused with 503."""

    concurrency = serializers.IntegerField(min_value=1, max_value=MOST_CALLS, help_text="Requests that run at once")
    queue = serializers.IntegerField(min_value=0, max_value=MOST_CALLS, help_text="Requests that may wait")


class CacheSerializer(serializers.Serializer):
    """Equal requests are answered from memory."""

    mb = serializers.IntegerField(min_value=1, max_value=MOST_CACHE_MB)
    ttl_s = serializers.IntegerField(min_value=1, max_value=MOST_CACHE_S, help_text="Seconds that an answer is kept")


class BatchingSerializer(serializers.Serializer):
    """Requests already waiting may share a model run. While it is off there are no bounds to set."""

    mode = serializers.ChoiceField(choices=BatchingMode.choices)
    max = serializers.IntegerField(required=False, allow_null=True, min_value=2, max_value=MOST_BATCH)
    budget_ms = serializers.FloatField(required=False, allow_null=True, min_value=0.01, max_value=MOST_BUDGET_MS)


class SettingsSerializer(serializers.Serializer):
    """How an endpoint is served. In a change, what is absent stays; null goes back to what the servers do."""

    sticky_header = serializers.RegexField(
        tuning.HEADER, required=False, allow_null=True, help_text="Requests with one value of it go to one version"
    )
    limits = LimitsSerializer(required=False, allow_null=True)
    cache = CacheSerializer(required=False, allow_null=True)
    batching = BatchingSerializer(required=False, allow_null=True)


class EndpointChange(serializers.Serializer):
    settings = SettingsSerializer()


class UpstreamSerializer(serializers.Serializer):
    """Another server of the Open Inference Protocol that answers in the artifact's place."""

    url = serializers.CharField(max_length=300, help_text="http(s)://host:port, neither link-local nor with a user")
    model = serializers.CharField(max_length=200, help_text="What it calls the model")
    version = serializers.CharField(max_length=200, required=False, allow_null=True)
    timeout_s = serializers.FloatField(required=False, min_value=0.01, max_value=MOST_TIMEOUT_S, help_text="10 without")


class RuntimeSerializer(serializers.Serializer):
    """What runs a deployment; chosen once."""

    provider = serializers.ChoiceField(
        choices=Provider.choices, required=False, help_text="Without: that of the deployment it replaces, else cpu"
    )
    upstream = UpstreamSerializer(required=False, allow_null=True)


class DeploymentSerializer(serializers.ModelSerializer):
    version = serializers.IntegerField(source="artifact.version.number", read_only=True)
    version_id = serializers.IntegerField(source="artifact.version_id", read_only=True)
    model = serializers.CharField(source="artifact.version.model.name", read_only=True)
    sha256 = serializers.CharField(source="artifact.sha256", read_only=True)

    upstream = serializers.SerializerMethodField()

    class Meta:
        model = Deployment
        fields = [
            "id", "endpoint", "artifact", "sha256", "model", "version", "version_id", "state", "weight", "provider",
            "upstream", "created_at", "retired_at",
        ]  # fmt: skip
        read_only_fields = fields

    @extend_schema_field(UpstreamSerializer(allow_null=True))
    def get_upstream(self, row: Deployment) -> dict[str, Any] | None:
        return row.upstream or None


class EndpointSerializer(serializers.ModelSerializer):
    project = serializers.SlugRelatedField(slug_field="slug", read_only=True)
    target = serializers.SlugRelatedField(slug_field="name", read_only=True)
    settings = serializers.SerializerMethodField()
    deployments = DeploymentSerializer(source="desired_deployments", many=True, read_only=True)

    class Meta:
        model = Endpoint
        fields = [
            "id",
            "project",
            "target",
            "name",
            "access",
            "description",
            "settings",
            "revision",
            "created_at",
            "deployments",
        ]
        read_only_fields = fields

    @extend_schema_field(SettingsSerializer)
    def get_settings(self, endpoint: Endpoint) -> dict[str, Any]:
        return tuning.settings_of(endpoint)


class EndpointCreate(RuntimeSerializer):
    project = serializers.CharField(required=False, max_length=63)
    name = serializers.CharField(max_length=63)
    access = serializers.ChoiceField(choices=Access.choices, default=Access.TOKEN)
    artifact = serializers.IntegerField(required=False, min_value=1, help_text="Id of the artifact to serve first")
    settings = SettingsSerializer(required=False)


class Place(RuntimeSerializer):
    artifact = serializers.IntegerField(min_value=1, help_text="Id of an ONNX artifact")


class Weights(serializers.Serializer):
    weights = serializers.DictField(
        child=serializers.IntegerField(min_value=0, max_value=100),
        help_text="{deployment id: percent}, summing to 100",
    )


class RolloutStart(RuntimeSerializer):
    endpoint = serializers.IntegerField(min_value=1)
    artifact = serializers.IntegerField(min_value=1)
    steps = serializers.ListField(child=serializers.DictField(), required=False, max_length=20)
    guard = serializers.DictField(required=False)


class DecisionSerializer(serializers.ModelSerializer):
    actor = serializers.SlugRelatedField(slug_field="username", read_only=True)

    class Meta:
        model = Decision
        fields = ["id", "at", "action", "text", "data", "actor"]
        read_only_fields = fields


class RolloutSerializer(serializers.ModelSerializer):
    endpoint_name = serializers.CharField(source="endpoint.name", read_only=True)

    class Meta:
        model = Rollout
        fields = [
            "id", "endpoint", "endpoint_name", "stable", "candidate", "state", "reason", "steps", "guard", "step",
            "step_started_at", "evidence", "job", "revision", "created_at", "finished_at",
        ]  # fmt: skip
        read_only_fields = fields


class RolloutDetailSerializer(RolloutSerializer):
    decisions = DecisionSerializer(many=True, read_only=True)

    class Meta(RolloutSerializer.Meta):
        fields = [*RolloutSerializer.Meta.fields, "decisions"]


class TargetSerializer(serializers.ModelSerializer):
    project = serializers.SlugRelatedField(slug_field="slug", read_only=True)

    class Meta:
        model = Target
        fields = ["id", "project", "name", "kind", "created_at"]
        read_only_fields = fields


class MeasuredBatching(serializers.Serializer):
    """What measuring at load showed."""

    max = serializers.IntegerField(help_text="Requests that at most share a model run")
    why = serializers.CharField(help_text="The reason, in a sentence")


class LoadedSerializer(serializers.Serializer):
    """A deployment as one server process has it."""

    deployment = serializers.IntegerField()
    endpoint = serializers.CharField()
    version = serializers.IntegerField()
    state = serializers.ChoiceField(choices=["loading", "ready", "failed", "draining"])
    reason = serializers.CharField()
    sha256 = serializers.CharField()
    provider = serializers.CharField(allow_null=True)
    memory_bytes = serializers.IntegerField()
    cost_us = serializers.FloatField(allow_null=True, help_text="One call, measured when the model was loaded")
    batching = MeasuredBatching(allow_null=True)


class ServerSerializer(serializers.Serializer):
    """One inference server process as it last reported."""

    id = serializers.IntegerField()
    instance = serializers.CharField()
    process = serializers.IntegerField()
    pid = serializers.IntegerField(allow_null=True)
    version = serializers.CharField()
    generation = serializers.IntegerField(help_text="The generation of the desired state that it has")
    desired_generation = serializers.IntegerField()
    current = serializers.BooleanField(help_text="It has the desired generation")
    behind_s = serializers.FloatField(allow_null=True, help_text="Seconds since it lacks a generation")
    alive = serializers.BooleanField(help_text="It reported in the last 15 seconds")
    memory_bytes = serializers.IntegerField(help_text="Resident memory")
    seen_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField()
    deployments = LoadedSerializer(many=True)
