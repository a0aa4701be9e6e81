from django.apps import AppConfig


class ApiConfig(AppConfig):
    name = "slipway.api"
    label = "api"
