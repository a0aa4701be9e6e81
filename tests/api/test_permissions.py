"""Every route × every persona, and the tokens."""

from __future__ import annotations

import datetime as dt
import json
import re
from typing import Any

import pytest
from django.db import transaction
from django.test import Client
from django.urls import URLPattern
from django.utils import timezone
from rest_framework.test import APIClient

from deployments import services as endpoints
from deployments.models import DesiredState, Server
from deployments.rollouts import rollout_start
from monitoring import services as monitors
from registry.models import Dataset, Environment
from registry.searches import search_request
from slipway.accounts.services import token_create, token_revoke
from slipway.api_urls import urlpatterns
from slipway.jobs.services import submit
from tests.api.tools import problem

pytestmark = pytest.mark.django_db
ROLES = ["viewer", "developer", "approver", "operator", "admin", "root"]
READ = set(ROLES)
WRITE = {"developer", "operator", "admin", "root"}
APPROVE = {"approver", "admin", "root"}
DEPLOY = {"operator", "admin", "root"}

# (method, path, body, who may, status for them). Paths name rows of `world`.
TABLE: list[tuple[str, str, Any, set[str], int]] = [
    ("GET", "models", None, READ, 200),
    ("POST", "models", {"project": "vision", "name": "new"}, WRITE, 201),
    ("GET", "models/{model}", None, READ, 200),
    ("PATCH", "models/{model}", {"description": "x"}, WRITE, 200),
    ("POST", "models/{model}/versions", {"artifact": "{sha256}"}, WRITE, 201),
    ("PUT", "models/{model}/aliases/champion", {"version": 1}, WRITE, 200),
    ("DELETE", "models/{model}/aliases/challenger", None, WRITE, 204),
    ("GET", "versions", None, READ, 200),
    ("GET", "versions/{version}", None, READ, 200),
    ("POST", "versions/{version}/decide", {"approve": True}, APPROVE, 200),
    ("POST", "versions/{version}/export", {"exporters": ["onnx"]}, WRITE, 202),
    ("GET", "versions/{version}/formats", None, READ, 200),
    ("GET", "versions/{version}/environment/{file}", None, READ, 200),
    ("POST", "versions/{version}/prepare", {"name": "pmml"}, WRITE, 202),
    ("POST", "versions/{version}/prepare", {"name": "base", "requirements": ["numpy"]}, WRITE, 202),
    ("GET", "environments", None, READ, 200),
    ("GET", "environments/{environment}", None, READ, 200),
    ("DELETE", "environments/{environment}", None, {"root"}, 204),
    ("GET", "artifacts", None, READ, 200),
    ("GET", "artifacts/{artifact}", None, READ, 200),
    ("GET", "artifacts/{folder}/content", None, READ, 409),
    ("POST", "artifacts/{artifact}/optimize", {"optimizer": "dynamic-quantization"}, WRITE, 202),
    ("POST", "artifacts/{artifact}/searches", {"goal": {"max_loss": 1}, "dataset": "{evaluation}"}, WRITE, 202),
    ("POST", "artifacts/{artifact}/measurements", {"measured": {}}, WRITE, 422),
    ("GET", "searches", None, READ, 200),
    ("GET", "searches/{search}", None, READ, 200),
    ("GET", "searches/{search}/trials", None, READ, 200),
    ("GET", "datasets", None, READ, 200),
    ("GET", "datasets/{dataset}", None, READ, 200),
    ("GET", "targets", None, READ, 200),
    ("GET", "targets/{target}", None, READ, 200),
    ("GET", "endpoints", None, READ, 200),
    ("POST", "endpoints", {"project": "vision", "name": "new"}, DEPLOY, 201),
    ("GET", "endpoints/{endpoint}", None, READ, 200),
    ("GET", "endpoints/{endpoint}/stats", None, READ, 200),
    ("DELETE", "endpoints/{empty}", None, DEPLOY, 204),
    ("POST", "endpoints/{empty}/place", {"artifact": "{artifact}"}, DEPLOY, 201),
    ("PUT", "endpoints/{quiet}/weights", {"weights": {"{quiet_deployment}": 100}}, DEPLOY, 200),
    ("GET", "rollouts", None, READ, 200),
    ("POST", "rollouts", {"endpoint": "{quiet}", "artifact": "{second}"}, DEPLOY, 201),
    ("GET", "rollouts/{rollout}", None, READ, 200),
    ("POST", "rollouts/{rollout}/pause", None, DEPLOY, 200),
    ("POST", "rollouts/{rollout}/resume", None, DEPLOY, 409),
    ("POST", "rollouts/{rollout}/promote", None, DEPLOY, 200),
    ("POST", "rollouts/{rollout}/full", None, DEPLOY, 200),
    ("POST", "rollouts/{rollout}/abort", None, DEPLOY, 200),
    ("POST", "rollouts/{rollout}/roll-back", None, DEPLOY, 200),
    ("GET", "servers", None, READ, 200),
    ("GET", "policies", None, READ, 200),
    ("POST", "policies", {"model": "{model}", "name": "new"}, WRITE, 201),
    ("GET", "policies/{policy}", None, READ, 200),
    ("PATCH", "policies/{policy}", {"enabled": False}, WRITE, 200),
    ("POST", "policies/{policy}/fire", None, WRITE, 202),
    ("POST", "policies/{policy}/secret", None, WRITE, 200),
    ("POST", "policies/{policy}/rotate", None, WRITE, 200),
    ("GET", "alerts", None, READ, 200),
    ("GET", "alerts/{alert}", None, READ, 200),
    ("POST", "alerts/{alert}/acknowledge", None, WRITE, 200),
    ("PATCH", "endpoints/{quiet}", {"settings": {"limits": {"concurrency": 4, "queue": 8}}}, DEPLOY, 200),
    ("GET", "tokens", None, READ, 200),
    ("GET", "jobs", None, READ, 200),
    ("GET", "jobs/{job}", None, READ, 200),
    ("GET", "jobs/{job}/log", None, READ, 200),
    ("POST", "jobs/{job}/cancel", None, WRITE, 200),
    ("POST", "jobs/{ended}/retry", None, WRITE, 202),
]
# In a body a foreign id is a field that is wrong, not a page that is not there.
SHARED = {"GET servers"}  # processes serve all projects: a stranger sees them, and nothing of ours on them
INSTALLATION = "environments"  # belong to no project
BY_BODY = {"POST rollouts": "endpoint", "POST policies": "model", "POST models": "project"}


@pytest.fixture
def world(people, project, model, new_version) -> dict[str, Any]:
    """One row of everything."""
    from registry import services as registry

    DesiredState.objects.get_or_create(pk=1)
    one, two = new_version(), new_version()
    first, second = one.artifacts.get(), two.artifacts.get()
    folder = type(first).objects.create(
        version=one, format="source", sha256="f" * 64, size=1, file_name="model", uri="x", manifest=[{"path": "a"}]
    )
    registry.alias_set(actor=None, model=model, name="challenger", version=one)
    busy = endpoints.endpoint_create(actor=None, project=project, name="busy", artifact=first)
    quiet = endpoints.endpoint_create(actor=None, project=project, name="quiet", artifact=first)
    empty = endpoints.endpoint_create(actor=None, project=project, name="empty")
    rollout = rollout_start(actor=None, endpoint=busy, artifact=second)
    later = timezone.now() + dt.timedelta(hours=1)
    Server.objects.create(instance="s", seen_at=later, deployments={str(rollout.candidate_id): {"state": "ready"}})
    rows = {"project": project, "role": "evaluation", "sha256": "e" * 64, "size": 1, "file_name": "e.csv", "uri": "x"}
    evaluation = Dataset.objects.create(name="e", **rows)
    params = {"version_id": one.pk}
    ended = submit("ingest", project=project, params=params)
    type(ended).objects.filter(pk=ended.pk).update(state="failed", finished_at=timezone.now())
    return {
        "model": model.pk, "version": one.pk, "artifact": first.pk, "sha256": first.sha256, "second": second.pk,
        "folder": folder.pk, "endpoint": busy.pk, "quiet": quiet.pk, "empty": empty.pk, "target": busy.target_id,
        "quiet_deployment": quiet.deployments.get().pk, "rollout": rollout.pk,
        "policy": monitors.policy_create(actor=None, model=model, name="nightly").pk,
        "alert": monitors.alert_raise(project_id=project.pk, key="k", title="t").pk,
        "token": token_create(user=people["root"], name="old")[0].pk,
        "environment": Environment.objects.create(name="pmml", digest="e", state="ready").pk, "file": "Dockerfile",
        "evaluation": evaluation.pk,
        "search": search_request(actor=None, artifact=first, goal={}, dataset=evaluation).pk,
        "job": submit("ingest", project=project, params=params).pk, "ended": ended.pk,
        "dataset": Dataset.objects.create(
            project=project, name="d", role="training", sha256="d" * 64, size=1, file_name="d.csv", uri="x"
        ).pk,
    }  # fmt: skip


def filled(value: Any, world: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        return {filled(key, world): filled(entry, world) for key, entry in value.items()}
    if isinstance(value, list):
        return [filled(entry, world) for entry in value]
    if isinstance(value, str) and (name := re.fullmatch(r"\{(\w+)\}", value)):
        found = world[name[1]]
        return found if name[1] != "quiet_deployment" else str(found)
    return value


def call(api: APIClient, row: tuple[str, str, Any, set[str], int], world: dict[str, Any], **more: Any) -> Any:
    method, path, body, *_ = row
    return api.generic(
        method,
        "/api/v1/" + path.format(**world),
        *([] if body is None else [json.dumps(filled(body, world))]),
        content_type="application/json",
        headers={"If-Match": "*"},
        **more,
    )


def name_of(row: tuple[Any, ...]) -> str:
    return f"{row[0]} {row[1]}"


def checked(row: tuple[str, str, Any, set[str], int], who: str, answer: Any) -> None:
    _, path, _, allowed, status = row
    if who == "anonymous":
        problem(answer, 401)
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    elif who == "stranger":
        if field := BY_BODY.get(name_of(row)):
            problem(answer, 422, field=field)
        elif path.startswith(INSTALLATION):
            assert answer.status_code == (403 if row[0] == "DELETE" else 200)
        elif name_of(row) in SHARED:
            assert answer.status_code == 200 and [one["deployments"] for one in answer.json()["results"]] == [[]]
        elif "{" in path or name_of(row) == "POST endpoints":
            problem(answer, 404)
        else:
            assert answer.status_code == 200 and answer.json()["results"] == [], answer.content
    elif who in allowed:
        assert answer.status_code == status, answer.content[:300]
    else:
        problem(answer, 403, None if path.startswith(INSTALLATION) else "permission_denied")


def test_every_route_answers_every_persona_as_the_policy_says_when_called(world, as_user) -> None:
    wrong = []
    for row in TABLE:
        for who in [*ROLES, "stranger", "anonymous"]:
            with transaction.atomic():  # each call finds the same world
                answer = call(as_user(who), row, world)
                transaction.set_rollback(True)
            try:
                checked(row, who, answer)
            except AssertionError as error:
                wrong.append((name_of(row), who, str(error)))
    assert not wrong


def test_table_holds_every_route_when_compared_with_the_urls() -> None:
    """A new route without a row here fails."""
    listed = {(method, re.sub(r"\{\w+\}", "N", path)) for method, path, *_ in TABLE}
    elsewhere = {
        ("GET", "serving/state"), ("GET", "serving/artifacts/N"), ("POST", "serving/report"), ("POST", "hooks/N"),
        ("POST", "versions/upload"), ("POST", "tokens"), ("GET", "tokens/N"), ("PATCH", "tokens/N"),
        ("DELETE", "tokens/N"),  # only their owner: tests/accounts/test_quotas.py
    }  # fmt: skip
    found = set()
    for pattern in urlpatterns:
        assert isinstance(pattern, URLPattern)
        path = str(pattern.pattern).removeprefix("^").removesuffix("$").removesuffix("\\Z").replace("\\", "")
        path = path.replace("(?P<alias>[a-z][a-z0-9_-]{0,31})", "champion")
        path = re.sub(r"\(\?P<\w+>[^)]*\)|<\w+:\w+>", "N", path)
        actions = getattr(pattern.callback, "actions", None)
        methods = [name.upper() for name in actions] if actions else []
        if not actions:
            view = getattr(pattern.callback, "cls", None)
            methods = [name.upper() for name in ("get", "post") if hasattr(view, name)] or ["GET"]
        found |= {(method, path) for method in methods if method != "HEAD"}
    listed |= {("PUT", "models/N/aliases/champion"), ("DELETE", "models/N/aliases/champion")}
    listed -= {("DELETE", "models/N/aliases/challenger")}
    assert found == listed | elsewhere


@pytest.mark.parametrize("scope", ["read", "write", "infer"])
def test_token_does_only_what_its_scope_says_when_used(scope: str, world, people) -> None:
    _, text = token_create(user=people["admin"], name="t", scope=scope)
    api, wrong = APIClient(headers={"Authorization": f"Bearer {text}"}), []
    for row in TABLE:
        with transaction.atomic():
            answer = call(api, row, world)
            transaction.set_rollback(True)
        may = "admin" in row[3] and (scope == "write" or (scope == "read" and row[0] == "GET"))
        if answer.status_code != (row[-1] if may else 403):
            wrong.append((name_of(row), answer.status_code, answer.content[:200]))
    assert not wrong


@pytest.mark.parametrize("case", ["expired", "revoked", "inactive", "unknown"])
def test_token_is_401_when(case: str, people) -> None:
    user = people["developer"]
    at = timezone.now() - dt.timedelta(seconds=1) if case == "expired" else None
    token, text = token_create(user=user, name="t", expires_at=at)
    if case == "revoked":
        token_revoke(user=user, token_id=token.pk)
    if case == "inactive":
        type(user).objects.filter(pk=user.pk).update(is_active=False)
    if case == "unknown":
        text += "x"
    problem(APIClient(headers={"Authorization": f"Bearer {text}"}).get("/api/v1/models"), 401)


def test_upload_is_refused_when_role_or_token_does_not_allow_it(as_user, people, project) -> None:
    url = "/api/v1/versions/upload?model=m&project=vision"
    for who, status in (("viewer", 403), ("approver", 403), ("stranger", 404), ("anonymous", 401)):
        problem(as_user(who).post(url, b"x", content_type="application/octet-stream"), status)
    for scope in ("read", "infer"):
        _, text = token_create(user=people["admin"], name="t", scope=scope)
        api = APIClient(headers={"Authorization": f"Bearer {text}"})
        problem(api.post(url, b"x", content_type="application/octet-stream"), 403)


def test_servers_routes_need_the_serving_token_when_called(as_user, people) -> None:
    for who in ("root", "anonymous"):
        problem(as_user(who).post("/api/v1/serving/report", {}), 401)
        problem(as_user(who).get(f"/api/v1/serving/artifacts/{'0' * 64}"), 401)
    assert as_user("root").get("/api/v1/serving/state").status_code == 401


def test_session_needs_a_csrf_token_when_it_changes_something(browser_as, project) -> None:
    web = Client(enforce_csrf_checks=True)
    web.cookies = browser_as("developer").cookies
    assert web.get("/api/v1/models").status_code == 200
    body = {"project": "vision", "name": "x"}
    problem(web.post("/api/v1/models", body, content_type="application/json"), 403)
