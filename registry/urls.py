"""Addresses of models, versions and datasets."""

from __future__ import annotations

from django.urls import path

from registry import environment_views, search_views, views

urlpatterns = [
    path("models/", views.models, name="models"),
    path("models/new/", views.model_new, name="model-new"),
    path("models/upload/", views.upload, name="upload"),
    path("models/<int:pk>/", views.model, name="model"),
    path("models/<int:pk>/star", views.model_star, name="model-star"),
    path("models/<int:pk>/edit/", views.model_edit, name="model-edit"),
    path("models/<int:pk>/archive", views.model_archive, name="model-archive"),
    path("versions/<int:pk>/", views.version, name="version"),
    path("versions/<int:pk>/export/", views.version_export, name="version-export"),
    path("versions/<int:pk>/packages/", environment_views.version_packages, name="version-packages"),
    path("versions/<int:pk>/prepare", environment_views.version_prepare, name="version-prepare"),
    path("versions/<int:pk>/environment/<str:file>", environment_views.version_environment, name="version-environment"),
    path("versions/<int:pk>/optimize/", views.version_optimize, name="version-optimize"),
    path("versions/<int:pk>/search/", search_views.version_search, name="version-search"),
    path("versions/<int:pk>/alias/", views.version_alias, name="version-alias"),
    path("versions/<int:pk>/alias/remove", views.version_alias_remove, name="version-alias-remove"),
    path("versions/<int:pk>/decide", views.version_decide, name="version-decide"),
    path("versions/<int:pk>/<slug:tab>/", views.version, name="version-tab"),
    path("searches/<int:pk>/", search_views.search, name="lab"),
    path("compare/", views.compare, name="compare"),
    path("environments/", environment_views.environment_list, name="environments"),
    path("environments/<int:pk>/remove", environment_views.environment_remove, name="environment-remove"),
    path("datasets/", views.datasets, name="datasets"),
]
