#!/usr/bin/env python
"""Django's command line for Slipway."""

import os
import sys
from pathlib import Path


def main() -> None:
    # `platform/` holds the project package; it must be on the path before Django is imported.
    sys.path.insert(1, str(Path(__file__).resolve().parent / "platform"))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "slipway.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
