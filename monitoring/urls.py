"""Addresses of monitoring and retraining policies."""

from __future__ import annotations

from django.urls import path

from monitoring import views

urlpatterns = [
    path("monitoring/", views.monitoring, name="monitoring"),
    path("monitoring/alerts/<int:pk>/acknowledge", views.alert_acknowledge, name="alert-acknowledge"),
    path("endpoints/<slug:name>/series.json", views.series, name="series"),
    path("settings/policies/", views.policies, name="settings-policies"),
    path("settings/policies/<int:pk>/fire", views.policy_fire, name="policy-fire"),
    path("settings/policies/<int:pk>/toggle", views.policy_toggle, name="policy-toggle"),
    path("settings/policies/<int:pk>/secret", views.policy_secret, name="policy-secret"),
]
