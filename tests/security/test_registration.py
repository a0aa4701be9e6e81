"""Registered models in MLflow and the borders of projects."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser

from registry.intake import version_from_mlflow
from registry.mlflow import access, door, ownership
from registry.mlflow.access import Credential, Verdict, Verdicts
from registry.models import Model, Origin, Version
from slipway.accounts import policy
from slipway.accounts.models import Membership, Project, Role, User
from slipway.accounts.services import token_create
from slipway.api.problems import Conflict

API = "/api/2.0/mlflow/"
BOB = Verdict("bob", read=True, write=True, admin=False, until=0, projects=frozenset({"his"}), home="his")
ROOT = Verdict("root", read=True, write=True, admin=True, until=0, projects=None)
OWNERS = {"theirs": "other", "mine": "his"}
SOURCE = "models:/m-1"


def judge(call: str, body: Any, verdict: Verdict = BOB) -> dict[str, Any]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    ownership.names_in(content)
    return json.loads(ownership.judged(API + call, content, verdict, OWNERS))


def tag(slug: str) -> dict[str, str]:
    return {"key": ownership.TAG, "value": slug}


@pytest.mark.parametrize(
    ("call", "body"),
    [
        ("model-versions/create", {"name": "theirs", "source": SOURCE}),
        ("model-versions/create", {"name": "new", "source": SOURCE, "tags": [tag("other")]}),
        ("model-versions/create", {"name": "new", "source": SOURCE, "tags": [tag("his"), tag("other")]}),
        ("model-versions/create", json.dumps({"name": "theirs", "source": SOURCE})),  # twice encoded
        ("model-versions/set-tag", {"name": "mine", "version": "1", **tag("other")}),
        ("model-versions/delete-tag", {"name": "mine", "version": "1", "key": ownership.TAG}),
        ("model-versions/delete", {"name": "theirs", "version": "1"}),
        ("registered-models/rename", {"name": "mine", "new_name": "theirs"}),
        ("registered-models/rename", {"name": "mine", "newName": "theirs"}),
        ("registered-models/alias", {"name": "theirs", "alias": "champion", "version": "1"}),
        ("registered-models/delete", {"name": "theirs"}),
    ],
)
def test_change_is_denied_when_it_reaches_another_project(call: str, body: Any) -> None:
    with pytest.raises(ownership.Denied) as denied:
        judge(call, body)
    assert denied.value.status == 403
    judge(call, body, ROOT)


@pytest.mark.parametrize(
    "source",
    [
        "s3://somebodys/bucket",
        "http://169.254.169.254/x",
        "file:///etc",
        "/etc",
        "mlflow-artifacts://host:1/x",
        "dbfs:/x",
    ],
)
def test_version_is_denied_when_its_source_is_elsewhere(source: str) -> None:
    with pytest.raises(ownership.Denied) as denied:
        judge("model-versions/create", {"name": "mine", "source": source}, ROOT)
    assert denied.value.status == 400


@pytest.mark.parametrize(
    "source", ["runs:/abc/model", "models:/m-1", "models:/mine/3", "mlflow-artifacts:/1/abc/model"]
)
def test_version_passes_when_its_source_is_in_the_store(source: str) -> None:
    judge("model-versions/create", {"name": "mine", "source": source})


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"name": "mine", "name": "theirs"}', b"[" * 100_000])
def test_change_is_denied_when_its_body_cannot_be_judged(body: bytes) -> None:
    with pytest.raises(ownership.Denied) as denied:
        judge("model-versions/create", body)
    assert denied.value.status == 400


def test_version_goes_to_a_project_of_its_maker_when_it_names_none() -> None:
    assert judge("model-versions/create", {"name": "new", "source": SOURCE})["tags"] == [tag("his")]
    assert "tags" not in judge("model-versions/create", {"name": "mine", "source": SOURCE})
    assert "tags" not in judge("model-versions/create", {"name": "new", "source": SOURCE}, ROOT)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/api/2.0/mlflow/model-versions/create", True),
        ("POST", "/ajax-api/2.0/mlflow//model-versions/create", True),
        ("DELETE", "/api/2.0/mlflow/registered-models/alias", True),
        ("GET", "/api/2.0/mlflow/model-versions/search", False),
        ("POST", "/api/2.0/mlflow/runs/create", False),
    ],
)
def test_body_is_looked_at_when_a_registered_model_changes(method: str, path: str, expected: bool) -> None:
    assert ownership.concerns(method, path) is expected


def test_verdict_names_the_projects_when_a_user_writes_in_some(
    people: dict[str, User], project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "close_old_connections", lambda: None)  # the test's own would be closed
    third = Project.objects.create(slug="third", name="Third")
    Membership.objects.create(project=third, user=people["stranger"], role=Role.VIEWER)

    def verdict(name: str, scope: str = "write") -> Verdict:
        _row, text = token_create(user=people[name], name="t", scope=scope)
        found = Verdicts().look_up(Credential("token", text))
        assert found is not None
        return found

    assert verdict("developer").projects == {"vision"} and verdict("developer").home == ""
    assert verdict("stranger").projects == {"other"} and verdict("stranger").home == "other"
    assert verdict("viewer").projects == frozenset()
    assert verdict("root").projects is None
    infer = verdict("developer", "infer")
    assert not infer.read and not infer.write


def test_token_sees_nothing_when_it_may_only_call_endpoints(people: dict[str, User], project: Project) -> None:
    user = people["admin"]
    user.used_token, _text = token_create(user=user, name="t", scope="infer")  # type: ignore[attr-defined]
    assert policy.allows(user, policy.INFER, project)
    assert not policy.allows(user, policy.VIEW, project)
    assert not policy.allows(AnonymousUser(), policy.VIEW, project)


def test_retraining_is_refused_when_the_name_is_another_projects(
    people: dict[str, User], project: Project, new_version: Callable[..., Version]
) -> None:
    other = Project.objects.get(slug="other")
    Model.objects.create(project=other, name="digits", mlflow_name="digits")
    values = {"mlflow_name": "digits", "mlflow_version": 1, "source": SOURCE, "run_id": ""}
    with pytest.raises(Conflict):
        version_from_mlflow(project=project, origin=Origin.RETRAINING, **values)
    assert not Version.objects.filter(model__project=other).exists()


ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/"


@pytest.mark.parametrize(
    ("method", "path", "query", "expected"),
    [
        ("PUT", ARTIFACTS + "4/abc/artifacts/project/train.py", b"", ownership.Place(run="abc")),
        ("DELETE", ARTIFACTS + "4//./abc/artifacts/x", b"", ownership.Place(run="abc")),
        ("PUT", ARTIFACTS + "4/%61bc/artifacts/x", b"", ownership.Place(run="abc")),
        ("POST", "/api/2.0/mlflow-artifacts/mpu/create/4/abc/artifacts/x", b"", ownership.Place(run="abc")),
        ("PUT", ARTIFACTS + "4/models/m-1/artifacts/x", b"", ownership.Place(model="m-1", experiment="4")),
        ("POST", "/ajax-api/2.0/mlflow/upload-artifact", b"run_uuid=abc&path=x", ownership.Place(run="abc")),
        ("GET", ARTIFACTS + "4/abc/artifacts/x", b"", None),
        ("POST", "/api/2.0/mlflow/runs/create", b"", None),
    ],
)
def test_place_is_found_when_files_change(
    method: str, path: str, query: bytes, expected: ownership.Place | None
) -> None:
    assert ownership.place_of(method, path, query) == expected


@pytest.mark.parametrize("path", ["", "4", "4/abc", "4//", "%34/abc/."])
def test_whole_experiments_are_denied_when_files_are_deleted(path: str) -> None:
    with pytest.raises(ownership.Denied):
        ownership.place_of("DELETE", ARTIFACTS + path, b"")


def test_files_belong_to_the_first_version_when_others_name_its_run(
    people: dict[str, User], new_version: Callable[..., Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "close_old_connections", lambda: None)  # the test's own would be closed
    new_version(mlflow_run_id="abc", mlflow_source="models:/m-1")
    theirs = Model.objects.create(project=Project.objects.get(slug="other"), name="grab")
    Version.objects.create(model=theirs, number=1, origin=Origin.MLFLOW, mlflow_run_id="abc")
    assert door._owner(ownership.Place(run="abc")) == "vision"
    assert door._owner(ownership.Place(model="m-1", experiment="4")) == "vision"
    assert door._owner(ownership.Place(run="nobodys")) == ""
