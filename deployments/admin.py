"""Endpoints, deployments and rollouts in the admin console: to look at."""

from __future__ import annotations

from django.contrib import admin
from unfold.admin import ModelAdmin

from deployments.models import Deployment, Endpoint, Rollout, Server, Target
from slipway.api.admin import ReadOnlyAdmin


@admin.register(Target)
class TargetAdmin(ModelAdmin):
    list_display = ["name", "kind", "project", "created_at"]
    list_filter = ["kind", "project"]
    search_fields = ["name"]


@admin.register(Endpoint)
class EndpointAdmin(ReadOnlyAdmin):
    list_display = ["name", "project", "target", "access", "created_at"]
    list_filter = ["project", "access"]
    search_fields = ["name"]
    list_select_related = ["project", "target"]


@admin.register(Deployment)
class DeploymentAdmin(ReadOnlyAdmin):
    list_display = ["id", "endpoint", "artifact", "state", "weight", "provider", "created_at", "retired_at"]
    list_filter = ["state", "provider"]
    list_select_related = ["endpoint", "artifact"]


@admin.register(Rollout)
class RolloutAdmin(ReadOnlyAdmin):
    list_display = ["id", "endpoint", "state", "step", "created_by", "created_at", "finished_at"]
    list_filter = ["state"]
    list_select_related = ["endpoint", "created_by"]


@admin.register(Server)
class ServerAdmin(ReadOnlyAdmin):
    list_display = ["instance", "process", "pid", "version", "generation", "memory_bytes", "seen_at"]
