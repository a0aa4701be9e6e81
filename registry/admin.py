"""Models and what belongs to them in the admin console."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from registry.models import Alias, Artifact, Dataset, Measurement, Model, Search, SearchTrial, Version
from slipway.api.admin import ReadOnlyAdmin


class NoAdding(ModelAdmin):
    """For rows that are made by services and may be corrected here."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False


@admin.register(Model)
class ModelAdminPage(NoAdding):
    list_display = ["name", "project", "task", "last_number", "mlflow_name", "archived_at"]
    list_filter = ["project", "task"]
    search_fields = ["name", "mlflow_name"]
    list_select_related = ["project"]
    readonly_fields = ["project", "name", "last_number", "mlflow_name", "revision", "created_at"]
    exclude = ["stars"]


@admin.register(Version)
class VersionAdmin(ReadOnlyAdmin):
    list_display = ["model", "number", "state", "origin", "framework", "approval", "created_at"]
    list_filter = ["state", "origin", "approval"]
    search_fields = ["model__name", "mlflow_run_id"]
    list_select_related = ["model"]


@admin.register(Alias)
class AliasAdmin(NoAdding):
    """Protecting an alias is an administrator's business; pointing it is done on the model's page."""

    list_display = ["model", "name", "version", "protected"]
    list_filter = ["protected"]
    search_fields = ["name", "model__name"]
    list_select_related = ["model", "version__model"]
    readonly_fields = ["model", "name", "version"]


@admin.register(Artifact)
class ArtifactAdmin(ReadOnlyAdmin):
    list_display = ["sha256", "version", "format", "size", "verdict", "created_at"]
    list_filter = ["format", "verdict"]
    search_fields = ["sha256"]
    list_select_related = ["version__model"]


@admin.register(Dataset)
class DatasetAdmin(ReadOnlyAdmin):
    list_display = ["name", "role", "sha256", "size", "rows", "created_at"]
    list_filter = ["role", "project"]
    search_fields = ["name", "sha256"]


@admin.register(Search)
class SearchAdmin(ReadOnlyAdmin):
    list_display = ["id", "artifact", "dataset", "job", "created_at"]
    list_select_related = ["artifact", "dataset", "job"]


@admin.register(SearchTrial)
class SearchTrialAdmin(ReadOnlyAdmin):
    list_display = ["label", "search", "state", "seconds", "created_at"]
    list_filter = ["state"]
    list_select_related = ["search"]


@admin.register(Measurement)
class MeasurementAdmin(ReadOnlyAdmin):
    list_display = ["artifact", "latency_p50_ms", "latency_p95_ms", "speedup", "created_at"]
    list_select_related = ["artifact"]
