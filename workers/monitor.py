"""Queue `monitor`: what looks at the windows of running endpoints."""

from __future__ import annotations

import datetime as dt

from django.urls import reverse
from django.utils import timezone

from deployments import desired
from deployments.models import DESIRED, Deployment, Server
from monitoring.models import Window
from monitoring.services import alert_raise, alert_resolve

FORGET_SERVERS_AFTER = dt.timedelta(minutes=10)
KEEP_WINDOWS = dt.timedelta(days=7)
_BATCH = 5000


def deployments_watch() -> None:
    """Alerts for deployments that a server could not load; resolves them when all have it."""
    servers = desired.servers_alive()
    rows = Deployment.objects.filter(state__in=DESIRED).select_related("endpoint", "artifact__version")
    for row in rows:
        key, reason = f"deployment:{row.pk}", desired.failure(row, servers)
        if reason:
            alert_raise(
                project_id=row.endpoint.project_id,
                key=key,
                title=f"{row.endpoint.name}: version {row.artifact.version.number} does not load",
                text=reason,
                link=reverse("endpoint", args=[row.endpoint.name]),
            )
        elif servers:
            alert_resolve(project_id=row.endpoint.project_id, key=key)


def old_rows_forget() -> None:
    """Deletes windows past their retention (in small batches) and servers that are long gone."""
    now = timezone.now()
    old = Window.objects.filter(start__lt=now - KEEP_WINDOWS).values("pk")[:_BATCH]
    Window.objects.filter(pk__in=old).delete()
    Server.objects.filter(seen_at__lt=now - FORGET_SERVERS_AFTER).delete()
