"""Fills the database that DATABASE_URL names with the demo world: `python -m tests.dashboard.seed`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "platform")]
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "slipway.settings")


def main() -> None:
    import django

    django.setup()
    from slipway.accounts.models import Membership, Project, Role, User
    from slipway.accounts.services import token_create
    from tests.dashboard import lab_world, world

    if Project.objects.exists():
        print("there is a world already")
        return
    project = Project.objects.create(slug="vision", name="Vision team")
    admin = User.objects.create_superuser("root", password="root")
    for role in Role.values:
        user = User.objects.create_user(role, password=role)
        Membership.objects.create(project=project, user=user, role=role)
    made = world.build(project, admin)
    lab_world.build(made["versions"][4], admin)
    token_create(user=admin, name="training script")
    other = Project.objects.create(slug="empty", name="Empty project")
    Membership.objects.create(project=other, user=admin, role=Role.ADMIN)
    print("done")


if __name__ == "__main__":
    main()
