"""Runs several of Django's commands in one process: each start of Django costs seconds.

python -m slipway.launch.prepare migrate bootstrap
"""

from __future__ import annotations

import sys

import django
from django.core.management import call_command


def main(commands: list[str]) -> None:
    django.setup()
    for command in commands:
        call_command(command)


if __name__ == "__main__":
    main(sys.argv[1:])
