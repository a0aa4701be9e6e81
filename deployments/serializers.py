"""Endpoints, deployments and rollouts as JSON."""

from __future__ import annotations

from rest_framework import serializers

from deployments.models import Access, Decision, Deployment, Endpoint, Rollout, Target


class DeploymentSerializer(serializers.ModelSerializer):
    version = serializers.IntegerField(source="artifact.version.number", read_only=True)
    version_id = serializers.IntegerField(source="artifact.version_id", read_only=True)
    model = serializers.CharField(source="artifact.version.model.name", read_only=True)
    sha256 = serializers.CharField(source="artifact.sha256", read_only=True)

    class Meta:
        model = Deployment
        fields = [
            "id", "endpoint", "artifact", "sha256", "model", "version", "version_id", "state", "weight", "created_at",
            "retired_at",
        ]  # fmt: skip
        read_only_fields = fields


class EndpointSerializer(serializers.ModelSerializer):
    project = serializers.SlugRelatedField(slug_field="slug", read_only=True)
    target = serializers.SlugRelatedField(slug_field="name", read_only=True)
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
            "revision",
            "created_at",
            "deployments",
        ]
        read_only_fields = fields


class EndpointCreate(serializers.Serializer):
    project = serializers.CharField(required=False, max_length=63)
    name = serializers.CharField(max_length=63)
    access = serializers.ChoiceField(choices=Access.choices, default=Access.TOKEN)
    artifact = serializers.IntegerField(required=False, min_value=1, help_text="Id of the artifact to serve first")


class Place(serializers.Serializer):
    artifact = serializers.IntegerField(min_value=1, help_text="Id of an ONNX artifact")


class Weights(serializers.Serializer):
    weights = serializers.DictField(
        child=serializers.IntegerField(min_value=0, max_value=100),
        help_text="{deployment id: percent}, summing to 100",
    )


class RolloutStart(serializers.Serializer):
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


class Batching(serializers.Serializer):
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
    batching = Batching(allow_null=True)


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
    alive = serializers.BooleanField(help_text="It reported in the last 15 seconds")
    memory_bytes = serializers.IntegerField(help_text="Resident memory")
    seen_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField()
    deployments = LoadedSerializer(many=True)
