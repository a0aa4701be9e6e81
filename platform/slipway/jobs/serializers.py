"""Jobs and their log lines as JSON."""

from __future__ import annotations

from rest_framework import serializers

from slipway.jobs.models import Job, JobLog, JobStep


class StepSerializer(serializers.ModelSerializer):
    class Meta:
        model = JobStep
        fields = ["attempt", "name", "started_at", "finished_at"]
        read_only_fields = fields


class JobSerializer(serializers.ModelSerializer):
    project = serializers.SlugRelatedField(slug_field="slug", read_only=True)
    created_by = serializers.SlugRelatedField(slug_field="username", read_only=True)

    class Meta:
        model = Job
        fields = [
            "id", "project", "kind", "queue", "subject", "state", "attempt", "failures", "step", "progress",
            "reason", "error_code", "reference", "params", "result", "mlflow_run_id", "parent", "created_by",
            "created_at", "started_at", "finished_at", "available_at",
        ]  # fmt: skip
        read_only_fields = fields


class JobDetailSerializer(JobSerializer):
    steps = StepSerializer(many=True, read_only=True)

    class Meta(JobSerializer.Meta):
        fields = [*JobSerializer.Meta.fields, "steps"]
        read_only_fields = fields


class JobLogSerializer(serializers.ModelSerializer):
    class Meta:
        model = JobLog
        fields = ["id", "attempt", "at", "level", "text"]
        read_only_fields = fields
