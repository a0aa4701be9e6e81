from django.apps import AppConfig


class DashboardConfig(AppConfig):
    name = "slipway.dashboard"
    label = "dashboard"
