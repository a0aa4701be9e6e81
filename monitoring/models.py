"""Telemetry windows, alerts, retraining policies and their firings."""

from __future__ import annotations

import secrets

from django.db import models
from django.db.models import Q, Value
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _


class Window(models.Model):
    """Counts of one deployment in five seconds; sketches add up, so longer spans are sums of rows."""

    PROJECT_PATH = "deployment__endpoint__project"

    deployment = models.ForeignKey("deployments.Deployment", on_delete=models.CASCADE, related_name="windows")
    start = models.DateTimeField()
    requests = models.PositiveIntegerField(default=0)
    errors = models.PositiveIntegerField(default=0)
    latency = models.JSONField(default=dict)
    outputs = models.JSONField(default=dict)
    queue_us = models.BigIntegerField(default=0, db_default=0, help_text="Waiting before a model run, summed")
    compute_us = models.BigIntegerField(default=0, db_default=0, help_text="Model runs as their requests saw them")
    batches = models.JSONField(
        default=dict, db_default=Value({}, models.JSONField()), help_text="{requests in a model run: model runs}"
    )
    cache_hits = models.PositiveIntegerField(default=0, db_default=0)
    rejected = models.PositiveIntegerField(default=0, db_default=0, help_text="Refused by a limit or a quota")

    class Meta:
        ordering = ["-start"]
        constraints = [
            models.UniqueConstraint(fields=["deployment", "start"], name="window_once"),
            models.CheckConstraint(condition=Q(errors__lte=models.F("requests")), name="window_errors_are_requests"),
            models.CheckConstraint(condition=Q(cache_hits__lte=models.F("requests")), name="window_hits_are_requests"),
            models.CheckConstraint(condition=Q(queue_us__gte=0, compute_us__gte=0), name="window_times_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.deployment_id} {self.start:%H:%M:%S}"


class AlertState(models.TextChoices):
    FIRING = "firing", _("Firing")
    ACKNOWLEDGED = "acknowledged", _("Acknowledged")
    RESOLVED = "resolved", _("Resolved")


class Alert(models.Model):
    """Something a person should look at."""

    project = models.ForeignKey("accounts.Project", on_delete=models.CASCADE, related_name="alerts")
    key = models.CharField(max_length=120)
    state = models.CharField(max_length=14, choices=AlertState.choices, default=AlertState.FIRING)
    title = models.CharField(max_length=200)
    text = models.TextField(blank=True)
    link = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(db_default=Now())
    resolved_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["project", "key"], condition=~Q(state=AlertState.RESOLVED), name="alert_open_once"
            ),
            models.CheckConstraint(condition=Q(state__in=AlertState.values), name="alert_state_known"),
        ]

    def __str__(self) -> str:
        return self.title


def new_salt() -> str:
    return secrets.token_hex(16)


class Policy(models.Model):
    """When a model is retrained: on a cron schedule, on a signed hook, or by hand."""

    PROJECT_PATH = "model__project"

    model = models.ForeignKey("registry.Model", on_delete=models.CASCADE, related_name="policies")
    name = models.CharField(max_length=100)
    enabled = models.BooleanField(default=True)
    cron = models.CharField(max_length=100, blank=True)
    hook = models.BooleanField(default=True)
    hook_salt = models.CharField(max_length=32, default=new_salt, editable=False)
    parameters = models.JSONField(default=dict, blank=True)
    cooldown_seconds = models.PositiveIntegerField(default=0)
    revision = models.PositiveIntegerField(default=1)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["name"]
        verbose_name_plural = "policies"
        constraints = [models.UniqueConstraint(fields=["model", "name"], name="policy_name_once_per_model")]

    def __str__(self) -> str:
        return self.name


class Firing(models.Model):
    """One firing of a policy. The unique key makes any number of beats, or repeated hooks, fire once."""

    PROJECT_PATH = "policy__model__project"

    policy = models.ForeignKey(Policy, on_delete=models.CASCADE, related_name="firings")
    key = models.CharField(max_length=120)
    cause = models.CharField(max_length=10)
    job = models.ForeignKey("jobs.Job", on_delete=models.SET_NULL, null=True, related_name="+")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["-id"]
        constraints = [models.UniqueConstraint(fields=["policy", "key"], name="policy_fires_once")]

    def __str__(self) -> str:
        return f"{self.policy} {self.key}"
