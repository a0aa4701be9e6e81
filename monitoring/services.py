"""Writes: retraining policies and their firings, alerts."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
from typing import Any

import structlog
from celery.schedules import ParseException, crontab
from django.conf import settings
from django.db import transaction
from django.utils import timezone
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from monitoring.models import Alert, AlertState, Firing, Policy, new_salt
from registry.models import Model
from slipway import events
from slipway.accounts import policy as access
from slipway.accounts.models import User
from slipway.api.problems import Conflict, Problem
from slipway.audit.services import record
from slipway.jobs.services import submit

log = structlog.get_logger(__name__)

CRON_FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")


def cron_parse(text: str) -> crontab:
    """A five-field cron expression as Celery's schedule; refuses what does not parse."""
    fields = text.split()
    if len(text) > 100 or len(fields) != len(CRON_FIELDS) or not text.isascii():
        raise Problem("A cron expression has five fields: minute hour day month weekday.", field="cron")
    try:
        # Named, because Celery's own order has the weekday third.
        return crontab(**dict(zip(CRON_FIELDS, fields, strict=True)))
    except (ParseException, ValueError, TypeError, OverflowError, MemoryError) as error:
        raise Problem(f"This cron expression is not valid: {error}", field="cron") from error


@transaction.atomic
def policy_create(
    *,
    actor: User | None,
    model: Model,
    name: str,
    cron: str = "",
    hook: bool = True,
    cooldown_seconds: int = 0,
) -> Policy:
    """When a model is retrained."""
    access.require(actor, access.WRITE, model.project_id)
    if cron:
        cron_parse(cron)
    row = Policy(model=model, name=name, cron=cron, hook=hook, cooldown_seconds=cooldown_seconds)
    row.full_clean()
    row.save()
    record(actor=actor, action="policy.create", target=row, project_id=model.project_id, name=name, cron=cron)
    return row


@transaction.atomic
def policy_update(*, actor: User, policy: Policy, **changes: Any) -> Policy:
    """Changes `enabled`, `cron`, `hook` or `cooldown_seconds`."""
    access.require(actor, access.WRITE, policy.model.project_id)
    if unknown := set(changes) - {"enabled", "cron", "hook", "cooldown_seconds", "name"}:
        raise Problem(f"{sorted(unknown)[0]} cannot be changed.", field=sorted(unknown)[0])
    if changes.get("cron"):
        cron_parse(changes["cron"])
    for field, value in changes.items():
        setattr(policy, field, value)
    policy.revision += 1
    policy.full_clean()
    policy.save()
    record(
        actor=actor,
        action="policy.update",
        target=policy,
        project_id=policy.model.project_id,
        changes=changes,
    )
    return policy


def _secret(policy: Policy) -> str:
    """Derived from Slipway's own key and the policy's salt, so that no hook secret lies in the database."""
    text = f"hook:{policy.pk}:{policy.hook_salt}".encode()
    key = hmac.new(settings.SECRET_KEY.encode(), text, hashlib.sha256).digest()
    return "whsec_" + base64.b64encode(key).decode()


def policy_secret(*, actor: User, policy: Policy) -> str:
    """The secret that signs calls of this policy's hook (Standard Webhooks)."""
    access.require(actor, access.WRITE, policy.model.project_id)
    record(actor=actor, action="policy.secret", target=policy, project_id=policy.model.project_id)
    return _secret(policy)


def policy_rotate(*, actor: User, policy: Policy) -> str:
    """Replaces the secret; calls signed with the old one fail from now on."""
    access.require(actor, access.WRITE, policy.model.project_id)
    policy.hook_salt = new_salt()
    policy.save(update_fields=["hook_salt"])
    record(actor=actor, action="policy.rotate", target=policy, project_id=policy.model.project_id)
    return _secret(policy)


def hook_receive(*, policy: Policy, body: bytes, headers: dict[str, str]) -> Firing:
    """A signed call. Wrong or old signatures are refused; a message fires once however often it is sent."""
    if not (policy.enabled and policy.hook):
        raise Problem("This policy has no hook.", code="not_found", status=404)
    wanted = {name: headers.get(name, "") for name in ("webhook-id", "webhook-timestamp", "webhook-signature")}
    for name, value in wanted.items():
        if not value or len(value) > 1000:
            raise Problem(f"The header {name} is missing.", field=name, status=400, code="hook_header")
    try:
        Webhook(_secret(policy)).verify(body, wanted, json_parse=False)
    except (WebhookVerificationError, ValueError) as error:
        # ValueError: a body that is no UTF-8, or a signature that is no base64.
        why = str(error) if isinstance(error, WebhookVerificationError) else "it is malformed"
        raise Problem(
            f"The signature was not accepted: {why}.",
            field="webhook-signature",
            status=401,
            code="hook_signature",
        ) from error
    key = f"hook:{wanted['webhook-id']}"
    if len(key) > 120:
        raise Problem("The message id has at most 115 characters.", field="webhook-id")
    if Firing.objects.filter(policy=policy, key=key).exists():
        raise Problem("This message was already received.", field="webhook-id", status=409, code="hook_replayed")
    return policy_fire(actor=None, policy=policy, key=key, cause="hook")


@transaction.atomic
def policy_fire(*, actor: User | None, policy: Policy, key: str = "", cause: str = "person") -> Firing:
    """Fires a policy: one firing and one retraining job per key."""
    access.require(actor, access.WRITE, policy.model.project_id)
    locked = Policy.objects.select_for_update(no_key=True).get(pk=policy.pk)
    now = timezone.now()
    key = key or f"person:{now.isoformat()}"
    known = Firing.objects.filter(policy=locked, key=key).first()
    if known is not None:
        return known
    last = locked.firings.first()
    if last is not None and now - last.created_at < dt.timedelta(seconds=locked.cooldown_seconds):
        raise Conflict(f"This policy rests for {locked.cooldown_seconds} s after it fired.", code="cooldown")
    firing = Firing.objects.create(policy=locked, key=key, cause=cause)
    firing.job = submit(
        "retrain",
        project=policy.model.project,
        params={"model_id": policy.model_id, "parameters": locked.parameters},
        actor=actor,
        subject=f"{policy.model.name} · {locked.name}",
        key=f"firing:{firing.pk}",
    )
    firing.save(update_fields=["job"])
    record(
        actor=actor,
        action="policy.fire",
        target=locked,
        project_id=policy.model.project_id,
        cause=cause,
        key=key,
    )
    return firing


def policies_due(*, now: dt.datetime | None = None) -> int:
    """Fires every enabled cron policy whose last due minute has not fired yet; returns how many.

    The minute is the key, so any number of beats fires it once. A policy that is resting skips its minute.
    """
    fired = 0
    now = (now or timezone.now()).astimezone(dt.UTC)
    for policy in Policy.objects.filter(enabled=True).exclude(cron="").select_related("model__project"):
        minute = now.replace(second=0, microsecond=0)
        try:
            due = minute >= policy.created_at and cron_matches(cron_parse(policy.cron), minute)
        except Problem as error:  # one that nobody can read must not hold up the others
            log.warning("policy_unreadable", policy=policy.pk, error=str(error))
            continue
        if not due:
            continue
        key = f"cron:{minute.isoformat()}"
        if Firing.objects.filter(policy=policy, key=key).exists():
            continue
        try:
            policy_fire(actor=None, policy=policy, key=key, cause="cron")
            fired += 1
        except Conflict:
            continue
    return fired


def cron_matches(schedule: crontab, minute: dt.datetime) -> bool:
    """Whether a minute (UTC) is one of the schedule's."""
    weekday = minute.isoweekday() % 7
    return (
        minute.minute in schedule.minute
        and minute.hour in schedule.hour
        and minute.day in schedule.day_of_month
        and minute.month in schedule.month_of_year
        and weekday in schedule.day_of_week
    )


@transaction.atomic
def alert_raise(*, project_id: int, key: str, title: str, text: str = "", link: str = "") -> Alert:
    """Opens an alert, or returns the open one of the same key."""
    alert = Alert.objects.filter(project_id=project_id, key=key).exclude(state=AlertState.RESOLVED).first()
    if alert is None:
        alert, created = Alert.objects.get_or_create(
            project_id=project_id,
            key=key,
            state=AlertState.FIRING,
            defaults={"title": title[:200], "text": text, "link": link},
        )
        if created:
            events.ring(project_id, "alert", alert.pk)
    return alert


def alert_resolve(*, project_id: int, key: str) -> None:
    """Closes the open alert of this key, if there is one."""
    rows = Alert.objects.filter(project_id=project_id, key=key).exclude(state=AlertState.RESOLVED)
    if rows.update(state=AlertState.RESOLVED, resolved_at=timezone.now()):
        events.ring(project_id, "alert", key)


def alert_acknowledge(*, actor: User, alert: Alert) -> None:
    """Somebody looks after it."""
    access.require(actor, access.WRITE, alert.project_id)
    changed = Alert.objects.filter(pk=alert.pk, state=AlertState.FIRING).update(state=AlertState.ACKNOWLEDGED)
    if not changed:
        raise Conflict("This alert is not firing any more.")
    record(actor=actor, action="alert.acknowledge", target=alert, project_id=alert.project_id)
    events.ring(alert.project_id, "alert", alert.pk)
