"""Every address."""

from __future__ import annotations

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

from slipway.health import healthz

urlpatterns = [
    path("healthz", healthz, name="healthz"),
    path("favicon.ico", RedirectView.as_view(url="/static/slipway/mark.svg")),
    path("admin/", admin.site.urls),
    path("api/v1/", include("slipway.api_urls")),
    path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs/", SpectacularSwaggerView.as_view(url_name="schema"), name="api-docs"),
    path("i18n/", include("django.conf.urls.i18n")),
    path("", include("slipway.dashboard.urls")),
    path("", include("slipway.accounts.urls")),
    path("", include("slipway.jobs.urls")),
    path("", include("registry.urls")),
    path("", include("deployments.urls")),
    path("", include("monitoring.urls")),
]
handler500 = "slipway.dashboard.views.server_error"
