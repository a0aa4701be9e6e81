from django.apps import AppConfig


class AuditConfig(AppConfig):
    name = "slipway.audit"
    label = "audit"
