"""Addresses of endpoints, rollouts and targets."""

from __future__ import annotations

from django.urls import path

from deployments import playground_views, views

urlpatterns = [
    path("endpoints/", views.endpoints, name="endpoints"),
    path("endpoints/new/", views.endpoint_new, name="endpoint-new"),
    path("endpoints/<slug:name>/", views.endpoint, name="endpoint"),
    path("endpoints/<slug:name>/playground/", playground_views.playground, name="playground"),
    path("endpoints/<slug:name>/playground/rows.json", playground_views.playground_rows, name="playground-rows"),
    path("endpoints/<slug:name>/settings/", views.endpoint_settings, name="endpoint-settings"),
    path("endpoints/<slug:name>/return/<int:pk>", views.endpoint_return, name="endpoint-return"),
    path("deploy/", views.deploy, name="deploy"),
    path("rollouts/", views.rollouts, name="rollouts"),
    path("rollouts/<int:pk>/", views.rollout, name="rollout"),
    path("rollouts/<int:pk>/<slug:move>", views.rollout_act, name="rollout-act"),
    path("targets/", views.targets, name="targets"),
]
