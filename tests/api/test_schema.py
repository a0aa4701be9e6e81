"""The OpenAPI document: no warnings, and no answer that it does not declare."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
import schemathesis
from django.core.management import call_command
from django.db import transaction
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator
from hypothesis import HealthCheck, Phase, given, settings
from rest_framework.test import APIClient

from slipway.accounts.services import token_create
from tests.api.test_permissions import world as world

EXAMPLES = 6


def test_schema_has_no_warnings_when_generated(tmp_path) -> None:
    GENERATOR_STATS.reset()
    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(tmp_path / "schema.yaml"))


def operations() -> list[Any]:
    document = SchemaGenerator().get_schema(request=None, public=True)
    loaded = schemathesis.openapi.from_dict(json.loads(json.dumps(document, default=str)))
    return [entry.ok() for entry in loaded.get_all_operations()]


ROWS = {
    "models": "model", "versions": "version", "artifacts": "artifact", "datasets": "dataset", "targets": "target",
    "endpoints": "endpoint", "rollouts": "rollout", "policies": "policy", "alerts": "alert", "jobs": "job",
    "tokens": "token", "environments": "environment", "searches": "search",
    "hooks": "policy",
}  # fmt: skip


@pytest.mark.django_db
def test_answers_are_declared_when_requests_are_made_from_the_schema(world, people) -> None:
    _, text = token_create(user=people["root"], name="t")
    api = APIClient(headers={"Authorization": f"Bearer {text}"}, raise_request_exception=False)
    wrong: set[str] = set()
    statuses: dict[int, int] = {}

    def one(case: Any) -> None:
        room = case.operation.path.split("/")[3]
        # Every other request is about a row that is there.
        if "id" in case.path_parameters and sum(statuses.values()) % 2:
            case.path_parameters["id"] = world[ROWS[room]]
        status, found = _undeclared(case, api)
        statuses[status] = statuses.get(status, 0) + 1
        wrong.update(found)

    for operation in operations():
        bounded(operation, one)
    assert not wrong, "\n".join(sorted(wrong))
    assert sum(statuses.values()) > 150 and len(statuses) >= 6, statuses


def bounded(operation: Any, one: Any) -> None:
    """A few requests of an operation, the same ones in every run."""
    limits = settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    limits(given(case=operation.as_strategy())(lambda case: one(case)))()


def _undeclared(case: Any, api: APIClient) -> tuple[int, list[str]]:
    """The status of an answer, and what it has that the document does not declare."""
    sent = case.as_transport_kwargs(base_url="http://localhost")
    names = {"method", "url", "headers", "params", "json", "data", "cookies"}
    prepared = requests.Request(**{name: value for name, value in sent.items() if name in names}).prepare()
    headers = {name: str(value) for name, value in prepared.headers.items() if name.lower() != "content-length"}
    headers.pop("Authorization", None)
    kind = headers.pop("Content-Type", "application/json")
    with transaction.atomic():
        url = prepared.url.removeprefix("http://localhost")
        answer = api.generic(prepared.method, url, prepared.body or b"", content_type=kind, headers=headers)
        transaction.set_rollback(True)
    status, name = answer.status_code, f"{case.operation.method.upper()} {case.operation.path}"
    if str(status) not in case.operation.definition.raw["responses"] or status == 500:
        return status, [f"{name}: {status} {answer.content[:200]!r} for {prepared.body!r} {prepared.url}"]
    if status >= 400 and answer.headers["Content-Type"] != "application/problem+json":
        return status, [f"{name}: {status} is {answer.headers['Content-Type']}"]
    return status, []
