from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "slipway.accounts"
    label = "accounts"

    def ready(self) -> None:
        # Registers itself with the schema generator by being imported.
        from slipway.accounts import schema  # noqa: F401
