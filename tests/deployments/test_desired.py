"""What servers pull: the generation, the document, the long poll, the artifacts."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import time
from collections.abc import Iterator

import pytest
from django.db import connection, transaction
from django.test import AsyncClient, Client
from django.utils import timezone

from deployments import desired, services, serving_api
from deployments.models import Endpoint
from registry import storage
from registry.models import Artifact
from registry.signing import attest
from slipway.accounts import services as accounts
from slipway.accounts.models import Membership, Token, User
from tests.api.tools import problem
from tests.deployments.conftest import weights

STATE, SERVING = "/api/v1/serving/state", {"Authorization": "Bearer serving-token-of-the-tests"}


# The generation


@pytest.mark.django_db
def test_generation_rises_when_anything_changes_that_servers_see(project, people, endpoint, artifacts) -> None:
    other = services.candidate_add(actor=None, endpoint=endpoint, artifact=artifacts[1])
    stable = endpoint.deployments.get(weight=100)
    user, token = people["developer"], accounts.token_create(user=people["developer"], name="t")[0]

    def sql(text: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(text)

    changes = {
        "weights": lambda: services.weights_set(endpoint=endpoint, weights={stable.pk: 50, other.pk: 50}),
        "weights by hand": lambda: sql("UPDATE deployments_deployment SET weight = 100 - weight"),
        "back": lambda: services.weights_set(endpoint=endpoint, weights={stable.pk: 100}),
        "retire": lambda: services.deployment_move(deployment=type(other).objects.get(pk=other.pk), state="retired"),
        "signed anew": lambda: Artifact.objects.filter(pk=artifacts[0].pk).update(attestation={}),
        "access": lambda: Endpoint.objects.update(access="token"),
        "rename": lambda: Endpoint.objects.update(name="renamed"),
        "token": lambda: accounts.token_create(user=user, name="t"),
        "token scope": lambda: Token.objects.filter(pk=token.pk).update(scope="read"),
        "token expiry": lambda: Token.objects.filter(pk=token.pk).update(expires_at=timezone.now()),
        "token revoked": lambda: accounts.token_revoke(user=user, token_id=token.pk),
        "role": lambda: Membership.objects.filter(user=user).update(role="viewer"),
        "member": lambda: accounts.member_set(actor=None, project=project, user=people["stranger"], role="admin"),
        "member gone": lambda: Membership.objects.filter(user=user).delete(),
        "inactive": lambda: User.objects.filter(pk=user.pk).update(is_active=False),
        "superuser": lambda: User.objects.filter(pk=user.pk).update(is_superuser=True),
        "deleted": lambda: services.endpoint_delete(actor=people["operator"], endpoint=endpoint),
    }
    for name, change in changes.items():
        before = desired.generation()
        change()
        assert desired.generation() > before, name


@pytest.mark.django_db
def test_generation_stays_when_nothing_changes_for_servers(people, endpoint) -> None:
    _, text = accounts.token_create(user=people["developer"], name="t")
    before = desired.generation()
    from slipway.accounts.authentication import token_of

    token_of(text)
    Endpoint.objects.update(description="new")
    User.objects.update(last_login=timezone.now())
    assert desired.generation() == before


@pytest.mark.django_db
def test_generation_stays_when_the_change_rolls_back(endpoint) -> None:
    before = desired.generation()
    with pytest.raises(RuntimeError), transaction.atomic():
        Endpoint.objects.update(access="token")
        raise RuntimeError
    assert desired.generation() == before


# The document


@pytest.mark.django_db
def test_document_holds_what_is_desired_and_nothing_else_when_read(project, endpoint, artifacts) -> None:
    services.endpoint_create(actor=None, project=project, name="empty")
    other = services.candidate_add(actor=None, endpoint=endpoint, artifact=artifacts[1])
    gone = services.candidate_add(actor=None, endpoint=endpoint, artifact=artifacts[2])
    services.deployment_move(deployment=gone, state="retired")
    stable = endpoint.deployments.get(weight=100)
    assert desired.document() == {
        "generation": desired.generation(),
        "endpoints": [
            {
                "name": "digits",
                "access": "open",
                "tokens": [],
                "deployments": [
                    {
                        "id": str(row.pk), "version": version, "weight": weight, "mode": mode,
                        "artifact": {
                            "sha256": artifact.sha256, "format": "onnx", "size": 1000,
                            "signature": artifact.attestation,
                        },
                    }
                    for row, version, weight, mode, artifact in (
                        (stable, "1", 100, "live", artifacts[0]), (other, "2", 0, "warm", artifacts[1]),
                    )
                ],
            }
        ],
    }  # fmt: skip


@pytest.mark.django_db
def test_document_needs_few_queries_when_there_are_many_endpoints(
    project, artifacts, django_assert_num_queries
) -> None:
    for n in range(12):
        services.endpoint_create(actor=None, project=project, name=f"e{n}", access="open", artifact=artifacts[0])
    with django_assert_num_queries(3):
        assert len(desired.document()["endpoints"]) == 12


@pytest.mark.django_db
def test_document_lists_tokens_by_scope_role_expiry_and_person_when_protected(endpoint, people) -> None:
    soon, past = timezone.now() + dt.timedelta(hours=1), timezone.now() - dt.timedelta(seconds=1)
    robot = User.objects.create_user("inactive", is_active=False)
    Membership.objects.create(project=endpoint.project, user=robot, role="admin")
    people = {**people, "inactive": robot}
    made = {
        (who, scope, when): accounts.token_create(user=people[who], name="t", scope=scope, expires_at=at)[0].digest
        for who in people
        for scope in ("read", "write", "infer")
        for when, at in (("never", None), ("soon", soon), ("past", past))
    }
    Endpoint.objects.update(access="token")
    listed = desired.document()["endpoints"][0]["tokens"]
    expected = sorted(
        digest
        for (who, scope, when), digest in made.items()
        if who in {"developer", "operator", "admin", "root"} and scope != "read" and when != "past"
    )
    assert listed == expected and len(listed) == 16


# The door


@pytest.fixture
def fresh_watch(monkeypatch) -> Iterator[None]:
    """No generation of another test is remembered, and no connection of a thread is left."""
    monkeypatch.setattr(serving_api, "watch", serving_api._Watch())
    yield
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


@pytest.mark.django_db
@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic abc", "serving-token-of-the-tests"])
def test_state_is_401_when_token_is_wrong(header) -> None:
    answer = asyncio.run(AsyncClient().get(STATE, headers={"Authorization": header} if header else {}))
    problem(answer, 401, "not_authenticated")


@pytest.mark.django_db(transaction=True)
def test_state_answers_200_then_304_then_wakes_when_polled(fresh_watch, endpoint, artifacts) -> None:
    async def poll() -> None:
        client = AsyncClient()
        first = await client.get(STATE, headers=SERVING)
        assert first.status_code == 200 and first.headers["Content-Type"] == "application/json"
        tag = first.headers["ETag"]
        assert tag == f'"{first.json()["generation"]}"' and first.json()["endpoints"][0]["name"] == "digits"
        known = {**SERVING, "If-None-Match": tag}
        same = await client.get(STATE, headers=known)
        assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", tag)
        began = time.monotonic()
        same = await client.get(f"{STATE}?wait=0.6", headers=known)
        assert same.status_code == 304 and 0.5 < time.monotonic() - began < 5
        waiting = [asyncio.create_task(client.get(f"{STATE}?wait=20", headers=known)) for _ in range(5)]
        await asyncio.sleep(0.5)
        assert not any(task.done() for task in waiting)
        began = time.monotonic()
        await asyncio.to_thread(change)
        woken = await asyncio.gather(*waiting)
        assert time.monotonic() - began < 5
        for answer in woken:
            assert answer.status_code == 200 and answer.headers["ETag"] != tag
            assert len(answer.json()["endpoints"][0]["deployments"]) == 2
        stale = await client.get(f"{STATE}?wait=20", headers={**SERVING, "If-None-Match": '"1"'})
        assert stale.status_code == 200

    def change() -> None:
        services.candidate_add(actor=None, endpoint=endpoint, artifact=artifacts[1])
        connection.close()

    asyncio.run(poll())


@pytest.mark.django_db(transaction=True)
def test_state_answers_at_once_or_400_when_wait_is_odd(fresh_watch, endpoint) -> None:
    async def ask() -> list[int]:
        known = {**SERVING, "If-None-Match": f'"{current}"'}
        waits = ("abc", "nan", "-5", "", "\x00", "-inf")
        return [(await AsyncClient().get(STATE, {"wait": wait}, headers=known)).status_code for wait in waits]

    current = desired.generation()
    began = time.monotonic()
    assert asyncio.run(ask()) == [400, 400, 304, 400, 400, 304]
    assert time.monotonic() - began < 10


# The bytes


@pytest.fixture
def stored(artifacts, settings, tmp_path, monkeypatch) -> bytes:
    """The bytes of version 1's artifact, in the cache of this node."""
    monkeypatch.setenv("SLIPWAY_HOME", str(tmp_path))
    content = b"bytes of a model"
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    storage.cache_add(file, sha256=sha256)
    row = artifacts[0]
    row.sha256, row.size = sha256, len(content)
    row.attestation = attest(row.version, format="onnx", sha256=sha256, size=row.size, file_name=row.file_name)
    row.save()
    return content


@pytest.mark.django_db
def test_artifact_is_served_only_while_desired_when_asked(stored, endpoint, people) -> None:
    url = f"/api/v1/serving/artifacts/{hashlib.sha256(stored).hexdigest()}"
    answer = Client().get(url, headers=SERVING)
    assert answer.status_code == 200 and b"".join(answer.streaming_content) == stored
    problem(Client().get(url), 401)
    _, text = accounts.token_create(user=people["root"], name="t")
    problem(Client().get(url, headers={"Authorization": f"Bearer {text}"}), 401)
    assert weights(endpoint) == {1: 100}
    endpoint.deployments.update(state="retired", weight=0)
    problem(Client().get(url, headers=SERVING), 404)


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["x", "0" * 64, "a%00b", "..%2F..%2Fetc%2Fpasswd", "%F0%9F%98%80"])
def test_artifact_is_404_when_name_is_no_digest(name: str, endpoint) -> None:
    assert Client().get(f"/api/v1/serving/artifacts/{name}", headers=SERVING).status_code == 404


@pytest.mark.django_db
def test_artifact_is_refused_when_its_bytes_are_damaged(stored, endpoint, tmp_path) -> None:
    sha256 = hashlib.sha256(stored).hexdigest()
    cached = tmp_path / "cache" / sha256
    cached.chmod(0o644)
    cached.write_bytes(b"Bytes of a model")
    answer = Client().get(f"/api/v1/serving/artifacts/{sha256}", headers=SERVING)
    assert answer.status_code >= 400 and b"ytes of a model" not in answer.content
