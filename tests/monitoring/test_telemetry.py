"""Reports of servers: once each, added up, refused when bad; and what is read from them."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import numpy as np
import pytest
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from deployments.models import Deployment, Server
from engine.formats.latency import bucket_of
from monitoring import performance, selectors, stats
from monitoring.models import Window
from monitoring.telemetry import Report, report_accept
from tests.api.tools import problem, race

START = 1_732_500_010


def window(row: Deployment, /, **more: Any) -> dict[str, Any]:
    return {
        "deployment": str(row.pk), "start": START, "requests": 40, "errors": 1, "latency": {"87": 39, "90": 1},
        "outputs": {"label": {"3": 12, "7": 28}}, **more,
    }  # fmt: skip


def report(instance: str = "host-1", seq: int = 1, **more: Any) -> dict[str, Any]:
    return {"instance": instance, "process": 0, "seq": seq, "generation": 17, "interval_s": 1.0, **more}


def send(body: Any) -> Any:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Client(raise_request_exception=False).post(
        "/api/v1/serving/report", text, content_type="application/json",
        headers={"Authorization": "Bearer serving-token-of-the-tests"},
    )  # fmt: skip


@pytest.mark.django_db
def test_report_counts_once_when_sent_again_or_out_of_order(deployment) -> None:
    body = report(seq=5, windows=[window(deployment)])
    answers = [send(body).json() for _ in range(3)]
    assert answers == [{"accepted": True}, {"accepted": False}, {"accepted": False}]
    assert send(report(seq=4, windows=[window(deployment)])).json() == {"accepted": False}
    row = Window.objects.get()
    assert (row.requests, row.errors, row.latency) == (40, 1, {"87": 39, "90": 1})
    assert row.start == dt.datetime.fromtimestamp(START, dt.UTC)
    assert send(report(seq=9, windows=[window(deployment)])).json() == {"accepted": True}
    row.refresh_from_db()
    assert (row.requests, row.latency, row.outputs) == (
        80, {"87": 78, "90": 2}, {"label": {"3": 24, "7": 56}},
    )  # fmt: skip


@pytest.mark.django_db
def test_server_is_known_by_its_last_report_when_it_reports(deployment) -> None:
    seen = {str(deployment.pk): {"state": "ready", "reason": "", "sha256": "a" * 64, "memory_bytes": 5}}
    send(report(seq=1, deployments=seen))
    Server.objects.update(seen_at=timezone.now() - dt.timedelta(hours=1))
    send(report(seq=2, generation=18, deployments={}))
    server = Server.objects.get()
    assert (server.generation, server.seq, server.deployments) == (18, 2, {})
    assert timezone.now() - server.seen_at < dt.timedelta(minutes=1)


@pytest.mark.django_db
def test_windows_of_unknown_deployments_are_left_out_when_reported(deployment) -> None:
    gone = {**window(deployment), "deployment": "999999999999999999"}
    assert send(report(windows=[gone, window(deployment)])).json() == {"accepted": True}
    assert Window.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_windows_add_up_when_eight_servers_report_at_once(deployment, new_version) -> None:
    def work(index: int) -> list[bool]:
        return [
            report_accept(
                report=Report.model_validate(
                    report(
                        instance=f"host-{index}", seq=seq,
                        windows=[window(deployment), window(deployment, start=START + 5)][:: 1 if index % 2 else -1],
                    )
                )
            )
            for seq in range(5)
        ]  # fmt: skip

    assert race(8, work) == [[True] * 5] * 8
    for row in Window.objects.all():
        assert (row.requests, row.errors, row.latency) == (1600, 40, {"87": 1560, "90": 40})
        assert row.outputs == {"label": {"3": 480, "7": 1120}}
    assert Window.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_report_counts_once_when_eight_copies_arrive_at_once(deployment) -> None:
    body = Report.model_validate(report(windows=[window(deployment)]))
    done = race(8, lambda index: report_accept(report=body))
    assert sorted(done) == [False] * 7 + [True] and Window.objects.get().requests == 40


@pytest.mark.django_db
@pytest.mark.parametrize(
    "change",
    [
        {"instance": ""}, {"instance": "a b"}, {"instance": "a" * 121}, {"instance": "a\x00"}, {"seq": -1},
        {"seq": "x"},
        {"seq": None}, {"seq": 2**63}, {"generation": 2**63}, {"process": -1}, {"windows": {}}, {"windows": [1]},
        {"deployments": []}, {"deployments": {"1": {"state": "happy"}}}, {"deployments": {"1": {}}},
        {"windows": [{"start": START + 1}]}, {"windows": [{"start": -5}]}, {"windows": [{"start": 2**40 // 5 * 5}]},
        {"windows": [{"start": 1e300}]}, {"windows": [{"requests": -1}]}, {"windows": [{"requests": 1.5}]},
        {"windows": [{"errors": 10**10}]}, {"windows": [{"latency": {"x": 1}}]}, {"windows": [{"latency": {"1": -1}}]},
        {"windows": [{"latency": {"9999": 1}}]}, {"windows": [{"outputs": {"label": 5}}]},
        {"windows": [{"deployment": "x"}]}, {"windows": [{"deployment": "1; DROP TABLE"}]},
        {"windows": [{"outputs": {"label": {str(n): 1 for n in range(70)}}}]},
        {"windows": [{"queue_us": -1}]}, {"windows": [{"compute_us": 1e16}]}, {"windows": [{"compute_us": "x"}]},
        {"windows": [{"batches": {"0": 1}}]}, {"windows": [{"batches": {"8": -1}}]}, {"windows": [{"batches": [8]}]},
        {"windows": [{"batches": {"12345": 1}}]}, {"windows": [{"cache_hits": -1}]}, {"windows": [{"rejected": 1.5}]},
        {"windows": [{"batches": {str(n): 1 for n in range(1, 400)}}]},
        {"memory_bytes": -1}, {"pid": -1}, {"pid": 2**31}, {"started": -1}, {"started": 1e300}, {"version": "v" * 41},
        {"deployments": {"1": {"state": "ready", "cost_us": -1}}},
        {"deployments": {"1": {"state": "ready", "batching": {"max": 0}}}},
        {"deployments": {"1": {"state": "ready", "batching": {"max": 2, "why": "x" * 501}}}},
        {"deployments": {"1": {"state": "ready", "provider": "<b>"}}},
    ],
)  # fmt: skip
def test_report_is_422_when_bad(change, deployment) -> None:
    if isinstance(change.get("windows"), list) and isinstance(change["windows"][0], dict):
        change = {"windows": [window(deployment, **change["windows"][0])]}
    assert problem(send({**report(), **change}), 422)["errors"][0]["field"]
    assert not Server.objects.exists() and not Window.objects.exists()
    assert send(report(windows=[window(deployment)])).json() == {"accepted": True}


@pytest.mark.django_db
@pytest.mark.parametrize("body", [b"{", b"[]", b"null", b"[" * 100_000, b'{"seq": NaN}', b"\xff"])
def test_report_is_400_or_422_when_not_a_json_object(body: bytes) -> None:
    assert send(body).status_code in {400, 422}


@pytest.mark.django_db
@pytest.mark.parametrize("text", ["a\x00b", "\\u0000", "\\", '"', "\ud800", "a" * 2000, "✓ 中文"])
def test_report_is_stored_or_422_when_text_is_odd(text: str, deployment) -> None:
    body = report(
        deployments={str(deployment.pk): {"state": "failed", "reason": text}, "²": {"state": "ready"}, text[:50]: {
            "state": "ready"}},
        windows=[window(deployment, outputs={text: {text: 1}})],
    )  # fmt: skip
    answer = send(body)
    assert answer.status_code in {200, 422}, answer.content
    assert Window.objects.count() == Server.objects.count() == int(answer.status_code == 200)


@pytest.mark.django_db
def test_errors_are_never_more_than_requests_when_reported_so(deployment) -> None:
    send(report(windows=[window(deployment, requests=1, errors=5)]))
    assert Window.objects.get().errors == 1


@pytest.mark.django_db
def test_next_reports_are_taken_when_counts_grow_beyond_an_integer(deployment) -> None:
    for seq in range(4):
        assert send(report(seq=seq, windows=[window(deployment, requests=10**9, errors=0)])).status_code == 200
    assert Window.objects.get().requests == 2**31 - 1


# Reading


def fill(deployment: Deployment, microseconds: Any, start: dt.datetime) -> None:
    sketch: dict[str, int] = {}
    for value in microseconds:
        key = str(bucket_of(float(value)))
        sketch[key] = sketch.get(key, 0) + 1
    Window.objects.create(
        deployment=deployment, start=start, requests=len(microseconds), errors=len(microseconds) // 10, latency=sketch,
        outputs={"label": {"1": len(microseconds)}},
    )  # fmt: skip


@pytest.mark.django_db
@pytest.mark.parametrize("shape", ["lognormal", "uniform", "two humps", "one"])
def test_percentiles_are_within_5_percent_of_numpy_when_windows_are_summed(shape: str, deployment) -> None:
    dice = np.random.default_rng(3)
    values = {
        "lognormal": dice.lognormal(6, 0.7, 6000),
        "uniform": dice.uniform(50, 5000, 6000),
        "two humps": np.concatenate([dice.normal(300, 20, 5000), dice.normal(9000, 300, 1000)]),
        "one": np.array([777.0]),
    }[shape]
    now = timezone.now()
    for n, part in enumerate(np.array_split(values, min(len(values), 6))):
        fill(deployment, part, now - dt.timedelta(seconds=5 * n))
    (row,) = stats.endpoint_stats(endpoint=deployment.endpoint, since=now - dt.timedelta(minutes=5))
    assert (row["requests"], row["version"], row["outputs"]) == (len(values), 1, {"label": {"1": len(values)}})
    for name, q in (("p50_ms", 50), ("p95_ms", 95), ("p99_ms", 99)):
        assert row[name] == pytest.approx(np.percentile(values, q, method="lower") / 1000, rel=0.051, abs=0.001), name


@pytest.mark.django_db
def test_windows_before_the_span_are_left_out_when_counted(deployment) -> None:
    now = timezone.now()
    for age in (1, 600):
        fill(deployment, [100.0] * 10, now - dt.timedelta(seconds=age))
    counts = stats.counts_since(deployment_ids=[deployment.pk], since=now - dt.timedelta(minutes=1))
    assert counts[deployment.pk].requests == 10
    assert stats.counts_since(deployment_ids=[], since=now) == {}
    assert stats.step_counts(deployment_ids=[deployment.pk], step_started_at=None) == {}
    assert stats.endpoint_stats(endpoint=deployment.endpoint, since=now) == []
    assert stats.percentiles({}) == {"p50_ms": None, "p95_ms": None, "p99_ms": None}


@pytest.mark.django_db
def test_step_begins_with_the_next_window_when_counted(deployment) -> None:
    began = dt.datetime.fromtimestamp(START + 2, dt.UTC)
    for offset in (-5, 0, 5, 10):
        fill(deployment, [100.0], dt.datetime.fromtimestamp(START + offset, dt.UTC))
    counts = stats.step_counts(deployment_ids=[deployment.pk], step_started_at=began)
    assert counts[deployment.pk].requests == 2


@pytest.mark.django_db
def test_stats_answer_over_http_when_asked(deployment, as_user) -> None:
    fill(deployment, [1000.0] * 20, timezone.now())
    url = f"/api/v1/endpoints/{deployment.endpoint_id}/stats"
    (row,) = as_user("viewer").get(url).json()
    assert (row["requests"], row["errors"]) == (20, 2) and 0.9 < row["p50_ms"] < 1.1
    for bad in ("0", "1441", "x", "nan", "1e99", ""):
        problem(as_user("viewer").get(url, {"minutes": bad}), 400, field="minutes")


# Where the time went

FULL = {
    "requests": 40, "errors": 0, "queue_us": 6000.4, "compute_us": 30000, "batches": {"1": 4, "8": 4}, "cache_hits": 10,
    "rejected": 3,
}  # fmt: skip


@pytest.mark.django_db
def test_times_batches_and_refusals_add_up_when_reported(deployment) -> None:
    for seq in (1, 2, 2):
        assert send(report(seq=seq, windows=[window(deployment, **FULL)])).status_code == 200
    assert send(report(seq=3, windows=[window(deployment)])).json() == {"accepted": True}  # an older server
    row = Window.objects.get()
    assert (row.requests, row.queue_us, row.compute_us) == (120, 12000, 60000)
    assert (row.batches, row.cache_hits, row.rejected) == ({"1": 8, "8": 8}, 20, 6)


@pytest.mark.django_db
def test_hits_are_never_more_than_requests_and_sums_stay_in_bounds_when_reported_so(deployment) -> None:
    odd = {"requests": 1, "errors": 0, "cache_hits": 5, "rejected": 10**9, "queue_us": 10**15}
    for seq in range(4):
        assert send(report(seq=seq, windows=[window(deployment, **odd)])).status_code == 200
    row = Window.objects.get()
    assert (row.cache_hits, row.rejected, row.queue_us) == (4, 2**31 - 1, 4 * 10**15)
    Window.objects.update(queue_us=10**18)
    send(report(seq=9, windows=[window(deployment, **odd)]))
    assert Window.objects.get().queue_us == 10**18


@pytest.mark.django_db
@pytest.mark.parametrize("change", [{"cache_hits": 41}, {"queue_us": -1}, {"compute_us": -1}, {"rejected": -1}])
def test_database_refuses_when_window_is_inconsistent(change, deployment) -> None:
    send(report(windows=[window(deployment)]))
    with pytest.raises(IntegrityError), transaction.atomic():
        Window.objects.update(**change)


@pytest.mark.django_db
def test_server_tells_memory_pid_start_and_version_when_it_reports(deployment) -> None:
    seen = {
        "state": "ready", "memory_bytes": 5, "cost_us": 41.5, "provider": "cpu",
        "batching": {"max": 8, "why": "8 together cost 1.3 times one."},
    }  # fmt: skip
    told = {"memory_bytes": 2**31, "pid": 4711, "started": START + 0.5, "version": "0.3.0"}
    send(report(deployments={str(deployment.pk): seen}, **told))
    server = Server.objects.get()
    assert (server.memory_bytes, server.pid, server.version) == (2**31, 4711, "0.3.0")
    assert server.started_at.timestamp() == START + 0.5
    assert server.deployments == {str(deployment.pk): {**seen, "reason": "", "sha256": ""}}
    send(report(seq=2))  # an older server in its place
    server.refresh_from_db()
    assert (server.memory_bytes, server.pid, server.version) == (0, None, "")


@pytest.mark.django_db
def test_performance_says_where_the_time_went_when_summed(deployment, new_version, django_assert_num_queries) -> None:
    now = timezone.now()
    idle = Deployment.objects.create(endpoint=deployment.endpoint, artifact=new_version().artifacts.get())
    for age in (5, 10, 900):
        Window.objects.create(
            deployment=deployment, start=now - dt.timedelta(seconds=age), latency={"87": 40},
            **{**FULL, "queue_us": 6000},
        )  # fmt: skip
    with django_assert_num_queries(1):
        found = performance.performance([deployment.pk, idle.pk], minutes=5)
    row = found[deployment.pk]
    assert (row["requests"], row["cache_hits"], row["rejected"], row["runs"]) == (80, 20, 6, 16)
    assert row["per_second"] == pytest.approx(80 / 300, abs=0.001)
    assert (row["queue_ms"], row["compute_ms"]) == (0.2, 1.0)  # of the 60 that the model answered
    assert row["batches"] == [{"size": 1, "runs": 8, "share": 0.5}, {"size": 8, "runs": 8, "share": 0.5}]
    assert (row["mean_batch"], row["cache_hit_share"], row["error_share"]) == (4.5, 0.25, 0.0)
    none = found[idle.pk]
    assert (none["requests"], none["per_second"], none["batches"]) == (0, 0, [])
    assert {none[key] for key in ("queue_ms", "compute_ms", "p50_ms", "mean_batch", "cache_hit_share")} == {None}
    assert performance.performance([]) == {}


@pytest.mark.django_db
def test_times_are_unknown_when_servers_do_not_tell_them(deployment) -> None:
    fill(deployment, [1000.0] * 20, timezone.now())
    row = performance.performance([deployment.pk])[deployment.pk]
    assert row["requests"] == 20 and row["queue_ms"] is None and row["compute_ms"] is None


@pytest.mark.django_db
def test_lines_lie_on_the_axis_when_drawn(deployment, django_assert_num_queries) -> None:
    start = int(timezone.now().timestamp()) // 10 * 10 - 60
    at = dt.datetime.fromtimestamp(start, dt.UTC)
    Window.objects.create(deployment=deployment, start=at, **{**FULL, "queue_us": 6000})
    Window.objects.create(deployment=deployment, start=at + dt.timedelta(seconds=5), rejected=3)
    with django_assert_num_queries(3):
        (line,) = selectors.series([deployment])["lines"]
    place = selectors.series([deployment])["times"].index(start)
    assert [line[name][place] for name in performance.LINES] == [0.2, 1.0, 25.0, 36.0]
    assert all(len(line[name]) == 90 and line[name][place - 1] is None for name in performance.LINES)


@pytest.mark.django_db
def test_stats_make_the_same_queries_when_there_is_more(deployment, as_user, new_version) -> None:
    client, url = as_user("viewer"), f"/api/v1/endpoints/{deployment.endpoint_id}/stats"

    def count() -> tuple[int, Any]:
        with CaptureQueriesContext(connection) as captured:
            rows = client.get(url).json()
        return len(captured), rows

    fill(deployment, [1000.0] * 20, timezone.now())
    client.get(url)
    few, _ = count()
    for _ in range(5):
        other = Deployment.objects.create(endpoint=deployment.endpoint, artifact=new_version().artifacts.get())
        for age in range(5):
            Window.objects.create(deployment=other, start=timezone.now() - dt.timedelta(seconds=age), **FULL)
    many, rows = count()
    assert many == few and len(rows) == 6
    assert rows[-1]["batches"] == [{"size": 1, "runs": 20, "share": 0.5}, {"size": 8, "runs": 20, "share": 0.5}]
    assert rows[0]["queue_ms"] is None and rows[-1]["rejected"] == 15
