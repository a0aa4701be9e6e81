"""What server processes say: over the API, and summed up for the pages."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from deployments import desired, selectors, servers, services
from deployments.models import Server
from tests.deployments.conftest import ready

pytestmark = pytest.mark.django_db
TOLD = {
    "state": "ready", "reason": "", "sha256": "a" * 64, "memory_bytes": 1000, "cost_us": 40.0, "provider": "cpu",
    "batching": {"max": 8, "why": "8 together cost 1.3 times one."},
}  # fmt: skip


def tell(endpoint: Any, process: int = 0, age: float = 0, **more: Any) -> Server:
    row = endpoint.deployments.get(weight=100)
    server = ready(row, process=process, age=age)
    Server.objects.filter(pk=server.pk).update(deployments={str(row.pk): {**TOLD, **more}, "²": TOLD, "77": TOLD})
    return server


def test_servers_are_listed_with_what_they_say_when_asked(endpoint, as_user) -> None:
    server = tell(endpoint)
    Server.objects.update(memory_bytes=2**30, pid=4711, version="0.3.0", generation=desired.generation())
    (row,) = as_user("viewer").get("/api/v1/servers").json()["results"]
    loaded = row.pop("deployments")
    assert {key: row[key] for key in row if not key.endswith("_at")} == {
        "id": server.pk, "instance": "host-0", "process": 0, "pid": 4711, "version": "0.3.0", "memory_bytes": 2**30,
        "generation": desired.generation(), "desired_generation": desired.generation(), "current": True, "alive": True,
        "behind_s": None,
    }  # fmt: skip
    assert loaded == [
        {"deployment": endpoint.deployments.get().pk, "endpoint": "digits", "version": 1, **TOLD},
    ]


def test_deployments_of_others_are_left_out_when_a_stranger_asks(endpoint, as_user) -> None:
    tell(endpoint)
    (row,) = as_user("stranger").get("/api/v1/servers").json()["results"]
    assert row["deployments"] == [] and row["process"] == 0
    assert as_user("anonymous").get("/api/v1/servers").status_code == 401


def test_old_reports_are_shown_without_what_they_lack_when_listed(endpoint, as_user) -> None:
    ready(endpoint.deployments.get())
    (row,) = as_user("viewer").get("/api/v1/servers").json()["results"]
    (loaded,) = row["deployments"]
    assert (row["pid"], row["version"], row["memory_bytes"]) == (None, "", 0)
    assert (loaded["cost_us"], loaded["batching"], loaded["provider"], loaded["memory_bytes"]) == (None, None, None, 0)


def test_servers_are_left_out_when_not_heard_of_for_an_hour(endpoint, as_user) -> None:
    tell(endpoint, age=60)
    tell(endpoint, process=1, age=3700)
    (row,) = as_user("viewer").get("/api/v1/servers").json()["results"]
    assert (row["process"], row["alive"], row["current"]) == (0, False, False)


def test_queries_stay_the_same_when_there_are_more_servers(endpoint, as_user, project, artifacts) -> None:
    client = as_user("viewer")

    def count() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert client.get("/api/v1/servers").status_code == 200
        return len(captured)

    tell(endpoint)
    count()
    few = count()
    for number in range(1, 8):
        other = services.endpoint_create(actor=None, project=project, name=f"e{number}", artifact=artifacts[1])
        tell(other, process=number)
    assert count() == few


def test_load_is_summed_over_living_processes_when_read(endpoint, django_assert_num_queries) -> None:
    row = endpoint.deployments.get()
    tell(endpoint)
    tell(endpoint, process=1, state="loading", cost_us=60.0, batching={"max": 16, "why": "x"}, provider="cuda")
    tell(endpoint, process=2, age=40)
    seen = selectors.servers([row])
    with django_assert_num_queries(0):
        load = servers.load_of([row], seen)[row.pk]
    assert load == {
        "processes": 2, "ready": 1, "memory_bytes": 2000, "cost_ms": 0.06, "batch_max": 16, "batch_why": "x",
        "providers": ["cpu", "cuda"],
    }  # fmt: skip
    Server.objects.update(seen_at=timezone.now() - dt.timedelta(minutes=1))
    assert servers.load_of([row], selectors.servers([row]))[row.pk]["cost_ms"] is None
