"""Models, versions, artifacts, datasets and measurements as JSON."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers

from engine.export.requirements import LONGEST, MOST
from registry import environments
from registry.models import (
    Alias,
    Artifact,
    Dataset,
    Environment,
    EnvironmentState,
    Measurement,
    Model,
    Task,
    Version,
)
from registry.search_selectors import teaching_sets
from slipway.accounts.models import Project


class AliasSerializer(serializers.ModelSerializer):
    version = serializers.IntegerField(source="version.number", read_only=True)

    class Meta:
        model = Alias
        fields = ["name", "version", "protected"]
        read_only_fields = fields


class VersionSerializer(serializers.ModelSerializer):
    """The row of a list: what a person scans for."""

    class Meta:
        model = Version
        fields = [
            "id", "model", "number", "state", "reason", "origin", "framework", "metrics", "approval",
            "mlflow_version", "mlflow_run_id", "created_at",
        ]  # fmt: skip
        read_only_fields = fields


def version_row(version: Version) -> dict[str, Any]:
    """A version as `VersionSerializer` shows it, without building a serializer: registering is a hot path."""
    return {name: getattr(version, "model_id" if name == "model" else name) for name in VersionSerializer.Meta.fields}


class MeasurementSerializer(serializers.ModelSerializer):
    class Meta:
        model = Measurement
        fields = [
            "id", "dataset", "profile", "metrics", "latency_p50_ms", "latency_p95_ms", "latency_p99_ms",
            "throughput", "peak_memory_mb", "speedup", "mlflow_run_id", "job", "created_at",
        ]  # fmt: skip
        read_only_fields = fields


class SignedSerializer(serializers.Serializer):
    """Who signed an artifact, as recorded; the envelope itself is `attestation`."""

    key_id = serializers.CharField(help_text="SHA-256 of the public key")
    at = serializers.DateTimeField()


class ArtifactSerializer(serializers.ModelSerializer):
    signed = SignedSerializer(read_only=True, allow_null=True)
    label = serializers.CharField(read_only=True)
    measurements = MeasurementSerializer(many=True, read_only=True)

    class Meta:
        model = Artifact
        fields = [
            "id", "version", "format", "label", "sha256", "size", "file_name", "uri", "parent", "recipe", "verdict",
            "findings", "signed", "attestation", "signature", "parity", "mlflow_run_id", "job", "created_at",
            "measurements",
        ]  # fmt: skip
        read_only_fields = fields


class DatasetSerializer(serializers.ModelSerializer):
    project = serializers.SlugRelatedField(slug_field="slug", read_only=True)

    class Meta:
        model = Dataset
        fields = [
            "id",
            "project",
            "name",
            "role",
            "sha256",
            "size",
            "file_name",
            "rows",
            "target",
            "created_at",
        ]
        read_only_fields = fields


class VersionDetailSerializer(VersionSerializer):
    artifacts = ArtifactSerializer(many=True, read_only=True)
    aliases = serializers.SlugRelatedField(slug_field="name", many=True, read_only=True)
    datasets = DatasetSerializer(many=True, read_only=True)

    class Meta(VersionSerializer.Meta):
        fields = [
            *VersionSerializer.Meta.fields, "signature", "params", "baseline", "card", "job", "artifacts",
            "aliases", "datasets",
        ]  # fmt: skip
        read_only_fields = fields


class ModelSerializer(serializers.ModelSerializer):
    project = serializers.SlugRelatedField(slug_field="slug", queryset=Project.objects.none())
    aliases = AliasSerializer(many=True, read_only=True)
    tags = serializers.ListField(child=serializers.CharField(max_length=60), required=False, max_length=50)

    class Meta:
        model = Model
        fields = [
            "id", "project", "name", "task", "description", "tags", "mlflow_name", "last_number", "archived_at",
            "revision", "created_at", "aliases",
        ]  # fmt: skip
        read_only_fields = [
            "id",
            "mlflow_name",
            "last_number",
            "archived_at",
            "revision",
            "created_at",
            "aliases",
        ]


class ModelDetailSerializer(ModelSerializer):
    latest_versions = VersionSerializer(many=True, read_only=True)

    class Meta(ModelSerializer.Meta):
        fields = [*ModelSerializer.Meta.fields, "latest_versions"]


class ModelChange(serializers.Serializer):
    """What can be changed of a model."""

    task = serializers.ChoiceField(choices=Task.choices, required=False)
    description = serializers.CharField(required=False, allow_blank=True, max_length=20_000)
    tags = serializers.ListField(child=serializers.CharField(max_length=60), required=False, max_length=50)
    archived = serializers.BooleanField(required=False)


class VersionRegister(serializers.Serializer):
    """A new version of bytes that the project already holds."""

    artifact = serializers.RegexField(r"^[0-9a-f]{64}$", help_text="SHA-256 of a stored artifact")


class AliasWrite(serializers.Serializer):
    version = serializers.IntegerField(min_value=1, help_text="Number of the version")


class Decision(serializers.Serializer):
    approve = serializers.BooleanField()
    note = serializers.CharField(required=False, allow_blank=True, max_length=2000, default="")


class ExportRequest(serializers.Serializer):
    exporters = serializers.ListField(child=serializers.CharField(max_length=40), min_length=1, max_length=10)
    options = serializers.DictField(
        child=serializers.DictField(),
        required=False,
        default=dict,
        help_text="Options of each exporter by its name; `formats` says which there are.",
    )


class Way(serializers.Serializer):
    """A format, and whether this version can have it."""

    exporter = serializers.CharField()
    label = serializers.CharField()
    format = serializers.CharField()
    possible = serializers.SerializerMethodField()
    why_not = serializers.CharField(help_text="Empty where it is possible.")
    environment = serializers.CharField(help_text="Empty where the worker's own packages do.")
    origin = serializers.CharField(
        help_text="Where the packages come from: worker, kit or own; empty where it is not possible."
    )
    reason = serializers.CharField(help_text="Why the version's own packages could not be had.")
    prepared = serializers.SerializerMethodField(help_text="Whether that environment is ready.")
    artifact = serializers.SerializerMethodField(help_text="The newest artifact of this exporter.")
    options = serializers.DictField(help_text="JSON Schema of what `export` takes as options of this exporter.")

    def get_possible(self, way: environments.Way) -> bool:
        return not way.why_not

    def get_prepared(self, way: environments.Way) -> bool:
        return not way.environment or (way.prepared is not None and way.prepared.state == EnvironmentState.READY)

    def get_artifact(self, way: environments.Way) -> int | None:
        return way.artifact.pk if way.artifact else None


class EnvironmentSerializer(serializers.ModelSerializer):
    class Meta:
        model = Environment
        fields = [
            "id", "name", "origin", "digest", "state", "reason", "packages", "size", "seconds", "uses",
            "prepared_at", "used_at", "job",
        ]  # fmt: skip


class PrepareRequest(serializers.Serializer):
    name = serializers.CharField(
        max_length=60, help_text="Of the environment, as `formats` says; `base` where the worker's own packages do."
    )
    requirements = serializers.ListField(
        child=serializers.CharField(max_length=LONGEST),
        required=False,
        max_length=MOST,
        help_text="The version's own list of packages (`name==1.2`) from now on, in place of the recorded one; "
        "an empty list goes back to that.",
    )


class OptimizeRequest(serializers.Serializer):
    optimizer = serializers.CharField(max_length=60)
    options = serializers.DictField(required=False, default=dict)


class RowsField(serializers.PrimaryKeyRelatedField):
    """A data set of the project of the context's artifact, seen by the context's user; None without it."""

    def __init__(self, **more: Any) -> None:
        super().__init__(queryset=Dataset.objects.none(), required=False, allow_null=True, default=None, **more)

    def get_queryset(self) -> QuerySet[Dataset]:
        artifact = self.context.get("artifact")
        return Dataset.objects.none() if artifact is None else teaching_sets(self.context["request"].user, artifact)


class MeasurementImport(serializers.Serializer):
    measured = serializers.DictField(help_text="What `python -m engine.evaluate.device` printed on the device.")
    dataset = RowsField(help_text="The rows that it was measured on.")


class Uploaded(serializers.Serializer):
    """What an upload answers."""

    id = serializers.IntegerField()
    model = serializers.IntegerField()
    number = serializers.IntegerField()
    sha256 = serializers.CharField()
    url = serializers.CharField()
