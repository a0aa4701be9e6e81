"""Addresses of jobs."""

from __future__ import annotations

from django.urls import path

from slipway.jobs import views

urlpatterns = [
    path("jobs/", views.jobs, name="jobs"),
    path("jobs/<int:pk>/", views.job, name="job"),
    path("jobs/<int:pk>/log", views.job_log, name="job-log"),
    path("jobs/<int:pk>/log.txt", views.job_log_text, name="job-log-text"),
    path("jobs/<int:pk>/cancel", views.job_cancel, name="job-cancel"),
    path("jobs/<int:pk>/retry", views.job_retry, name="job-retry"),
]
