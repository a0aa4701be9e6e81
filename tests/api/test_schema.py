"""The OpenAPI document: no warnings, and no answer that it does not declare."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from django.core.management import call_command
from drf_spectacular.drainage import GENERATOR_STATS
from drf_spectacular.generators import SchemaGenerator
from hypothesis import HealthCheck, Phase, settings
from rest_framework.test import APIClient
from schemathesis import checks

from deployments.models import DesiredState
from registry.models import Model
from slipway.accounts.services import token_create

EXAMPLES = 6


def test_schema_has_no_warnings_when_generated(tmp_path) -> None:
    GENERATOR_STATS.reset()
    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(tmp_path / "schema.yaml"))


def operations() -> list[Any]:
    document = SchemaGenerator().get_schema(request=None, public=True)
    import json

    loaded = schemathesis.openapi.from_dict(json.loads(json.dumps(document, default=str)))
    return [entry.ok() for entry in loaded.get_all_operations()]


@pytest.mark.django_db
def test_answers_are_declared_when_requests_are_made_from_the_schema(people, project, model, new_version) -> None:
    DesiredState.objects.get_or_create(pk=1)
    new_version()
    _, text = token_create(user=people["root"], name="t")
    api = APIClient(raise_request_exception=False)
    wrong: list[str] = []
    seen = 0

    def one(case: Any) -> None:
        nonlocal seen
        seen += 1
        sent = case.as_transport_kwargs(base_url="http://localhost")
        wrong.extend(_undeclared(case, api, text, sent))

    for operation in operations():
        test = _bounded(operation, one)
        test()
    assert seen > 100 and not wrong, "\n".join(sorted(set(wrong)))
    assert Model.objects.filter(pk=model.pk).exists()
    assert checks is not None


def _bounded(operation: Any, one: Any) -> Any:
    from hypothesis import given

    strategy = operation.as_strategy()
    return settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )(given(case=strategy)(lambda case: one(case)))  # fmt: skip


def _undeclared(case: Any, api: APIClient, token: str, sent: dict[str, Any]) -> list[str]:
    """What an answer has that the document does not declare."""
    import requests

    prepared = requests.Request(**{k: v for k, v in sent.items() if k in {
        "method", "url", "headers", "params", "json", "data", "cookies"}}).prepare()  # fmt: skip
    headers = {name: str(value) for name, value in prepared.headers.items() if name.lower() != "content-length"}
    headers["Authorization"] = f"Bearer {token}"
    kind = headers.pop("Content-Type", "application/json")
    from django.db import transaction

    with transaction.atomic():
        answer = api.generic(
            prepared.method, prepared.url.removeprefix("http://localhost"), prepared.body or b"", content_type=kind,
            headers=headers,
        )  # fmt: skip
        transaction.set_rollback(True)
    declared = case.operation.definition.raw["responses"]
    name = f"{case.operation.method.upper()} {case.operation.path}"
    if str(answer.status_code) not in declared:
        return [f"{name}: {answer.status_code} is not declared: {answer.content[:200]!r}"]
    if answer.status_code >= 500:
        return [f"{name}: {answer.status_code} {answer.content[:200]!r} for {prepared.body!r} {prepared.url}"]
    if answer.status_code >= 400 and answer.headers["Content-Type"] != "application/problem+json":
        return [f"{name}: {answer.status_code} is {answer.headers['Content-Type']}"]
    return []
