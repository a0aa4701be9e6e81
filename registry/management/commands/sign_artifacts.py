"""Signs artifacts after the fact: those that nobody signed, and with --again those of a replaced key."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from registry.signing import artifacts_sign
from slipway.api.problems import Unavailable


class Command(BaseCommand):
    help = "Signs every artifact that is not signed. Safe to repeat; each one is an entry of the audit log."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--again", action="store_true", help="also what another key than the present one signed (after a rotation)"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            done = artifacts_sign(again=options["again"])
        except Unavailable as error:
            raise CommandError(error.detail) from None
        self.stdout.write(f"{done} artifacts signed.")
