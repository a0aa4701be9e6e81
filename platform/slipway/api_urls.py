"""`/api/v1/`: every room's view sets under one router."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path
from rest_framework.routers import SimpleRouter

from deployments.api import EndpointViewSet, RolloutViewSet, TargetViewSet
from deployments.servers_api import ServerViewSet
from deployments.serving_api import ServingArtifact, state
from monitoring.api import AlertViewSet, EndpointStats, PolicyViewSet, RetrainHook, ServingReport
from registry.api import ArtifactViewSet, DatasetViewSet, EnvironmentViewSet, ModelViewSet, VersionViewSet
from registry.search_api import SearchViewSet
from slipway.accounts.api import TokenViewSet
from slipway.jobs.api import JobViewSet

router = SimpleRouter(trailing_slash=False)
for prefix, view in {
    "jobs": JobViewSet,
    "models": ModelViewSet,
    "versions": VersionViewSet,
    "artifacts": ArtifactViewSet,
    "datasets": DatasetViewSet,
    "searches": SearchViewSet,
    "environments": EnvironmentViewSet,
    "targets": TargetViewSet,
    "endpoints": EndpointViewSet,
    "rollouts": RolloutViewSet,
    "servers": ServerViewSet,
    "policies": PolicyViewSet,
    "alerts": AlertViewSet,
    "tokens": TokenViewSet,
}.items():
    router.register(prefix, view, basename=f"api-{prefix}")

urlpatterns: list[URLPattern | URLResolver] = [
    path("serving/state", state, name="serving-state"),
    path("serving/artifacts/<str:sha256>", ServingArtifact.as_view(), name="serving-artifact"),
    path("serving/report", ServingReport.as_view(), name="serving-report"),
    path("hooks/<int:pk>", RetrainHook.as_view(), name="hook"),
    path("endpoints/<int:pk>/stats", EndpointStats.as_view(), name="api-endpoint-stats"),
    *router.urls,
]
