"""The endpoint's page: where requests' time goes, what models take, and the processes that serve them."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from django.db.models.functions import Now
from django.test import Client
from django.utils import timezone

from deployments import desired
from deployments.models import Deployment, DesiredState, Endpoint, Raised, Server
from monitoring.models import Window
from tests.deployments.conftest import ready

Browser = Callable[[str], Client]
TOLD = {
    "state": "ready", "reason": "", "sha256": "a" * 64, "memory_bytes": 2_000_000, "cost_us": 1500.0,
    "provider": "cpu", "batching": {"max": 8, "why": "8 together cost 1.3 times one"},
}  # fmt: skip


@pytest.fixture
def live(endpoint: Endpoint) -> Deployment:
    return endpoint.deployments.get()


def window(live: Deployment, **values: Any) -> None:
    """A window that the charts already show."""
    start = int(timezone.now().timestamp() - 30) // 10 * 10
    counted = {"requests": 60, "latency": {"87": 60}, "queue_us": 60_000, "compute_us": 120_000} | values
    Window.objects.create(deployment=live, start=dt.datetime.fromtimestamp(start, dt.UTC), **counted)


def tell(live: Deployment, process: int = 0, behind: int = 0, age: float = 0, **more: Any) -> Server:
    server = ready(live, process=process, age=age)
    Server.objects.filter(pk=server.pk).update(
        deployments={str(live.pk): {**TOLD, **more}}, pid=4711, memory_bytes=90_000_000, version="9.9",
        generation=desired.generation() - behind,
    )  # fmt: skip
    return server


def page(browser_as: Browser) -> str:
    text = browser_as("viewer").get("/endpoints/digits/").content.decode()
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", text)))


def test_waiting_and_computing_are_shown_when_servers_tell_them(browser_as: Browser, live: Deployment) -> None:
    window(live, batches={"1": 10, "5": 10})
    tell(live)
    text = page(browser_as)
    assert "Waiting" in text and "1.0 ms" in text and "2.0 ms" in text
    assert "Where the time goes in version 1 ONNX" in text
    assert "at most 8 requests a run (8 together cost 1.3 times one)" in text
    assert "50.0 %" in text and "From the cache" not in text and "Refused" not in text


def test_cache_and_refusals_have_columns_and_charts_when_there_are_any(browser_as: Browser, live: Deployment) -> None:
    window(live, cache_hits=15, rejected=7)
    text = page(browser_as)
    assert "Answered from the cache, %" in text and "Refused by a limit, per minute" in text
    assert "25.0 %" in text
    data = browser_as("viewer").get("/endpoints/digits/series.json").json()["lines"][0]
    assert 25 in data["cached"] and 42 in data["rejected"]


def test_page_stays_whole_when_nothing_was_told(browser_as: Browser, live: Deployment) -> None:
    ready(live)
    text = page(browser_as)
    assert "No model ran in the last 5 minutes." in text and "Where the time goes" not in text


@pytest.mark.parametrize(
    ("behind", "words"), [(0, "up to date"), (1, "one change behind"), (3, "3 changes behind")]
)  # fmt: skip
def test_processes_say_how_far_behind_they_are(browser_as: Browser, live: Deployment, behind: int, words: str) -> None:
    tell(live, behind=behind)
    text = page(browser_as)
    assert words in text and "4711" in text and "90 MB" in text and "9.9" in text


def test_processes_say_since_when_they_are_behind_by_the_databases_clock(
    browser_as: Browser, live: Deployment, endpoint: Endpoint, as_user: Any
) -> None:
    has = desired.generation()
    for access in ("open", "token"):
        Endpoint.objects.update(access=access)
    tell(live)
    tell(live, process=1, behind=desired.generation() - has)
    assert list(Raised.objects.order_by("generation").values_list("generation", flat=True))[-2:] == [has + 1, has + 2]
    Raised.objects.filter(generation=has + 1).update(at=Now() - dt.timedelta(seconds=135))
    Raised.objects.filter(generation=has + 2).update(at=Now() - dt.timedelta(seconds=3))
    assert "2 changes behind for 2 min" in page(browser_as)
    rows = {row["process"]: row["behind_s"] for row in as_user("viewer").get("/api/v1/servers").json()["results"]}
    assert rows[0] is None and 135 <= rows[1] < 140
    Server.objects.filter(process=1).update(generation=has + 1)
    assert "one change behind for 3 s" in page(browser_as)
    text = browser_as("viewer").get("/endpoints/digits/").content.decode()
    assert 'data-lasting="3"' in text
    Server.objects.filter(process=1).update(generation=1)
    Raised.objects.filter(generation__lte=has).delete()
    assert "changes behind for 2 min" in page(browser_as)  # since the oldest that is remembered


def test_only_the_last_thousand_generations_are_remembered(endpoint: Endpoint) -> None:
    DesiredState.objects.update(generation=5000)
    Endpoint.objects.update(access="token")
    assert list(Raised.objects.values_list("generation", flat=True).order_by("generation"))[-2:] == [5000, 5001]
    assert not Raised.objects.filter(generation__lte=4001).exists()


def test_processes_keep_their_order_when_they_report(browser_as: Browser, live: Deployment) -> None:
    for process, age in ((2, 0), (0, 3), (1, 1)):
        tell(live, process=process, age=age)
    found = re.findall(r"host-(\d)", page(browser_as))
    assert found == ["0", "1", "2"]


def test_reason_is_shown_when_a_process_cannot_load(browser_as: Browser, live: Deployment) -> None:
    tell(live, state="failed", reason="the <file> is not ONNX")
    text = page(browser_as)
    assert "failed" in text and "the <file> is not ONNX" in text and "0 / 1" in text
