"""The policy table, tokens, and the first start."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.management import call_command
from django.db import IntegrityError, transaction
from django.utils import timezone
from rest_framework.test import APIClient

from slipway import paths
from slipway.accounts import policy, services
from slipway.accounts.authentication import bearer, is_serving, token_of
from slipway.accounts.models import Membership, Project, Role, Token, User, token_digest
from slipway.api.problems import Problem
from tests.api.tools import problem

pytestmark = pytest.mark.django_db

ACTIONS = [policy.VIEW, policy.WRITE, policy.APPROVE, policy.DEPLOY, policy.INFER, policy.ADMIN]
# One row a persona: view write approve deploy infer admin
TABLE = {
    "viewer": "100000",
    "developer": "110010",
    "approver": "101000",
    "operator": "110110",
    "admin": "111111",
    "root": "111111",
    "stranger": "000000",
}


@pytest.mark.parametrize(("who", "row"), TABLE.items())
def test_policy_allows_what_the_table_says_when_asked_as(who: str, row: str, people, project) -> None:
    for action, expected in zip(ACTIONS, row, strict=True):
        assert policy.allows(people[who], action, project) is (expected == "1"), action
        if expected == "0":
            with pytest.raises(PermissionDenied):
                policy.require(people[who], action, project.pk)


def test_every_role_has_a_row_when_policy_is_asked() -> None:
    assert set(policy.ALLOWED) == set(Role.values)


def test_project_is_seen_by_members_and_superusers_when_listed(people, project) -> None:
    for who in TABLE:
        assert (project in policy.projects_of(people[who])) is (who != "stranger")
    from django.contrib.auth.models import AnonymousUser

    assert not policy.projects_of(AnonymousUser()).exists()
    assert not policy.visible(AnonymousUser(), Project.objects.all()).exists()
    assert not policy.allows(AnonymousUser(), policy.VIEW, project)


@pytest.mark.parametrize(
    ("scope", "allowed"),
    [
        ("read", {policy.VIEW}),
        ("infer", {policy.INFER}),
        ("write", set(ACTIONS)),
    ],
)
def test_token_never_gives_more_than_its_scope_when_its_user_may_do_all(scope, allowed, people, project) -> None:
    _, text = services.token_create(user=people["admin"], name="t", scope=scope)
    user = token_of(text).user
    user.used_token = token_of(text)
    assert {action for action in ACTIONS if policy.allows(user, action, project)} == allowed


def test_token_never_gives_more_than_its_user_when_scope_is_write(people, project) -> None:
    _, text = services.token_create(user=people["viewer"], name="t", scope="write")
    user = token_of(text).user
    user.used_token = token_of(text)
    assert [action for action in ACTIONS if policy.allows(user, action, project)] == [policy.VIEW]


def test_token_text_is_not_stored_when_made(people) -> None:
    token, text = services.token_create(user=people["viewer"], name="ci")
    stored = list(Token.objects.filter(pk=token.pk).values().get().values())
    assert text.startswith("slip_") and len(text) > 40
    assert not any(isinstance(value, str) and text in value for value in stored)
    assert token.digest == token_digest(text) and text.startswith(token.prefix)


@pytest.mark.parametrize("case", ["expired", "revoked", "inactive", "unknown", "empty"])
def test_token_is_nobody_when(case: str, people) -> None:
    user = people["developer"]
    past = timezone.now() - dt.timedelta(seconds=1)
    token, text = services.token_create(user=user, name="t", expires_at=past if case == "expired" else None)
    if case == "revoked":
        services.token_revoke(user=user, token_id=token.pk)
    elif case == "inactive":
        User.objects.filter(pk=user.pk).update(is_active=False)
    elif case in {"unknown", "empty"}:
        text = "" if case == "empty" else text + "x"
    assert token_of(text) is None


def test_token_of_another_is_404_when_revoked(people) -> None:
    token, _ = services.token_create(user=people["developer"], name="t")
    with pytest.raises(Problem) as refused:
        services.token_revoke(user=people["admin"], token_id=token.pk)
    assert refused.value.status == 404 and Token.objects.filter(pk=token.pk).exists()


def test_last_use_is_noted_once_a_minute_when_token_is_used(people) -> None:
    token, text = services.token_create(user=people["developer"], name="t")
    token_of(text)
    first = Token.objects.get(pk=token.pk).last_used_at
    token_of(text)
    assert first and Token.objects.get(pk=token.pk).last_used_at == first


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Bearer abc", "abc"), ("bearer  abc ", "abc"), (b"Bearer abc", "abc"), ("Basic abc", None), ("Bearer", None),
        ("", None), ("Bearer ", None), (b"Bearer \xff\xfe", "\xff\xfe"),
    ],
)  # fmt: skip
def test_bearer_reads_header_when(header, expected) -> None:
    assert bearer(header) == expected


def test_serving_token_is_compared_whole_when_asked() -> None:
    assert is_serving("Bearer serving-token-of-the-tests")
    for wrong in ("Bearer serving-token-of-the-test", "serving-token-of-the-tests", "", "Bearer \xff", "Bearer é"):
        assert not is_serving(wrong)


def test_unknown_scope_or_role_is_refused_when_given(people, project) -> None:
    with pytest.raises(Problem):
        services.token_create(user=people["viewer"], name="t", scope="root")
    with pytest.raises(Problem):
        services.member_set(actor=people["admin"], project=project, user=people["stranger"], role="owner")
    for table, values in (
        (Token, {"user": people["viewer"], "digest": "0" * 64, "prefix": "x", "scope": "root"}),
        (Token, {"user": people["viewer"], "digest": "Z" * 64, "prefix": "x", "scope": "read"}),
        (Membership, {"project": project, "user": people["stranger"], "role": "owner"}),
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            table.objects.create(**values)


@pytest.mark.parametrize("who", [name for name in TABLE if name not in {"admin", "root"}])
def test_member_set_is_refused_when_role_is(who: str, people, project) -> None:
    with pytest.raises(PermissionDenied):
        services.member_set(actor=people[who], project=project, user=people["stranger"], role="admin")


def test_member_has_one_role_when_set_twice(people, project) -> None:
    for role in ("viewer", "operator"):
        services.member_set(actor=people["admin"], project=project, user=people["stranger"], role=role)
    assert Membership.objects.get(project=project, user=people["stranger"]).role == "operator"


@pytest.mark.parametrize("slug", ["", "Über", "a" * 64, "a b", "../x", "-a", "a\x00b"])
def test_project_is_refused_when_slug_is_bad(slug: str, people) -> None:
    with pytest.raises(ValidationError):
        services.project_create(actor=people["viewer"], slug=slug, name="x")
    assert not Project.objects.exclude(slug__in=["vision", "other"]).exists()


def test_creator_is_admin_when_project_is_made(people) -> None:
    made = services.project_create(actor=people["viewer"], slug="new", name="")
    assert (made.name, Membership.objects.get(project=made).role) == ("new", "admin")


def test_bootstrap_changes_nothing_when_repeated(db, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SLIPWAY_HOME", str(tmp_path))
    states = []
    for _ in range(3):
        call_command("bootstrap")
        text = paths.admin_token().read_text()
        admin = User.objects.get(username="admin")
        states.append((text, admin.password, admin.pk, Project.objects.get(slug="default").pk, Token.objects.count()))
    assert len(set(states)) == 1 and states[0][-1] == 1
    assert paths.admin_token().stat().st_mode & 0o777 == 0o600
    assert token_of(text.strip()).user == admin and admin.is_superuser
    assert Membership.objects.get(project__slug="default").role == "admin"


def test_bootstrap_mends_what_is_missing_when_token_was_revoked(db, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SLIPWAY_HOME", str(tmp_path))
    call_command("bootstrap")
    Token.objects.all().delete()
    call_command("bootstrap")
    assert token_of(paths.admin_token().read_text().strip()) is not None


def test_roles_differ_in_more_than_name_when_compared() -> None:
    for one, other in itertools.combinations(Role.values, 2):
        assert policy.ALLOWED[one] != policy.ALLOWED[other]


# Quotas, and tokens over the API


def test_token_is_made_listed_and_revoked_over_the_api(people, as_user) -> None:
    client = as_user("viewer")
    made = client.post("/api/v1/tokens", {"name": "app", "scope": "infer", "rate": 2.5}, format="json")
    row = made.json()
    assert made.status_code == 201 and (row["rate"], row["burst"]) == (2.5, 3)
    assert Token.objects.get(pk=row["id"]).digest == token_digest(row.pop("token"))
    assert client.get("/api/v1/tokens").json()["results"] == [row]
    assert as_user("root").get("/api/v1/tokens").json()["results"] == []
    assert as_user("root").delete(f"/api/v1/tokens/{row['id']}").status_code == 404
    assert client.delete(f"/api/v1/tokens/{row['id']}").status_code == 204 and not Token.objects.exists()
    assert as_user("anonymous").post("/api/v1/tokens", {"name": "x"}).status_code == 401


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"rate": 0}, "rate"), ({"rate": "nan"}, "rate"), ({"rate": "inf"}, "rate"), ({"rate": 1e7}, "rate"),
        ({"rate": 1, "burst": 0}, "burst"), ({"rate": 1, "burst": 1.5}, "burst"), ({"burst": 5}, "burst"),
        ({"expires_at": "2001-01-01T00:00:00Z"}, "expires_at"), ({"scope": "all"}, "scope"), ({"name": ""}, "name"),
    ],
)  # fmt: skip
def test_token_is_422_when_asked_for_with(change, field, as_user) -> None:
    answer = as_user("viewer").post("/api/v1/tokens", {"name": "app", **change}, format="json")
    problem(answer, 422, field=field)


@pytest.mark.parametrize(
    "change",
    [{"rate": 5}, {"burst": 5}, {"rate": 0, "burst": 1}, {"rate": float("nan"), "burst": 1}, {"rate": 5, "burst": 0}],
)
def test_database_refuses_when_quota_is_inconsistent(change, people) -> None:
    services.token_create(user=people["viewer"], name="t")
    with pytest.raises(IntegrityError), transaction.atomic():
        Token.objects.update(**change)


def test_token_makes_only_tokens_that_can_do_no_more_when_used(people) -> None:
    later = timezone.now() + dt.timedelta(days=1)
    _, text = services.token_create(user=people["developer"], name="t", expires_at=later)
    api = APIClient(headers={"Authorization": f"Bearer {text}"})

    def make(**given: Any) -> Any:
        return api.post("/api/v1/tokens", {"name": "child", "expires_at": later.isoformat(), **given}, format="json")

    assert make(rate=10, burst=20).status_code == 201
    problem(make(rate=10, expires_at=None), 422, field="expires_at")
    problem(make(rate=10, expires_at=(later + dt.timedelta(1)).isoformat()), 422, field="expires_at")
