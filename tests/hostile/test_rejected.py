"""What was rejected gets behind an endpoint by no door."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from deployments import services
from deployments.evidence import Observed
from deployments.models import Deployment, DesiredState, Endpoint, Rollout
from deployments.rollouts import rollout_advance, rollout_full, rollout_start
from registry.models import Artifact, Version
from slipway.api.problems import Conflict
from tests.api.tools import light_settings as light_settings
from tests.api.tools import problem

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def generation_row(db: None) -> None:
    DesiredState.objects.get_or_create(pk=1, defaults={"generation": 1})


@pytest.fixture
def endpoint(project: Any, new_version: Callable[..., Version]) -> Endpoint:
    """It serves a version that is fit."""
    return services.endpoint_create(
        actor=None, project=project, name="digits", access="open", artifact=new_version().artifacts.get()
    )


@pytest.fixture(params=["version", "artifact"])
def rejected(request: pytest.FixtureRequest, new_version: Callable[..., Version]) -> Artifact:
    """An ONNX artifact, itself rejected or of a version that was."""
    return reject(new_version().artifacts.get(), request.param)


def reject(artifact: Artifact, what: str = "version") -> Artifact:
    if what == "version":
        Version.objects.filter(pk=artifact.version_id).update(state="rejected", reason="It reaches out.")
    else:
        Artifact.objects.filter(pk=artifact.pk).update(verdict="rejected")
    return Artifact.objects.select_related("version__model").get(pk=artifact.pk)


def test_every_route_answers_409_when_the_artifact_is_rejected(
    as_user: Any, endpoint: Endpoint, project: Any, rejected: Artifact
) -> None:
    empty = services.endpoint_create(actor=None, project=project, name="empty", access="open")
    api, before = as_user("admin"), Deployment.objects.count()
    wanted = {"artifact": rejected.pk}
    upstream = {"artifact": rejected.pk, "upstream": {"url": "https://elsewhere.example", "model": "m"}}
    doors = [
        ("endpoints", {"name": "new", "project": "vision", **wanted}),
        (f"endpoints/{empty.pk}/place", wanted),
        (f"endpoints/{empty.pk}/place", upstream),
        ("rollouts", {"endpoint": endpoint.pk, **wanted}),
        ("rollouts", {"endpoint": endpoint.pk, **upstream}),
        (f"models/{rejected.version.model_id}/versions", {"artifact": rejected.sha256}),
        (f"artifacts/{rejected.pk}/optimize", {"optimizer": "onnx-dynamic-int8", "options": {}}),
    ]
    for path, body in doors:
        answer = api.post(f"/api/v1/{path}", body, format="json")
        problem(answer, 409)
    assert Deployment.objects.count() == before and not Rollout.objects.exists()
    assert not Endpoint.objects.filter(name="new").exists()


def test_version_gets_no_alias_approval_or_export_when_it_is_rejected(
    as_user: Any, new_version: Callable[..., Version]
) -> None:
    version = reject(new_version().artifacts.get()).version
    api = as_user("admin")
    problem(
        api.put(f"/api/v1/models/{version.model_id}/aliases/champion", {"version": version.number}, format="json"), 409
    )
    problem(api.post(f"/api/v1/versions/{version.pk}/decide", {"approve": True}, format="json"), 409)
    problem(api.post(f"/api/v1/versions/{version.pk}/export", {"exporters": ["onnx"]}, format="json"), 409)


def test_pages_offer_and_start_nothing_when_the_artifact_is_rejected(
    browser_as: Any, endpoint: Endpoint, rejected: Artifact
) -> None:
    web = browser_as("admin")
    address = f"/deploy/?version={rejected.version_id}&endpoint={endpoint.name}"
    form = {"artifact": rejected.pk, "endpoint": endpoint.name, "plan": "canary", "confirmed": "1"}
    answer = web.post(address, form)
    assert answer.status_code in (200, 422), answer.content[:300]
    new = {"name": "new", "project": endpoint.project_id, "access": "open", "artifact": rejected.pk}
    assert web.post("/endpoints/new/", new).status_code in (200, 422)
    assert not Rollout.objects.exists() and Deployment.objects.count() == 1


def test_admin_console_changes_no_verdict_and_adds_no_deployment_when_a_superuser_posts(
    browser_as: Any, endpoint: Endpoint, rejected: Artifact
) -> None:
    web, version = browser_as("root"), rejected.version
    for path, form in {
        f"registry/version/{version.pk}/change/": {"state": "ready"},
        f"registry/artifact/{rejected.pk}/change/": {"verdict": "clean"},
        "registry/artifact/add/": {"version": version.pk, "format": "onnx", "verdict": "clean"},
        "deployments/deployment/add/": {"endpoint": endpoint.pk, "artifact": rejected.pk, "state": "live"},
        "deployments/rollout/add/": {"endpoint": endpoint.pk},
    }.items():
        assert web.post(f"/admin/{path}", form).status_code in (403, 404), path
    again = Artifact.objects.select_related("version").get(pk=rejected.pk)
    assert (again.verdict, again.version.state) == (rejected.verdict, version.state)
    assert Deployment.objects.count() == 1 and Artifact.objects.filter(version=version).count() == 1


def test_traffic_goes_back_when_the_candidate_is_rejected_in_its_rollout(
    people: Any, endpoint: Endpoint, new_version: Callable[..., Version]
) -> None:
    candidate = new_version().artifacts.get()
    rollout = rollout_start(actor=None, endpoint=endpoint, artifact=candidate)
    reject(candidate)
    with pytest.raises(Conflict):
        rollout_full(actor=people["admin"], rollout=rollout)
    row = rollout_advance(rollout_id=rollout.pk, observed=Observed(None, {}))
    assert row.state == "rolled-back" and "rejected" in row.reason
    assert endpoint.deployments.get(artifact=candidate).state == "retired"


def test_weights_are_refused_when_a_warm_version_was_rejected(
    people: Any, endpoint: Endpoint, new_version: Callable[..., Version]
) -> None:
    warm = services.candidate_add(actor=None, endpoint=endpoint, artifact=new_version().artifacts.get())
    reject(warm.artifact)
    with pytest.raises(Conflict):
        services.weights_change(actor=people["admin"], endpoint=endpoint, weights={str(warm.pk): 100})
