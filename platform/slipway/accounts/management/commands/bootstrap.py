"""First start: the default project, the account `admin`, its API token, the signing key. Safe to repeat."""

from __future__ import annotations

import os
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from slipway import paths
from slipway.accounts.models import Project, Token, User, token_digest
from slipway.accounts.services import project_create, token_create
from slipway.environment import environment
from slipway.launch import keys
from slipway.launch.errors import LaunchError

PROJECT = "default"


class Command(BaseCommand):
    help = "Makes the default project, the account admin, its API token and the signing key where they are missing."

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        try:
            keys.signing_keys()
        except LaunchError as error:
            raise CommandError(str(error)) from None
        admin = User.objects.filter(username="admin").first()
        password = environment.admin_password or _read(paths.admin_password())
        if admin is None:
            admin = User.objects.create_superuser("admin", password=password or None)
        elif environment.admin_password and not admin.check_password(environment.admin_password):
            admin.set_password(environment.admin_password)
            admin.save(update_fields=["password"])
        if not Project.objects.filter(slug=PROJECT).exists():
            project_create(actor=admin, slug=PROJECT, name="Default")
        self._token(admin)

    def _token(self, admin: User) -> None:
        """The token's file is written by `make up` before the database knows it, or here."""
        path = paths.admin_token()
        text = _read(path)
        if not text:
            text = Token.new_text()
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(text + "\n")
        if not Token.objects.filter(digest=token_digest(text)).exists():
            token_create(user=admin, name="make up", text=text)


def _read(path: Any) -> str:
    return path.read_text().strip() if path.exists() else ""
