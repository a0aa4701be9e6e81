from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "slipway.accounts"
    label = "accounts"
