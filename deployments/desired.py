"""The document that inference servers pull: what should be served, with one generation number."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.db.models import Q
from django.utils import timezone

from deployments import tuning
from deployments.models import DESIRED, Access, Deployment, DeploymentState, DesiredState, Endpoint, Server
from slipway.accounts import policy
from slipway.accounts.models import Role, Scope, Token

ALIVE = dt.timedelta(seconds=15)
_MODES = {DeploymentState.LIVE: "live", DeploymentState.SHADOW: "shadow", DeploymentState.WARM: "warm"}
_MAY_INFER = [role for role in Role.values if policy.INFER in policy.ALLOWED[role]]


def generation() -> int:
    """The current generation; a database trigger raises it with every change that servers must see."""
    return DesiredState.objects.values_list("generation", flat=True).get(pk=1)


def document() -> dict[str, Any]:
    """The whole desired state (see docs/architecture.md for the contract)."""
    current = generation()
    endpoints: dict[int, dict[str, Any]] = {}
    for endpoint in Endpoint.objects.filter(deployments__state__in=DESIRED).distinct():
        endpoints[endpoint.pk] = {
            "name": endpoint.name,
            "access": endpoint.access,
            "tokens": tokens_for(endpoint) if endpoint.access == Access.TOKEN else [],
            **tuning.settings_of(endpoint),
            "deployments": [],
        }
    # An endpoint made between these two reads raises the generation: it is in the next document.
    rows = Deployment.objects.filter(state__in=DESIRED, endpoint__in=list(endpoints))
    for row in rows.select_related("artifact__version").order_by("id"):
        endpoints[row.endpoint_id]["deployments"].append(
            {
                "id": str(row.pk),
                "version": str(row.artifact.version.number),
                "weight": row.weight,
                "mode": _MODES[DeploymentState(row.state)],
                **tuning.told(row),
                "artifact": {
                    "sha256": row.artifact.sha256,
                    "format": row.artifact.format,
                    "size": row.artifact.size,
                    "signature": row.artifact.attestation or None,
                },
            }
        )
    return {"generation": current, "endpoints": list(endpoints.values())}


def tokens_for(endpoint: Endpoint) -> list[str | dict[str, Any]]:
    """The tokens that may call a protected endpoint: their digests, or {sha256, rate, burst} with a quota."""
    tokens = (
        Token.objects.filter(scope__in=[Scope.WRITE, Scope.INFER], user__is_active=True)
        .filter(Q(expires_at__isnull=True) | Q(expires_at__gt=timezone.now()))
        .filter(
            Q(user__is_superuser=True)
            | Q(user__memberships__project=endpoint.project_id, user__memberships__role__in=_MAY_INFER)
        )
    )
    rows = sorted(set(tokens.values_list("digest", "rate", "burst")), key=lambda row: row[0])
    return [
        digest if rate is None else {"sha256": digest, "rate": rate, "burst": burst} for digest, rate, burst in rows
    ]


def servers_alive() -> list[Server]:
    """The server processes that reported lately."""
    return list(Server.objects.filter(seen_at__gte=timezone.now() - ALIVE))


def readiness(deployment: Deployment, servers: list[Server] | None = None) -> tuple[bool, str]:
    """(ready on every living server, what is missing or the reason of the failure)."""
    servers = servers_alive() if servers is None else servers
    if not servers:
        return False, "No inference server has reported in the last 15 seconds."
    for server in servers:
        seen = server.deployments.get(str(deployment.pk))
        if seen is None:
            return False, f"Server process {server.process} has not seen it yet."
        if seen["state"] == "failed":
            return False, f"Server process {server.process} could not load it: {seen.get('reason', '')}"
        if seen["state"] != "ready":
            return False, f"Server process {server.process} is loading it."
    return True, ""


def failure(deployment: Deployment, servers: list[Server]) -> str:
    """The reason why a living server could not load the deployment, or an empty text."""
    for server in servers:
        seen = server.deployments.get(str(deployment.pk)) or {}
        if seen.get("state") == "failed":
            return f"Server process {server.process} could not load it: {seen.get('reason', '')}"
    return ""
