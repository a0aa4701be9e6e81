"""Addresses of the pages that belong to no single room."""

from __future__ import annotations

from django.urls import path

from slipway.dashboard import stream, views

urlpatterns = [
    path("", views.home, name="home"),
    path("events", stream.events, name="events"),
    path("search", views.search, name="search"),
    path("counts", views.counts, name="counts"),
    path("settings/audit/", views.audit_page, name="settings-audit"),
    path("settings/audit/check", views.audit_check, name="audit-check"),
]
