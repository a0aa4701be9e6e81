"""The quota of a token that is there: changed over the API and the page, told in the audit log."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from rest_framework.test import APIClient

from deployments import desired
from deployments.models import DesiredState
from slipway.accounts import services as accounts
from slipway.accounts.models import Membership, Token
from slipway.audit.models import Entry
from tests.api.tools import problem

pytestmark = pytest.mark.django_db


@pytest.fixture
def token(people: dict[str, Any]) -> Token:
    return accounts.token_create(user=people["developer"], name="app", scope="infer", rate=5, burst=10)[0]


def patch(client: Any, token: Token, body: Any, match: str | None = "*") -> Any:
    headers = {"If-Match": match} if match else {}
    return client.patch(f"/api/v1/tokens/{token.pk}", body, format="json", headers=headers)


def test_quota_is_changed_when_the_etag_fits(token: Token, as_user: Any) -> None:
    client = as_user("developer")
    read = client.get(f"/api/v1/tokens/{token.pk}")
    assert read.headers["ETag"] == '"1"' and "token" not in read.json()
    answer = patch(client, token, {"rate": 50}, '"1"')
    assert (answer.json()["rate"], answer.json()["burst"], answer.headers["ETag"]) == (50, 10, '"2"')
    problem(patch(client, token, {"rate": 9}, '"1"'), 412)
    problem(patch(client, token, {"rate": 9}, None), 428)
    assert patch(client, token, {"burst": None}).json()["burst"] == 50  # those of one second
    assert patch(client, token, {"rate": None}).json()["rate"] is None
    assert patch(client, token, {"rate": 2.5}).json()["burst"] == 3
    assert Token.objects.get().digest == token.digest


def test_nothing_is_told_when_the_quota_is_the_same(token: Token, as_user: Any) -> None:
    DesiredState.objects.get_or_create(pk=1)
    before = desired.generation()
    assert patch(as_user("developer"), token, {"rate": 5, "burst": 10}).headers["ETag"] == '"1"'
    assert desired.generation() == before and not Entry.objects.filter(action="token.quota").exists()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"rate": 0}, "rate"), ({"rate": "nan"}, "rate"), ({"burst": 0}, "burst"), ({"burst": 1.5}, "burst"),
        ({"rate": None, "burst": 5}, "burst"),
    ],
)  # fmt: skip
def test_quota_is_422_when_changed_to(change: dict[str, Any], field: str, token: Token, as_user: Any) -> None:
    problem(patch(as_user("developer"), token, change), 422, field=field)


def test_quota_is_its_owners_when_others_try(token: Token, as_user: Any) -> None:
    for who in ("viewer", "admin", "root", "stranger"):
        problem(patch(as_user(who), token, {"rate": 1}), 404)
        problem(as_user(who).get(f"/api/v1/tokens/{token.pk}"), 404)
        assert as_user(who).get("/api/v1/tokens").json()["results"] == []
    problem(patch(as_user("anonymous"), token, {"rate": 1}), 401)
    assert Token.objects.get().rate == 5


def test_token_changes_no_quotas_when_it_has_one_or_may_only_read(people: dict[str, Any]) -> None:
    row, text = accounts.token_create(user=people["developer"], name="t", rate=5, burst=10)
    free = accounts.token_create(user=people["developer"], name="free")[0]
    client = APIClient(headers={"Authorization": f"Bearer {text}"})
    for token in (row, free):
        for given in ({"rate": 6}, {"rate": 4}, {"rate": None}):
            problem(patch(client, token, given), 422, field="rate")
    # Nor does it make others: a hundred smaller ones would be a larger one.
    problem(client.post("/api/v1/tokens", {"name": "child", "rate": 1}, format="json"), 422, field="rate")
    assert list(Token.objects.order_by("pk").values_list("rate", flat=True)) == [5, None]
    read = APIClient(
        headers={
            "Authorization": f"Bearer {accounts.token_create(user=people['developer'], name='r', scope='read')[1]}"
        }
    )
    problem(patch(read, row, {"rate": 1}), 403)


def test_quota_is_changed_on_its_page_when_it_did_not_change_meanwhile(token: Token, browser_as: Any) -> None:
    browser, address = browser_as("developer"), f"/settings/tokens/{token.pk}/quota/"
    assert 'value="5' in browser.get(address).content.decode()
    done = browser.post(address, {"rate": "20", "burst": "", "revision": "1"}, follow=True).content.decode()
    assert "The quota is changed." in done and "20/s, 20 at once" in done
    stale = browser.post(address, {"rate": "30", "burst": "", "revision": "1"})
    assert stale.status_code == 422 and "changed since you looked" in stale.content.decode()
    wrong = browser.post(address, {"rate": "", "burst": "5", "revision": "2"})
    assert wrong.status_code == 422 and "A burst needs" in wrong.content.decode()
    assert "none" in browser.post(address, {"rate": "", "burst": "", "revision": "2"}, follow=True).content.decode()
    assert browser_as("admin").get(address).status_code == 404
    assert Token.objects.get().rate is None


# The audit log


def test_log_tells_of_tokens_when_made_changed_and_revoked(token: Token, as_user: Any, people: dict[str, Any]) -> None:
    patch(as_user("developer"), token, {"rate": 1})
    as_user("developer").delete(f"/api/v1/tokens/{token.pk}")
    rows = Entry.objects.filter(object_type="token", object_id=str(token.pk)).order_by("id")
    assert [(row.action, row.actor_name, row.project_id) for row in rows] == [
        ("token.create", "developer", None), ("token.quota", "developer", None), ("token.revoke", "developer", None),
    ]  # fmt: skip
    assert rows[0].data["scope"] == "infer" and rows[0].data["rate"] == 5
    assert (rows[1].data["before"], rows[1].data["rate"]) == ({"rate": 5, "burst": 10}, 1)
    assert not any(token.digest in str(row.data) for row in rows)


def test_log_tells_of_roles_when_given_changed_and_kept(people: dict[str, Any], project: Any) -> None:
    for role in ("viewer", "viewer", "operator"):
        accounts.member_set(actor=people["admin"], project=project, user=people["stranger"], role=role)
    rows = Entry.objects.filter(action="member.set", project=project).order_by("id")
    assert [(row.data["name"], row.data["before"], row.data["role"]) for row in rows] == [
        ("stranger", None, "viewer"), ("stranger", "viewer", "operator"),
    ]  # fmt: skip
    made = accounts.project_create(actor=people["viewer"], slug="new", name="")
    assert Entry.objects.get(project=made).action == "project.create"


def test_log_tells_what_the_admin_console_does(token: Token, people: dict[str, Any], project: Any) -> None:
    console = Client()
    console.force_login(people["root"])
    members = list(Membership.objects.filter(project=project).order_by("pk"))
    form: dict[str, Any] = {"slug": project.slug, "name": "Vision"}
    form |= {"memberships-TOTAL_FORMS": len(members) + 1, "memberships-INITIAL_FORMS": len(members)}
    for n, member in enumerate(members):
        form |= {f"memberships-{n}-{key}": getattr(member, key) for key in ("id", "user_id", "role")}
        form |= {f"memberships-{n}-user": member.user_id, f"memberships-{n}-project": project.pk}
    form |= {"memberships-0-role": "operator", "memberships-1-DELETE": "on"}
    last = len(members)
    form |= {f"memberships-{last}-user": people["stranger"].pk, f"memberships-{last}-role": "viewer"}
    answer = console.post(f"/admin/accounts/project/{project.pk}/change/", form)
    assert answer.status_code == 302, answer.content
    told = {(e.action, e.data["name"], e.data["before"], e.data["role"]) for e in Entry.objects.filter(project=project)}
    assert told == {
        ("member.set", members[0].user.username, members[0].role, "operator"),
        ("member.remove", members[1].user.username, members[1].role, None),
        ("member.set", "stranger", None, "viewer"),
    }
    console.post(f"/admin/accounts/token/{token.pk}/delete/", {"post": "yes"})
    entry = Entry.objects.get(action="token.revoke")
    assert (entry.actor_name, entry.data["user"]) == ("root", "developer") and not Token.objects.exists()
