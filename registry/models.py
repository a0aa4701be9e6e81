"""Models, versions, aliases, artifacts, datasets and measurements, with what must always hold."""

from __future__ import annotations

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from engine.formats import signing
from engine.formats.signing import Signed
from registry.recipe_words import recipe_words
from registry.search_models import Search as Search
from registry.search_models import SearchTrial as SearchTrial

DIGEST = r"^[0-9a-f]{64}$"
digest_validator = RegexValidator(DIGEST, _("A SHA-256 in lower-case hexadecimal."))
name_validator = RegexValidator(
    r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,127}$",
    _("Letters, digits, spaces, dots, hyphens and underscores; at most 128; beginning with a letter or digit."),
)
alias_validator = RegexValidator(r"^[a-z][a-z0-9_-]{0,31}$", _("Lower-case letters, digits, - and _; at most 32."))


class Task(models.TextChoices):
    IMAGE_CLASSIFICATION = "image-classification", _("Image classification")
    TEXT_CLASSIFICATION = "text-classification", _("Text classification")
    TABULAR_CLASSIFICATION = "tabular-classification", _("Tabular classification")
    TABULAR_REGRESSION = "tabular-regression", _("Tabular regression")
    RECOMMENDATION = "recommendation", _("Recommendation")
    EMBEDDING = "embedding", _("Embedding")
    OTHER = "other", _("Other")


class Model(models.Model):
    """A named line of versions."""

    project = models.ForeignKey("accounts.Project", on_delete=models.CASCADE, related_name="models")
    name = models.CharField(max_length=128, validators=[name_validator])
    task = models.CharField(max_length=30, choices=Task.choices, default=Task.OTHER)
    description = models.TextField(blank=True)
    tags = models.JSONField(default=list, blank=True)
    mlflow_name = models.CharField(max_length=256, null=True, blank=True, unique=True)
    last_number = models.PositiveIntegerField(default=0)
    archived_at = models.DateTimeField(null=True, blank=True)
    stars = models.ManyToManyField(settings.AUTH_USER_MODEL, blank=True, related_name="starred_models")
    revision = models.PositiveIntegerField(default=1)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["project", "name"], name="model_name_once_per_project"),
            models.CheckConstraint(condition=Q(task__in=Task.values), name="model_task_known"),
        ]

    def __str__(self) -> str:
        return self.name


class VersionState(models.TextChoices):
    PENDING = "pending", _("Being checked")
    READY = "ready", _("Ready")
    REJECTED = "rejected", _("Rejected")


VERSION_TRANSITIONS: dict[str, frozenset[str]] = {
    VersionState.PENDING: frozenset({VersionState.READY, VersionState.REJECTED}),
    VersionState.READY: frozenset({VersionState.REJECTED}),
    VersionState.REJECTED: frozenset(),
}


class Origin(models.TextChoices):
    MLFLOW = "mlflow", _("MLflow")
    UPLOAD = "upload", _("Upload")
    RETRAINING = "retraining", _("Retraining")
    COPY = "copy", _("Copy")


class Approval(models.TextChoices):
    NONE = "none", _("Not asked for")
    APPROVED = "approved", _("Approved")
    DECLINED = "declined", _("Declined")


class Version(models.Model):
    """An immutable version: what was trained or uploaded, and what is known about it."""

    PROJECT_PATH = "model__project"

    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=10, choices=VersionState.choices, default=VersionState.PENDING)
    reason = models.TextField(blank=True)
    origin = models.CharField(max_length=12, choices=Origin.choices)
    framework = models.CharField(max_length=40, blank=True)
    signature = models.JSONField(default=dict)
    metrics = models.JSONField(default=dict)
    params = models.JSONField(default=dict)
    packages = models.JSONField(default=list, blank=True)
    baseline = models.JSONField(default=dict)
    card = models.TextField(blank=True)
    approval = models.CharField(max_length=10, choices=Approval.choices, default=Approval.NONE)
    approved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    mlflow_version = models.PositiveIntegerField(null=True, blank=True)
    mlflow_run_id = models.CharField(max_length=64, blank=True)
    mlflow_source = models.CharField(max_length=1000, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    job = models.ForeignKey("jobs.Job", on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    revision = models.PositiveIntegerField(default=1)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.UniqueConstraint(fields=["model", "number"], name="version_number_once"),
            models.UniqueConstraint(
                fields=["model", "mlflow_version"],
                condition=Q(mlflow_version__isnull=False),
                name="version_taken_from_mlflow_once",
            ),
            models.CheckConstraint(condition=Q(state__in=VersionState.values), name="version_state_known"),
            models.CheckConstraint(condition=Q(approval__in=Approval.values), name="version_approval_known"),
            models.CheckConstraint(condition=Q(number__gte=1), name="version_number_positive"),
        ]

    def __str__(self) -> str:
        return f"{self.model.name} {self.number}"


class Alias(models.Model):
    """A movable name for one version; the unique pair makes `champion` unique per model."""

    PROJECT_PATH = "model__project"

    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="aliases")
    name = models.CharField(max_length=32, validators=[alias_validator])
    version = models.ForeignKey(Version, on_delete=models.CASCADE, related_name="aliases")
    protected = models.BooleanField(default=False)

    class Meta:
        ordering = ["name"]
        verbose_name_plural = "aliases"
        constraints = [models.UniqueConstraint(fields=["model", "name"], name="alias_once_per_model")]

    def __str__(self) -> str:
        return self.name


class Format(models.TextChoices):
    SOURCE = "source", _("Source")
    ONNX = "onnx", "ONNX"
    ORT = "ort", "ORT"
    PMML = "pmml", "PMML"
    SAVED_MODEL = "saved-model", "SavedModel"
    TORCHSCRIPT = "torchscript", "TorchScript"
    PT2 = "pt2", "ExportedProgram"
    TFLITE = "tflite", "TFLite"
    MAR = "mar", "MAR"
    TRITON = "triton", "Triton"


class Verdict(models.TextChoices):
    UNKNOWN = "unknown", _("Not scanned")
    CLEAN = "clean", _("Clean")
    SUSPICIOUS = "suspicious", _("Suspicious")
    REJECTED = "rejected", _("Rejected")


class Artifact(models.Model):
    """One stored form of a version. The bytes are in MLflow's store, the digest is their name.

    A folder (format `source`) is named by the digest of its manifest: the sorted lines `sha256  path`.
    """

    PROJECT_PATH = "version__model__project"

    version = models.ForeignKey(Version, on_delete=models.CASCADE, related_name="artifacts")
    format = models.CharField(max_length=12, choices=Format.choices)
    sha256 = models.CharField(max_length=64, validators=[digest_validator])
    size = models.BigIntegerField()
    file_name = models.CharField(max_length=200)
    uri = models.CharField(max_length=1000)
    manifest = models.JSONField(default=list, blank=True)
    parent = models.ForeignKey("self", on_delete=models.CASCADE, null=True, blank=True, related_name="derived")
    recipe = models.JSONField(default=dict, blank=True)
    verdict = models.CharField(max_length=10, choices=Verdict.choices, default=Verdict.UNKNOWN)
    findings = models.JSONField(default=list, blank=True)
    signature = models.JSONField(default=dict, blank=True)
    parity = models.JSONField(default=dict, blank=True)
    # Who vouches for these bytes: the DSSE envelope of `engine.formats.signing`; empty when not signed.
    # (`signature` is what the tensors look like, the word that MLflow and V2 have for it.)
    attestation = models.JSONField(default=dict, blank=True)
    mlflow_run_id = models.CharField(max_length=64, blank=True)
    job = models.ForeignKey("jobs.Job", on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["version", "format", "sha256"], name="artifact_once_per_version"),
            models.CheckConstraint(condition=Q(sha256__regex=DIGEST), name="artifact_digest_hex"),
            models.CheckConstraint(condition=Q(size__gte=0), name="artifact_size_positive"),
            models.CheckConstraint(condition=Q(format__in=Format.values), name="artifact_format_known"),
            models.CheckConstraint(condition=Q(verdict__in=Verdict.values), name="artifact_verdict_known"),
        ]
        # The first holder of a digest is found at once, however many versions share the bytes.
        indexes = [models.Index(fields=["sha256", "id"], name="artifact_by_digest")]

    def __str__(self) -> str:
        return f"{self.format} {self.sha256[:12]}"

    @property
    def is_variant(self) -> bool:
        """Made by optimization rather than by export."""
        return bool(self.recipe.get("optimizer"))

    @property
    def signed(self) -> Signed | None:
        """By which key and when, as stored; servers verify it. None when not signed."""
        return signing.signed(self.attestation)

    @property
    def label(self) -> str:
        """How people name it: `onnx`, `int8`, `pmml`."""
        return str(self.recipe.get("label") or self.get_format_display())

    @property
    def title(self) -> str:
        """The label in the reader's language."""
        steps = self.recipe.get("steps")
        return recipe_words(steps) if steps else self.label


class DatasetRole(models.TextChoices):
    TRAINING = "training", _("Training")
    EVALUATION = "evaluation", _("Evaluation")


class Dataset(models.Model):
    """Content-addressed rows for evaluation, calibration, baseline or retraining."""

    project = models.ForeignKey("accounts.Project", on_delete=models.CASCADE, related_name="datasets")
    name = models.CharField(max_length=200)
    role = models.CharField(max_length=12, choices=DatasetRole.choices)
    sha256 = models.CharField(max_length=64, validators=[digest_validator])
    size = models.BigIntegerField()
    file_name = models.CharField(max_length=200)
    uri = models.CharField(max_length=1000)
    target = models.CharField(max_length=100, default="target")
    rows = models.PositiveIntegerField(null=True, blank=True)
    versions = models.ManyToManyField(Version, blank=True, related_name="datasets")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["project", "role", "sha256"], name="dataset_once_per_project"),
            models.CheckConstraint(condition=Q(sha256__regex=DIGEST), name="dataset_digest_hex"),
            models.CheckConstraint(condition=Q(role__in=DatasetRole.values), name="dataset_role_known"),
        ]

    def __str__(self) -> str:
        return self.name


class Measurement(models.Model):
    """One artifact × one dataset × one hardware profile."""

    PROJECT_PATH = "artifact__version__model__project"

    artifact = models.ForeignKey(Artifact, on_delete=models.CASCADE, related_name="measurements")
    dataset = models.ForeignKey(Dataset, on_delete=models.SET_NULL, null=True, blank=True, related_name="measurements")
    profile = models.JSONField(default=dict)
    metrics = models.JSONField(default=dict)
    latency_p50_ms = models.FloatField()
    latency_p95_ms = models.FloatField()
    latency_p99_ms = models.FloatField()
    throughput = models.FloatField(null=True)
    peak_memory_mb = models.FloatField(null=True)
    speedup = models.FloatField(null=True)
    mlflow_run_id = models.CharField(max_length=64, blank=True)
    job = models.ForeignKey("jobs.Job", on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["job", "artifact"], condition=Q(job__isnull=False), name="measured_once_per_job"
            )
        ]

    def __str__(self) -> str:
        return f"{self.artifact} p50 {self.latency_p50_ms:.2f} ms"


class EnvironmentState(models.TextChoices):
    PREPARING = "preparing", _("Preparing")
    READY = "ready", _("Ready")
    FAILED = "failed", _("Failed")
    EVICTED = "evicted", _("Removed")


class EnvironmentOrigin(models.TextChoices):
    WORKER = "worker", _("the worker's own packages")
    KIT = "kit", _("fixed kit")
    OWN = "own", _("the version's own packages")


class Environment(models.Model):
    """Packages that some frameworks, formats or versions need, installed once for each lock."""

    name = models.CharField(max_length=60)
    origin = models.CharField(max_length=8, choices=EnvironmentOrigin.choices, default=EnvironmentOrigin.KIT)
    digest = models.CharField(max_length=60, unique=True)
    state = models.CharField(max_length=12, choices=EnvironmentState.choices, default=EnvironmentState.PREPARING)
    reason = models.CharField(max_length=500, blank=True)
    packages = models.JSONField(default=list)
    size = models.BigIntegerField(default=0)
    seconds = models.FloatField(null=True)
    uses = models.PositiveIntegerField(default=0)
    prepared_at = models.DateTimeField(null=True)
    used_at = models.DateTimeField(null=True)
    job = models.ForeignKey("jobs.Job", on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=Q(state__in=EnvironmentState.values), name="environment_state_known"),
            models.CheckConstraint(condition=Q(origin__in=EnvironmentOrigin.values), name="environment_origin_known"),
        ]

    def __str__(self) -> str:
        return self.name


class Resolution(models.Model):
    """What a list of requirements was resolved to: asked once, kept, so that every export gets the same packages."""

    wanted = models.CharField(max_length=64, unique=True)
    name = models.CharField(max_length=60)
    requirements = models.JSONField(default=list)
    lock = models.TextField(blank=True)
    reason = models.CharField(max_length=500, blank=True)
    job = models.ForeignKey("jobs.Job", on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.name} {self.wanted[:12]}"
