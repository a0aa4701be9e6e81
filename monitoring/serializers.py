"""Windows, alerts and policies as JSON."""

from __future__ import annotations

from rest_framework import serializers

from monitoring.models import Alert, Firing, Policy


class AlertSerializer(serializers.ModelSerializer):
    class Meta:
        model = Alert
        fields = ["id", "key", "state", "title", "text", "link", "created_at", "resolved_at"]
        read_only_fields = fields


class FiringSerializer(serializers.ModelSerializer):
    class Meta:
        model = Firing
        fields = ["id", "policy", "key", "cause", "job", "created_at"]
        read_only_fields = fields


class PolicySerializer(serializers.ModelSerializer):
    hook_url = serializers.SerializerMethodField()

    class Meta:
        model = Policy
        fields = [
            "id", "model", "name", "enabled", "cron", "hook", "hook_url", "cooldown_seconds", "parameters", "revision",
            "created_at",
        ]  # fmt: skip
        read_only_fields = fields

    def get_hook_url(self, policy: Policy) -> str:
        return f"/api/v1/hooks/{policy.pk}" if policy.hook else ""


class PolicyCreate(serializers.Serializer):
    model = serializers.IntegerField(min_value=1)
    name = serializers.CharField(max_length=100)
    cron = serializers.CharField(max_length=100, required=False, allow_blank=True, default="")
    hook = serializers.BooleanField(default=True)
    cooldown_seconds = serializers.IntegerField(min_value=0, max_value=30 * 86400, default=0)


class PolicyChange(serializers.Serializer):
    name = serializers.CharField(max_length=100, required=False)
    enabled = serializers.BooleanField(required=False)
    cron = serializers.CharField(max_length=100, required=False, allow_blank=True)
    hook = serializers.BooleanField(required=False)
    cooldown_seconds = serializers.IntegerField(min_value=0, max_value=30 * 86400, required=False)


class Secret(serializers.Serializer):
    secret = serializers.CharField()


class BatchSize(serializers.Serializer):
    size = serializers.IntegerField()
    runs = serializers.IntegerField()
    share = serializers.FloatField()


class DeploymentStats(serializers.Serializer):
    """One deployment over the asked span."""

    deployment = serializers.IntegerField()
    version = serializers.IntegerField()
    requests = serializers.IntegerField()
    errors = serializers.IntegerField()
    p50_ms = serializers.FloatField(allow_null=True)
    p95_ms = serializers.FloatField(allow_null=True)
    p99_ms = serializers.FloatField(allow_null=True)
    per_second = serializers.FloatField(help_text="Requests a second over the span")
    error_share = serializers.FloatField(allow_null=True)
    queue_ms = serializers.FloatField(allow_null=True, help_text="Mean waiting of a request before its model run")
    compute_ms = serializers.FloatField(allow_null=True, help_text="Mean model run of a request")
    batches = BatchSize(many=True, help_text="How many requests shared a model run")
    runs = serializers.IntegerField(help_text="Model runs")
    mean_batch = serializers.FloatField(allow_null=True, help_text="Requests in a model run")
    cache_hits = serializers.IntegerField()
    cache_hit_share = serializers.FloatField(allow_null=True)
    rejected = serializers.IntegerField(help_text="Refused by a limit or a quota; not among the requests")
    outputs = serializers.DictField()


class Accepted(serializers.Serializer):
    accepted = serializers.BooleanField()
