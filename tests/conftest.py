"""Personas and small records that every test of the Django rooms needs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import Client
from rest_framework.test import APIClient

from registry.models import Artifact, Model, Origin, Version, VersionState
from registry.signing import attest
from slipway.accounts.models import Membership, Project, Role, User
from slipway.jobs import kinds
from slipway.jobs.kinds import Handler
from tests.mlflow.stack import mlflow_server


@pytest.fixture(autouse=True)
def quick_passwords(settings: Any) -> None:
    """Slow hashing is right for people and wrong for a thousand fixtures."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(scope="session")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow, one for each process of the tests: its start takes five seconds of CPU."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as url:
        yield url


@pytest.fixture
def project(db: None) -> Project:
    return Project.objects.create(slug="vision", name="Vision")


@pytest.fixture
def people(project: Project) -> dict[str, User]:
    """One user of each role, a `stranger` (admin of another project) and the superuser `root`."""
    users = {}
    for role in Role.values:
        users[role] = User.objects.create_user(role, password="pw")
        Membership.objects.create(project=project, user=users[role], role=role)
    users["stranger"] = User.objects.create_user("stranger", password="pw")
    other = Project.objects.create(slug="other", name="Other")
    Membership.objects.create(project=other, user=users["stranger"], role=Role.ADMIN)
    users["root"] = User.objects.create_superuser("root", password="pw")
    return users


@pytest.fixture
def as_user(people: dict[str, User]) -> Callable[[str], APIClient]:
    """An API client signed in as one of the people; `anonymous` is nobody."""

    def client(name: str) -> APIClient:
        api = APIClient()
        if name != "anonymous":
            api.force_authenticate(people[name])
        return api

    return client


@pytest.fixture
def browser_as(people: dict[str, User]) -> Callable[[str], Client]:
    def client(name: str) -> Client:
        web = Client()
        if name != "anonymous":
            web.force_login(people[name])
        return web

    return client


@pytest.fixture
def model(project: Project) -> Model:
    return Model.objects.create(project=project, name="digits", task="image-classification")


@pytest.fixture
def new_version(model: Model) -> Callable[..., Version]:
    """Adds a ready version with one ONNX artifact (its digest made from the number)."""

    def make(**changes: Any) -> Version:
        model.last_number += 1
        model.save()
        version = Version.objects.create(
            model=model,
            number=model.last_number,
            **{"state": VersionState.READY, "origin": Origin.UPLOAD, **changes},
        )
        named = {
            "format": "onnx",
            "sha256": hashlib.sha256(f"{model.name}-{version.number}".encode()).hexdigest(),
            "size": 1000,
            "file_name": "model.onnx",
        }
        Artifact.objects.create(
            version=version,
            **named,
            attestation=attest(version, **named),
            uri="mlflow-artifacts:/0/x/artifacts/model.onnx",
            verdict="clean",
        )
        return version

    return make


@pytest.fixture
def declare_kind() -> Iterator[Callable[..., None]]:
    """Declares a kind of job for one test."""
    from slipway.celery import app

    names: list[str] = []

    def declare(name: str, handler: Handler, params: Any) -> None:
        kinds.job_kind(name, queue="export", params=params)(handler)
        names.append(name)

    yield declare
    for name in names:
        app.tasks.pop(kinds._KINDS.pop(name).task_name, None)
