"""Job, its log, its steps and the effects it must not repeat."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _


class State(models.TextChoices):
    QUEUED = "queued", _("Queued")
    RUNNING = "running", _("Running")
    SUCCEEDED = "succeeded", _("Succeeded")
    FAILED = "failed", _("Failed")
    CANCELLED = "cancelled", _("Cancelled")


TRANSITIONS: dict[str, frozenset[str]] = {
    State.QUEUED: frozenset({State.RUNNING, State.CANCELLED, State.FAILED}),
    State.RUNNING: frozenset({State.QUEUED, State.SUCCEEDED, State.FAILED, State.CANCELLED}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset({State.QUEUED}),
    State.CANCELLED: frozenset({State.QUEUED}),
}
LIVE = (State.QUEUED, State.RUNNING)
MAX_FAILURES = 5


class Job(models.Model):
    """One unit of work. `attempt` is the fence: only the attempt that holds the row may write to it."""

    project = models.ForeignKey("accounts.Project", on_delete=models.CASCADE, related_name="jobs")
    kind = models.CharField(max_length=40)
    queue = models.CharField(max_length=20)
    params = models.JSONField(default=dict)
    subject = models.CharField(max_length=200, blank=True)
    key = models.CharField(max_length=200, null=True, unique=True)
    parent = models.ForeignKey("self", on_delete=models.SET_NULL, null=True, related_name="children")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")

    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    attempt = models.PositiveIntegerField(default=0)
    failures = models.PositiveSmallIntegerField(default=0)
    available_at = models.DateTimeField(db_default=Now())
    rung_at = models.DateTimeField(null=True)
    lease_until = models.DateTimeField(null=True)
    claimed_by = models.CharField(max_length=120, blank=True)
    cancel_requested = models.BooleanField(default=False)
    release_requested = models.BooleanField(default=False)

    step = models.CharField(max_length=40, blank=True)
    progress = models.FloatField(default=0)
    reason = models.TextField(blank=True)
    error_code = models.CharField(max_length=60, blank=True)
    reference = models.CharField(max_length=32, blank=True)
    result = models.JSONField(default=dict)
    mlflow_run_id = models.CharField(max_length=64, blank=True)
    revision = models.PositiveIntegerField(default=0)

    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=Q(state__in=State.values), name="job_state_known"),
            models.CheckConstraint(
                condition=~Q(state=State.RUNNING) | Q(lease_until__isnull=False), name="job_running_has_lease"
            ),
            models.CheckConstraint(
                condition=Q(state__in=LIVE) | Q(finished_at__isnull=False), name="job_ended_has_time"
            ),
            models.CheckConstraint(condition=Q(progress__gte=0, progress__lte=1), name="job_progress_share"),
        ]
        indexes = [
            models.Index(fields=["available_at"], condition=Q(state=State.QUEUED), name="job_due"),
            models.Index(fields=["lease_until"], condition=Q(state=State.RUNNING), name="job_leases"),
            models.Index(fields=["project", "-id"]),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.pk}"

    @property
    def is_live(self) -> bool:
        return self.state in LIVE


class JobLog(models.Model):
    """Append-only lines; the id is the reader's cursor."""

    PROJECT_PATH = "job__project"

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="lines")
    attempt = models.PositiveIntegerField()
    at = models.DateTimeField(db_default=Now())
    level = models.CharField(max_length=8, default="info")
    text = models.TextField()

    class Meta:
        ordering = ["id"]
        indexes = [models.Index(fields=["job", "id"])]

    def __str__(self) -> str:
        return self.text[:80]


class JobStep(models.Model):
    """When each step of each attempt began and ended: the timeline."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="steps")
    attempt = models.PositiveIntegerField()
    name = models.CharField(max_length=40)
    started_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["id"]
        constraints = [models.UniqueConstraint(fields=["job", "attempt", "name"], name="step_once_an_attempt")]

    def __str__(self) -> str:
        return self.name


class JobEffect(models.Model):
    """The result of an external effect, remembered so that a later attempt does not repeat it."""

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="effects")
    key = models.CharField(max_length=120)
    attempt = models.PositiveIntegerField()
    result = models.JSONField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["job", "key"], name="effect_once_per_job")]

    def __str__(self) -> str:
        return self.key
