"""Endpoints, deployments, weights: the services and the database's own rules."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import IntegrityError, connection, transaction

from deployments import services
from deployments.models import DEPLOYMENT_TRANSITIONS, Deployment, DesiredState, Endpoint, Rollout, Target
from deployments.rollouts import rollout_start
from registry.models import Artifact, Version
from registry.signing import attest
from slipway.accounts.models import Project
from slipway.api.problems import Conflict, Problem
from tests.api.tools import race
from tests.deployments.conftest import weights

pytestmark = pytest.mark.django_db


def settle() -> None:
    """What a commit does: the deferred checks run now."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("SET CONSTRAINTS ALL DEFERRED")


def foreign(artifact: Artifact) -> Artifact:
    """The same bytes in another project."""
    from registry.models import Model

    model = Model.objects.create(project=Project.objects.create(slug="far", name="Far"), name="digits")
    version = Version.objects.create(model=model, number=1, state="ready", origin="upload")
    return Artifact.objects.create(version=version, format="onnx", sha256=artifact.sha256, size=1, verdict="clean")


# The database


@pytest.mark.parametrize("total", [1, 50, 99])
def test_database_refuses_when_weights_do_not_sum_to_100(total: int, endpoint) -> None:
    settle()
    with pytest.raises(IntegrityError, match="sum to"), transaction.atomic():
        endpoint.deployments.update(weight=total)
        settle()
    assert weights(endpoint) == {1: 100}


def test_database_refuses_when_weights_exceed_100_or_one_deployment_is_deleted(endpoint, artifacts) -> None:
    settle()
    with pytest.raises(IntegrityError, match="sum to"), transaction.atomic():
        Deployment.objects.create(endpoint=endpoint, artifact=artifacts[1], state="live", weight=1)
        settle()
    services.candidate_add(actor=None, endpoint=endpoint, artifact=artifacts[1])
    services.weights_set(endpoint=endpoint, weights={row.pk: 50 for row in endpoint.deployments.all()})
    settle()
    with pytest.raises(IntegrityError, match="sum to"), transaction.atomic():
        endpoint.deployments.last().delete()
        settle()


def test_database_accepts_when_the_sum_is_right_only_at_the_end(endpoint, artifacts) -> None:
    endpoint.deployments.update(weight=40)
    Deployment.objects.create(endpoint=endpoint, artifact=artifacts[1], state="live", weight=60)
    settle()
    endpoint.deployments.update(weight=0, state="warm")
    settle()


@pytest.mark.parametrize(
    "change",
    [
        {"weight": 101}, {"weight": 0}, {"state": "warm"}, {"state": "new"}, {"state": "retired"}, {"weight": -1},
    ],
)  # fmt: skip
def test_database_refuses_when_deployment_is_inconsistent(change, endpoint) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        endpoint.deployments.update(**change)


def test_database_refuses_when_a_row_would_be_there_twice(endpoint, artifacts, rollout, project) -> None:
    for attempt in (
        lambda: Deployment.objects.create(endpoint=endpoint, artifact=artifacts[1]),
        lambda: Rollout.objects.create(
            endpoint=endpoint, stable=rollout.stable, candidate=rollout.candidate, steps=[], guard={}
        ),
        lambda: Rollout.objects.filter(pk=rollout.pk).update(candidate=rollout.stable_id),
        lambda: Rollout.objects.filter(pk=rollout.pk).update(state="new"),
        lambda: Endpoint.objects.create(project=project, target=endpoint.target, name="digits"),
        lambda: Endpoint.objects.filter(pk=endpoint.pk).update(access="all"),
        lambda: Target.objects.create(project=project, name="slipway"),
        lambda: Target.objects.update(kind="magic"),
        lambda: DesiredState.objects.create(pk=2),
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            attempt()


# Endpoints


@pytest.mark.parametrize("name", ["", "Digits", "a b", "../x", "a" * 64, "a\x00b", "-a", "模型", "a/b", "digits"])
def test_endpoint_is_refused_when_name_is_bad_or_taken(name: str, endpoint, project) -> None:
    with pytest.raises(ValidationError):
        services.endpoint_create(actor=None, project=project, name=name)
    assert Endpoint.objects.count() == 1


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"verdict": "rejected"}, Conflict), ({"format": "mar"}, Problem), ({"format": "source"}, Problem),
        ({"state": "pending"}, Conflict), ({"state": "rejected"}, Conflict), ({"attestation": {}}, Conflict),
    ],
)  # fmt: skip
def test_artifact_is_refused_by_every_door_when_it_is(change, error, endpoint, artifacts, project) -> None:
    rows = Version.objects.filter(number=2) if "state" in change else Artifact.objects.filter(pk=artifacts[1].pk)
    # A signed row cannot become another format; one of that format is as well not signed here.
    rows.update(**change, **({"attestation": {}} if "format" in change else {}))
    artifact = Artifact.objects.get(pk=artifacts[1].pk)
    empty = services.endpoint_create(actor=None, project=project, name="empty")
    for attempt in (
        lambda: services.endpoint_create(actor=None, project=project, name="new", artifact=artifact),
        lambda: services.deployment_place(actor=None, endpoint=empty, artifact=artifact),
        lambda: rollout_start(actor=None, endpoint=endpoint, artifact=artifact),
    ):
        with pytest.raises(error):
            attempt()
    assert Endpoint.objects.count() == 2 and Deployment.objects.count() == 1 and not Rollout.objects.exists()


def test_artifact_is_refused_by_every_door_when_of_another_project(endpoint, artifacts, project) -> None:
    artifact = foreign(artifacts[1])
    empty = services.endpoint_create(actor=None, project=project, name="empty")
    for attempt in (
        lambda: services.endpoint_create(actor=None, project=project, name="new", artifact=artifact),
        lambda: services.deployment_place(actor=None, endpoint=empty, artifact=artifact),
        lambda: rollout_start(actor=None, endpoint=endpoint, artifact=artifact),
    ):
        with pytest.raises(Problem, match="another project"):
            attempt()
    assert not Endpoint.objects.filter(name="new").exists() and not Rollout.objects.exists()


def test_pmml_is_refused_when_its_version_has_onnx(artifacts, project) -> None:
    named = {"format": "pmml", "sha256": "a" * 64, "size": 10, "file_name": "model.pmml"}
    version = artifacts[1].version
    pmml = Artifact.objects.create(
        version=version, **named, attestation=attest(version, **named), uri="mlflow-artifacts:/0/x", verdict="clean"
    )
    with pytest.raises(Problem, match="has an ONNX export"):
        services.endpoint_create(actor=None, project=project, name="new", artifact=pmml)
    artifacts[1].delete()
    endpoint = services.endpoint_create(actor=None, project=project, name="new", artifact=pmml)
    assert endpoint.deployments.get().artifact == pmml


def test_place_is_refused_when_endpoint_answers(endpoint, artifacts) -> None:
    with pytest.raises(Conflict, match="rollout"):
        services.deployment_place(actor=None, endpoint=endpoint, artifact=artifacts[1])


def test_endpoint_is_deleted_only_when_no_rollout_is_live(endpoint, rollout, people, project) -> None:
    with pytest.raises(Conflict):
        services.endpoint_delete(actor=people["operator"], endpoint=endpoint)
    Rollout.objects.update(state="aborted")
    services.endpoint_delete(actor=people["operator"], endpoint=endpoint)
    settle()
    assert not Endpoint.objects.exists() and not Deployment.objects.exists()
    services.endpoint_create(actor=None, project=project, name="digits")


@pytest.mark.parametrize("who", ["viewer", "developer", "approver", "stranger"])
def test_deployments_are_refused_when_role_is(who: str, people, project, endpoint, artifacts) -> None:
    user = people[who]
    for attempt in (
        lambda: services.endpoint_create(actor=user, project=project, name="x"),
        lambda: services.endpoint_delete(actor=user, endpoint=endpoint),
        lambda: services.deployment_place(actor=user, endpoint=endpoint, artifact=artifacts[1]),
        lambda: services.weights_change(actor=user, endpoint=endpoint, weights={}),
        lambda: rollout_start(actor=user, endpoint=endpoint, artifact=artifacts[1]),
    ):
        with pytest.raises(PermissionDenied):
            attempt()
    assert weights(endpoint) == {1: 100}


# Weights


@pytest.fixture
def pair(endpoint, artifacts) -> tuple[str, str]:
    other = services.candidate_add(actor=None, endpoint=endpoint, artifact=artifacts[1])
    return str(endpoint.deployments.get(weight=100).pk), str(other.pk)


@pytest.mark.parametrize(
    ("one", "two"),
    [(50, 49), (100, 100), (-1, 101), (150, -50), (0, 0), (float("nan"), 50), (50.0, 50.0), (True, 99), ("50", 50)],
)
def test_weights_are_refused_when(one: Any, two: Any, endpoint, pair, people) -> None:
    with pytest.raises(Problem) as refused:
        services.weights_change(actor=people["operator"], endpoint=endpoint, weights={pair[0]: one, pair[1]: two})
    assert refused.value.field == "weights"
    assert weights(endpoint) == {1: 100, 2: 0}


@pytest.mark.parametrize("key", ["999999", "", "-1", "x", "1.5", "²", "9" * 40, " 1"])
def test_weights_are_refused_when_deployment_is_unknown(key: str, endpoint, pair, people) -> None:
    with pytest.raises(Problem, match="no deployment"):
        services.weights_change(actor=people["operator"], endpoint=endpoint, weights={key: 100})
    assert weights(endpoint) == {1: 100, 2: 0}


def test_weights_change_when_they_sum_to_100(endpoint, pair, people) -> None:
    services.weights_change(actor=people["operator"], endpoint=endpoint, weights={pair[0]: 30, pair[1]: 70})
    assert weights(endpoint) == {1: 30, 2: 70}
    services.weights_change(actor=people["operator"], endpoint=endpoint, weights={pair[1]: 100})
    settle()
    assert weights(endpoint) == {1: 0, 2: 100}
    assert Endpoint.objects.get(pk=endpoint.pk).revision == 3


def test_weights_are_refused_when_a_rollout_is_live(endpoint, rollout, people) -> None:
    with pytest.raises(Conflict, match="rollout"):
        services.weights_change(actor=people["operator"], endpoint=endpoint, weights={str(rollout.candidate_id): 100})


def test_rejected_version_gets_no_traffic_when_weights_are_set(endpoint, pair, people) -> None:
    Version.objects.filter(number=2).update(state="rejected")
    with pytest.raises(Conflict):
        services.weights_change(actor=people["operator"], endpoint=endpoint, weights={pair[0]: 50, pair[1]: 50})
    assert weights(endpoint) == {1: 100, 2: 0}


@pytest.mark.parametrize("old", DEPLOYMENT_TRANSITIONS)
@pytest.mark.parametrize("new", DEPLOYMENT_TRANSITIONS)
def test_deployment_moves_only_along_the_table_when_asked(old: str, new: str, project, artifacts) -> None:
    endpoint = services.endpoint_create(actor=None, project=project, name="alone")
    row = Deployment.objects.create(
        endpoint=endpoint, artifact=artifacts[0], state=old, weight=100 if old == "live" else 0
    )
    weight = 100 if new == "live" else 0
    if new == old or new in DEPLOYMENT_TRANSITIONS[old]:
        services.deployment_move(deployment=row, state=new, weight=weight)
        assert Deployment.objects.get(pk=row.pk).state == new
    else:
        with pytest.raises(Conflict):
            services.deployment_move(deployment=row, state=new, weight=weight)


def test_deployment_is_not_moved_when_somebody_was_faster(endpoint, pair) -> None:
    row = Deployment.objects.get(pk=pair[1])
    Deployment.objects.filter(pk=row.pk).update(state="retired")
    with pytest.raises(Conflict, match="same moment"):
        services.deployment_move(deployment=row, state="live", weight=100)


@pytest.mark.django_db(transaction=True)
def test_one_placement_wins_when_eight_come_at_once(project, artifacts) -> None:
    endpoint = services.endpoint_create(actor=None, project=project, name="race")

    def work(index: int) -> Any:
        return services.deployment_place(actor=None, endpoint=endpoint, artifact=artifacts[index % 3])

    done = race(8, work)
    assert sum(isinstance(one, Deployment) for one in done) == 1
    assert all(isinstance(one, Deployment | Conflict) for one in done)


@pytest.mark.django_db(transaction=True)
def test_one_rollout_wins_when_eight_start_at_once(endpoint, artifacts) -> None:
    done = race(8, lambda index: rollout_start(actor=None, endpoint=endpoint, artifact=artifacts[1 + index % 2]))
    assert sum(isinstance(one, Rollout) for one in done) == 1
    assert all(isinstance(one, Rollout | Conflict) for one in done), done
    assert Rollout.objects.count() == 1 and Deployment.objects.count() == 2
