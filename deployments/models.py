"""Targets, endpoints, deployments, rollouts and the inference servers that report."""

from __future__ import annotations

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q, Value
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

endpoint_name_validator = RegexValidator(
    r"^[a-z0-9][a-z0-9_-]{0,62}$", _("Lower-case letters, digits, - and _; at most 63.")
)


class TargetKind(models.TextChoices):
    SLIPWAY = "slipway", _("Slipway inference server")


class Target(models.Model):
    """Where models run."""

    project = models.ForeignKey("accounts.Project", on_delete=models.CASCADE, related_name="targets")
    name = models.CharField(max_length=63)
    kind = models.CharField(max_length=30, choices=TargetKind.choices, default=TargetKind.SLIPWAY)
    options = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["project", "name"], name="target_name_once_per_project"),
            models.CheckConstraint(condition=Q(kind__in=TargetKind.values), name="target_kind_known"),
        ]

    def __str__(self) -> str:
        return self.name


# Bounds of the serving settings: the database holds them, forms and API say them.
MOST_CALLS = 1_000_000
MOST_CACHE_MB = 4096
MOST_CACHE_S = 86400
MOST_BATCH = 256
MOST_BUDGET_MS = 60_000
MOST_TIMEOUT_S = 600


class BatchingMode(models.TextChoices):
    AUTO = "auto", _("Where it helps")
    OFF = "off", _("Never")


class Access(models.TextChoices):
    TOKEN = "token", _("With a token")
    OPEN = "open", _("Open")


class Endpoint(models.Model):
    """A stable public name that answers requests. Names are unique: they are the server's model names."""

    project = models.ForeignKey("accounts.Project", on_delete=models.CASCADE, related_name="endpoints")
    target = models.ForeignKey(Target, on_delete=models.PROTECT, related_name="endpoints")
    name = models.CharField(max_length=63, unique=True, validators=[endpoint_name_validator])
    access = models.CharField(max_length=10, choices=Access.choices, default=Access.TOKEN)
    description = models.TextField(blank=True)
    # Serving settings; empty leaves it to the servers.
    sticky_header = models.CharField(max_length=64, blank=True, default="", db_default="")
    limit_concurrency = models.PositiveIntegerField(null=True, blank=True)
    limit_queue = models.PositiveIntegerField(null=True, blank=True)
    cache_mb = models.PositiveIntegerField(null=True, blank=True)
    cache_ttl_s = models.PositiveIntegerField(null=True, blank=True)
    batching_mode = models.CharField(max_length=4, choices=BatchingMode.choices, blank=True, default="", db_default="")
    batching_max = models.PositiveIntegerField(null=True, blank=True)
    batching_budget_ms = models.FloatField(null=True, blank=True)
    revision = models.PositiveIntegerField(default=1)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(condition=Q(access__in=Access.values), name="endpoint_access_known"),
            models.CheckConstraint(
                condition=Q(sticky_header="") | Q(sticky_header__regex=r"^[a-z0-9][a-z0-9-]{0,63}$"),
                name="endpoint_sticky_header_name",
            ),
            models.CheckConstraint(
                condition=Q(limit_concurrency__isnull=True, limit_queue__isnull=True)
                | Q(
                    # Half of it would be unknown, which a check lets pass.
                    limit_concurrency__isnull=False,
                    limit_queue__isnull=False,
                    limit_concurrency__range=(1, MOST_CALLS),
                    limit_queue__range=(0, MOST_CALLS),
                ),
                name="endpoint_limits_whole",
            ),
            models.CheckConstraint(
                condition=Q(cache_mb__isnull=True, cache_ttl_s__isnull=True)
                | Q(
                    cache_mb__isnull=False,
                    cache_ttl_s__isnull=False,
                    cache_mb__range=(1, MOST_CACHE_MB),
                    cache_ttl_s__range=(1, MOST_CACHE_S),
                ),
                name="endpoint_cache_whole",
            ),
            models.CheckConstraint(
                condition=Q(batching_mode=BatchingMode.AUTO)
                | Q(
                    batching_mode__in=["", BatchingMode.OFF],
                    batching_max__isnull=True,
                    batching_budget_ms__isnull=True,
                ),
                name="endpoint_batching_known",
            ),
            models.CheckConstraint(
                condition=(Q(batching_max__isnull=True) | Q(batching_max__range=(2, MOST_BATCH)))
                & (Q(batching_budget_ms__isnull=True) | Q(batching_budget_ms__range=(0.01, MOST_BUDGET_MS))),
                name="endpoint_batching_bounds",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class DeploymentState(models.TextChoices):
    LIVE = "live", _("Live")  # has traffic
    WARM = "warm", _("Warm")  # loaded, no traffic: the candidate before, the old one after
    SHADOW = "shadow", _("Shadow")  # gets copies
    RETIRED = "retired", _("Retired")  # no longer desired


DEPLOYMENT_TRANSITIONS: dict[str, frozenset[str]] = {
    DeploymentState.WARM: frozenset({DeploymentState.LIVE, DeploymentState.SHADOW, DeploymentState.RETIRED}),
    DeploymentState.SHADOW: frozenset({DeploymentState.LIVE, DeploymentState.WARM, DeploymentState.RETIRED}),
    DeploymentState.LIVE: frozenset({DeploymentState.WARM, DeploymentState.RETIRED}),
    DeploymentState.RETIRED: frozenset(),
}
DESIRED = (DeploymentState.LIVE, DeploymentState.WARM, DeploymentState.SHADOW)


class Provider(models.TextChoices):
    CPU = "cpu", _("CPU")
    CUDA = "cuda", _("NVIDIA GPU (CUDA)")
    OPENVINO = "openvino", _("OpenVINO")


class Deployment(models.Model):
    """An artifact behind an endpoint, with a weight in percent.

    `provider` and `upstream` say what runs it. They are set once: another choice is another deployment, so
    that it goes through a rollout as another artifact does.

    A deferred database trigger holds that the weights of an endpoint sum to 100 (or all are 0).
    """

    PROJECT_PATH = "endpoint__project"

    endpoint = models.ForeignKey(Endpoint, on_delete=models.CASCADE, related_name="deployments")
    artifact = models.ForeignKey("registry.Artifact", on_delete=models.PROTECT, related_name="deployments")
    state = models.CharField(max_length=10, choices=DeploymentState.choices, default=DeploymentState.WARM)
    weight = models.PositiveSmallIntegerField(default=0)
    provider = models.CharField(max_length=10, choices=Provider.choices, default=Provider.CPU, db_default=Provider.CPU)
    upstream = models.JSONField(
        default=dict, db_default=Value({}, models.JSONField()), blank=True,
        help_text="{url, model, version, timeout_s} of the server that answers in its place, or {}",
    )  # fmt: skip
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    created_at = models.DateTimeField(db_default=Now())
    retired_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=Q(weight__lte=100), name="deployment_weight_percent"),
            models.CheckConstraint(
                condition=Q(state=DeploymentState.LIVE, weight__gt=0) | (~Q(state=DeploymentState.LIVE) & Q(weight=0)),
                name="deployment_weight_only_when_live",
            ),
            models.CheckConstraint(condition=Q(state__in=DeploymentState.values), name="deployment_state_known"),
            models.CheckConstraint(condition=Q(provider__in=Provider.values), name="deployment_provider_known"),
            models.CheckConstraint(
                condition=Q(upstream={})
                | Q(
                    # A key that is not there would make the rest unknown, which a check lets pass.
                    upstream__contains={},
                    upstream__has_keys=["url", "model", "timeout_s"],
                    upstream__url__regex=r"^https?://[^/@?#]+$",
                    upstream__model__regex=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
                    upstream__timeout_s__gt=0,
                    provider=Provider.CPU,
                ),
                name="deployment_upstream_whole",
            ),
            models.UniqueConstraint(
                fields=["endpoint", "artifact", "provider", "upstream"],
                condition=~Q(state=DeploymentState.RETIRED),
                name="deployment_artifact_once_per_endpoint",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.endpoint.name} ← {self.artifact}"


class DesiredState(models.Model):
    """One row: the generation number of what the servers of the `slipway` target should have."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    generation = models.BigIntegerField(default=1)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="desired_state_single")]

    def __str__(self) -> str:
        return str(self.generation)


class Raised(models.Model):
    """When a generation came, in the database's time; a trigger writes it and keeps the last thousand."""

    generation = models.BigIntegerField(primary_key=True)
    at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return str(self.generation)


class Server(models.Model):
    """One inference server process, as it last reported."""

    instance = models.CharField(max_length=120, unique=True)
    process = models.PositiveIntegerField(default=0)
    seq = models.BigIntegerField(default=0)
    generation = models.BigIntegerField(default=0)
    deployments = models.JSONField(default=dict)
    pid = models.PositiveIntegerField(null=True, blank=True)
    version = models.CharField(max_length=40, blank=True, default="", db_default="")
    memory_bytes = models.BigIntegerField(default=0, db_default=0)
    seen_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["process", "instance"]
        constraints = [models.CheckConstraint(condition=Q(memory_bytes__gte=0), name="server_memory_not_negative")]

    def __str__(self) -> str:
        return self.instance


class RolloutState(models.TextChoices):
    PROGRESSING = "progressing", _("Progressing")
    PAUSED = "paused", _("Paused")
    BAKING = "baking", _("Baking")
    PROMOTED = "promoted", _("Promoted")
    ROLLED_BACK = "rolled-back", _("Rolled back")
    ABORTED = "aborted", _("Aborted")


ROLLOUT_TRANSITIONS: dict[str, frozenset[str]] = {
    RolloutState.PROGRESSING: frozenset(
        {
            RolloutState.PAUSED,
            RolloutState.BAKING,
            RolloutState.PROMOTED,
            RolloutState.ROLLED_BACK,
            RolloutState.ABORTED,
        }
    ),
    RolloutState.PAUSED: frozenset(
        {RolloutState.PROGRESSING, RolloutState.BAKING, RolloutState.ROLLED_BACK, RolloutState.ABORTED}
    ),
    RolloutState.BAKING: frozenset({RolloutState.PROMOTED, RolloutState.ROLLED_BACK, RolloutState.ABORTED}),
    RolloutState.PROMOTED: frozenset({RolloutState.ROLLED_BACK}),
    RolloutState.ROLLED_BACK: frozenset(),
    RolloutState.ABORTED: frozenset(),
}
ROLLOUT_LIVE = (RolloutState.PROGRESSING, RolloutState.PAUSED, RolloutState.BAKING)


class Rollout(models.Model):
    """The change from one deployment to another, step by step."""

    PROJECT_PATH = "endpoint__project"

    endpoint = models.ForeignKey(Endpoint, on_delete=models.CASCADE, related_name="rollouts")
    stable = models.ForeignKey(Deployment, on_delete=models.PROTECT, related_name="+")
    candidate = models.ForeignKey(Deployment, on_delete=models.PROTECT, related_name="rollouts")
    state = models.CharField(max_length=12, choices=RolloutState.choices, default=RolloutState.PROGRESSING)
    reason = models.TextField(blank=True)
    steps = models.JSONField(help_text="[{mode, weight, min_seconds, min_requests, max_seconds, gate}]")
    guard = models.JSONField(help_text="{max_error_share, min_requests, burst}")
    step = models.PositiveSmallIntegerField(default=0)
    step_started_at = models.DateTimeField(null=True)
    evidence = models.JSONField(default=dict)
    job = models.ForeignKey("jobs.Job", on_delete=models.SET_NULL, null=True, related_name="+")
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    revision = models.PositiveIntegerField(default=1)
    created_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=Q(state__in=RolloutState.values), name="rollout_state_known"),
            models.CheckConstraint(condition=~Q(stable=models.F("candidate")), name="rollout_not_to_itself"),
            models.UniqueConstraint(
                fields=["endpoint"], condition=Q(state__in=ROLLOUT_LIVE), name="rollout_one_live_per_endpoint"
            ),
        ]

    def __str__(self) -> str:
        return f"rollout {self.pk} of {self.endpoint.name}"

    @property
    def is_live(self) -> bool:
        return self.state in ROLLOUT_LIVE


class Decision(models.Model):
    """One line of a rollout's decision log: what was decided, why, on which numbers."""

    PROJECT_PATH = "rollout__endpoint__project"

    rollout = models.ForeignKey(Rollout, on_delete=models.CASCADE, related_name="decisions")
    at = models.DateTimeField(db_default=Now())
    action = models.CharField(max_length=20)
    text = models.TextField()
    data = models.JSONField(default=dict)
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.text[:80]
