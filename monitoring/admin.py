"""Policies and alerts in the admin console."""

from __future__ import annotations

from django.contrib import admin

from monitoring.models import Alert, Firing, Policy
from slipway.api.admin import ReadOnlyAdmin


@admin.register(Policy)
class PolicyAdmin(ReadOnlyAdmin):
    list_display = ["name", "model", "enabled", "cron", "hook", "cooldown_seconds"]
    list_filter = ["enabled"]
    list_select_related = ["model"]


@admin.register(Firing)
class FiringAdmin(ReadOnlyAdmin):
    list_display = ["policy", "key", "cause", "job", "created_at"]
    list_filter = ["cause"]
    list_select_related = ["policy", "job"]


@admin.register(Alert)
class AlertAdmin(ReadOnlyAdmin):
    list_display = ["title", "project", "state", "created_at", "resolved_at"]
    list_filter = ["state", "project"]
    list_select_related = ["project"]
