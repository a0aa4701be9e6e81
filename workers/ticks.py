"""What beat asks for. Each tick looks, and does what is due; none keeps anything in memory."""

from __future__ import annotations

from django.utils import timezone

from monitoring.services import policies_due
from registry.environments import environments_trim
from registry.intake import versions_reconcile
from slipway.accounts.models import Token
from slipway.audit.services import chain_seal
from slipway.environment import environment
from slipway.jobs.services import sweep
from slipway.jobs.ticks import tick
from workers.monitor import deployments_watch, old_rows_forget


@tick("sweep", every=5)
def jobs_sweep() -> None:
    """Settles expired leases and rings for jobs whose message was lost."""
    sweep()


@tick("reconcile", every=3)
def registry_reconcile() -> None:
    """Takes in versions that were registered in MLflow."""
    versions_reconcile()


@tick("seal", every=5)
def audit_seal() -> None:
    """Links new audit entries to the chain."""
    chain_seal()


@tick("policies", every=15)
def policies_fire() -> None:
    """Fires the cron policies whose minute has come."""
    policies_due()


@tick("watch", every=5)
def endpoints_watch() -> None:
    """Looks after deployments and their alerts."""
    deployments_watch()


@tick("environments", every=3600)
def environments_forget() -> None:
    """Removes prepared environments that nobody has used for long, or that no longer fit."""
    environments_trim(days=environment.environments_days, total_bytes=environment.environments_gb << 30)


@tick("forget", every=60)
def forget() -> None:
    """Retention: old windows, gone servers, expired tokens."""
    old_rows_forget()
    Token.objects.filter(expires_at__lt=timezone.now()).delete()
