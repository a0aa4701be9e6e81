"""Policies: cron, hooks, cooldown; and alerts."""

from __future__ import annotations

import base64
import datetime as dt
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, transaction
from django.test import Client
from django.utils import timezone
from standardwebhooks.webhooks import Webhook

from monitoring import services
from monitoring.models import Alert, Firing, Policy
from slipway.api.problems import Conflict, Problem
from slipway.audit.models import Entry
from slipway.jobs.models import Job
from tests.api.tools import problem, race


def signed(policy: Policy, body: bytes = b"{}", key: str = "msg_1", age: float = 0, secret: str = "") -> dict[str, str]:
    at = timezone.now() - dt.timedelta(seconds=age)
    text = Webhook(secret or services._secret(policy)).sign(key, at, body.decode())
    return {"webhook-id": key, "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": text}


def call(policy: Policy, body: bytes = b"{}", headers: dict[str, str] | None = None, kind: str = "application/json"):
    client = Client(raise_request_exception=False)
    return client.post(
        f"/api/v1/hooks/{policy.pk}", body, content_type=kind,
        headers=signed(policy, body) if headers is None else headers,
    )  # fmt: skip


# Hooks


@pytest.mark.django_db
@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form-urlencoded", "x/y"])
def test_hook_fires_once_when_signature_is_right(kind: str, policy) -> None:
    answer = call(policy, b'{"a": "b=c&d"}', kind=kind)
    assert answer.status_code == 202, answer.content
    firing = Firing.objects.get()
    assert (firing.cause, firing.key, firing.job.kind) == ("hook", "hook:msg_1", "retrain")
    assert answer.headers["Location"] == f"/api/v1/jobs/{firing.job_id}"
    assert firing.job.params["model_id"] == policy.model_id and Entry.objects.filter(action="policy.fire").exists()
    assert "webhook" not in answer.content.decode()


@pytest.mark.django_db
def test_hook_is_409_when_replayed(policy) -> None:
    headers = signed(policy)
    assert call(policy, headers=headers).status_code == 202
    for again in (headers, signed(policy)):
        problem(call(policy, headers=again), 409, "hook_replayed", field="webhook-id")
    assert Firing.objects.count() == Job.objects.count() == 1
    assert call(policy, headers=signed(policy, key="msg_2")).status_code == 202


@pytest.mark.django_db
@pytest.mark.parametrize(
    "case",
    [
        "other secret", "other body", "other id", "old", "future", "garbage", "no base64", "empty list",
        "unknown scheme",
        "not a number", "nan", "latin", "rotated", "other policy", "non-utf8 body",
    ],
)  # fmt: skip
def test_hook_is_401_when_signature_is(case: str, policy, model) -> None:
    body, headers = b"{}", signed(policy)
    signature = headers["webhook-signature"]
    if case == "other secret":
        headers = signed(policy, secret="whsec_" + base64.b64encode(b"x" * 32).decode())
    elif case in {"old", "future"}:
        headers = signed(policy, age=400 if case == "old" else -400)
    elif case == "other id":
        headers["webhook-id"] = "msg_2"
    elif case == "rotated":
        services.policy_rotate(actor=None, policy=policy)
    elif case == "other policy":
        headers = signed(services.policy_create(actor=None, model=model, name="other"))
    elif case in {"other body", "non-utf8 body"}:
        body = b'{"x": 1}' if case == "other body" else b"\xff\xfe\x00"
    elif case in {"not a number", "nan"}:
        headers["webhook-timestamp"] = "soon" if case == "not a number" else "nan"
    else:
        headers["webhook-signature"] = {
            "garbage": "v1,AAAA", "no base64": "v1,!!!", "empty list": " ", "unknown scheme": f"v9{signature[2:]}",
            "latin": "v1,é",
        }[case]  # fmt: skip
    problem(call(policy, body, headers), 401, "hook_signature", field="webhook-signature")
    assert not Firing.objects.exists() and not Job.objects.exists()
    assert call(policy).status_code == 202


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
@pytest.mark.parametrize("value", [None, "", "x" * 1001])
def test_hook_is_400_when_a_header_is_missing_or_long(name: str, value, policy) -> None:
    headers = signed(policy)
    if value is None:
        del headers[name]
    else:
        headers[name] = value
    problem(call(policy, headers=headers), 400, "hook_header", field=name)


@pytest.mark.django_db
def test_hook_is_422_when_message_id_is_long(policy) -> None:
    problem(call(policy, headers=signed(policy, key="m" * 116)), 422, field="webhook-id")
    assert call(policy, headers=signed(policy, key="m" * 115)).status_code == 202


@pytest.mark.django_db
@pytest.mark.parametrize("change", [{"enabled": False}, {"hook": False}])
def test_hook_is_404_when_policy_has_none(change, policy) -> None:
    Policy.objects.update(**change)
    problem(call(policy), 404)
    problem(Client().post("/api/v1/hooks/999999"), 404)
    problem(Client().get(f"/api/v1/hooks/{policy.pk}"), 405)


@pytest.mark.django_db
def test_hook_is_413_when_body_is_too_large(policy) -> None:
    body = b"x" * (64 * 1024 + 1)
    problem(call(policy, body), 413, "too_large")
    assert call(policy, body[:-1]).status_code == 202


@pytest.mark.django_db
def test_hook_is_accepted_when_body_is_empty(policy) -> None:
    assert call(policy, b"", signed(policy, b"")).status_code == 202


@pytest.mark.django_db(transaction=True)
def test_hook_fires_once_when_eight_copies_arrive_at_once(policy) -> None:
    headers = signed(policy)
    done = race(8, lambda index: call(policy, headers=headers).status_code)
    assert set(done) <= {202, 409} and 202 in done
    assert Firing.objects.count() == Job.objects.count() == 1


@pytest.mark.django_db
def test_secret_is_shown_to_writers_only_and_changes_when_rotated(policy, people) -> None:
    secret = services.policy_secret(actor=people["developer"], policy=policy)
    assert secret.startswith("whsec_") and secret == services.policy_secret(actor=people["admin"], policy=policy)
    assert services.policy_rotate(actor=people["developer"], policy=policy) != secret
    assert not Entry.objects.filter(data__icontains=secret[6:]).exists()
    for who in ("viewer", "approver", "stranger"):
        for attempt in (services.policy_secret, services.policy_rotate, services.policy_fire):
            with pytest.raises(PermissionDenied):
                attempt(actor=people[who], policy=policy)


# Cron


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


@pytest.fixture
def nightly(model) -> Policy:
    row = services.policy_create(actor=None, model=model, name="cron", cron="30 3 * * 1-5")
    Policy.objects.filter(pk=row.pk).update(created_at=at("2026-01-01T00:00:00"))
    return row


@pytest.mark.django_db
def test_cron_fires_once_a_due_minute_when_ticks_repeat(nightly) -> None:
    moments = ["03:29:59", "03:30:00", "03:30:15", "03:30:59", "03:31:00", "04:30:00"]
    assert [services.policies_due(now=at(f"2026-03-02T{moment}")) for moment in moments] == [0, 1, 0, 0, 0, 0]
    assert services.policies_due(now=at("2026-03-03T03:30:00")) == 1
    assert services.policies_due(now=at("2026-03-07T03:30:00")) == 0  # a Saturday
    assert Firing.objects.filter(key="cron:2026-03-02T03:30:00+00:00", cause="cron").count() == 1
    assert Job.objects.filter(kind="retrain").count() == 2


@pytest.mark.django_db
def test_cron_does_not_fire_when_disabled_or_before_it_was_made(nightly) -> None:
    Policy.objects.update(enabled=False)
    assert services.policies_due(now=at("2026-03-02T03:30:00")) == 0
    Policy.objects.update(enabled=True, created_at=at("2027-01-01T00:00:00"))
    assert services.policies_due(now=at("2026-03-02T03:30:00")) == 0


@pytest.mark.django_db
def test_other_policies_fire_when_one_cannot_be_read(nightly, model) -> None:
    Policy.objects.create(model=model, name="a broken one", cron="every day")
    assert services.policies_due(now=at("2026-03-02T03:30:00")) == 1


@pytest.mark.django_db(transaction=True)
def test_cron_fires_once_when_five_beats_tick_at_once(nightly) -> None:
    done = race(5, lambda index: services.policies_due(now=at("2026-03-02T03:30:00")))
    assert not [one for one in done if isinstance(one, Exception)]
    assert Firing.objects.count() == Job.objects.count() == 1


@pytest.mark.parametrize(
    ("cron", "moment", "matches"),
    [
        ("* * * * *", "2026-03-02T03:30:00", True), ("*/7 * * * *", "2026-03-02T03:35:00", True),
        ("*/7 * * * *", "2026-03-02T03:36:00", False), ("0 0 1 1 *", "2026-01-01T00:00:00", True),
        ("0 0 * * 0", "2026-03-01T00:00:00", True), ("0 0 * * sun", "2026-03-01T00:00:00", True),
        ("0 0 29 2 *", "2028-02-29T00:00:00", True),
        ("0 0 * * mon-fri", "2026-03-01T00:00:00", False),
    ],
)  # fmt: skip
def test_cron_matches_as_written_when_asked(cron: str, moment: str, matches: bool) -> None:
    assert services.cron_matches(services.cron_parse(cron), at(moment)) is matches


@pytest.mark.parametrize(
    "cron",
    [
        "", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "a b c d e",
        "*/0 * * * *", "-1 * * * *", "1" * 101, "* * * * \x00", "1e1 * * * *", "٣ * * * *",
        "0-99999999 * * * *",
    ],
)  # fmt: skip
def test_cron_is_refused_when_it_does_not_parse(cron: str) -> None:
    with pytest.raises(Problem) as refused:
        services.cron_parse(cron)
    assert refused.value.field == "cron"


# Firing


@pytest.mark.django_db
def test_policy_rests_when_it_has_a_cooldown(model, people) -> None:
    policy = services.policy_create(actor=None, model=model, name="p", cooldown_seconds=60)
    services.policy_fire(actor=people["developer"], policy=policy)
    with pytest.raises(Conflict) as rests:
        services.policy_fire(actor=people["developer"], policy=policy)
    assert rests.value.code == "cooldown"
    problem(call(policy), 409, "cooldown")
    Firing.objects.update(created_at=timezone.now() - dt.timedelta(seconds=61))
    assert call(policy).status_code == 202
    assert Firing.objects.count() == Job.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_policy_fires_once_in_its_cooldown_when_eight_fire_at_once(model) -> None:
    policy = services.policy_create(actor=None, model=model, name="p", cooldown_seconds=60)
    done = race(8, lambda index: services.policy_fire(actor=None, policy=policy))
    assert sum(isinstance(one, Firing) for one in done) == 1
    assert all(isinstance(one, Firing | Conflict) for one in done)


@pytest.mark.django_db
def test_same_key_gives_the_same_firing_when_fired_again(policy) -> None:
    one, two = (services.policy_fire(actor=None, policy=policy, key="k") for _ in range(2))
    assert one.pk == two.pk
    with pytest.raises(IntegrityError), transaction.atomic():
        Firing.objects.create(policy=policy, key="k", cause="cron")


@pytest.mark.django_db
def test_policy_changes_only_what_it_may_when_updated(policy, people) -> None:
    row = services.policy_update(actor=people["developer"], policy=policy, cron="0 3 * * *", enabled=False)
    assert (row.cron, row.enabled, row.revision) == ("0 3 * * *", False, 2)
    for bad in ({"model": 1}, {"hook_salt": "x"}, {"revision": 5}, {"cron": "nonsense"}):
        with pytest.raises(Problem) as refused:
            services.policy_update(actor=people["developer"], policy=policy, **bad)
        assert refused.value.field == next(iter(bad))
    with pytest.raises(PermissionDenied):
        services.policy_update(actor=people["viewer"], policy=policy, enabled=True)


# Alerts


@pytest.mark.django_db
def test_alert_opens_once_and_again_when_resolved(project, people) -> None:
    def raised() -> Alert:
        return services.alert_raise(project_id=project.pk, key="k", title="t" * 300)

    one = raised()
    assert raised().pk == one.pk and len(one.title) == 200
    services.alert_acknowledge(actor=people["developer"], alert=one)
    assert raised().pk == one.pk and raised().state == "acknowledged"
    with pytest.raises(Conflict):
        services.alert_acknowledge(actor=people["developer"], alert=one)
    services.alert_resolve(project_id=project.pk, key="k")
    services.alert_resolve(project_id=project.pk, key="k")
    assert raised().pk != one.pk and Alert.objects.get(pk=one.pk).resolved_at
    with pytest.raises(PermissionDenied):
        services.alert_acknowledge(actor=people["viewer"], alert=raised())


@pytest.mark.django_db(transaction=True)
def test_alert_opens_once_when_eight_raise_it_at_once(project) -> None:
    def work(index: int) -> Any:
        return services.alert_raise(project_id=project.pk, key="k", title="t").pk

    assert len(set(race(8, work))) == 1 and Alert.objects.count() == 1
