"""Serving settings, providers, upstreams and quotas: checked, stored, and told to the servers."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from pydantic import ValidationError

from deployments import desired, rollouts, services, tuning
from deployments.models import Deployment, Endpoint
from serving.document import parse_document
from slipway.accounts import services as accounts
from slipway.accounts.models import Token
from slipway.api.problems import Conflict, Problem
from slipway.audit.models import Entry
from tests.api.tools import problem

pytestmark = pytest.mark.django_db
FULL = {
    "sticky_header": "x-customer",
    "limits": {"concurrency": 4, "queue": 16},
    "cache": {"mb": 64, "ttl_s": 300},
    "batching": {"mode": "auto", "max": 32, "budget_ms": 5.5},
}
UPSTREAM = {"url": "http://triton:8000", "model": "digits", "version": "2", "timeout_s": 3.5}


def settings(**given: Any) -> tuning.EndpointSettings:
    return tuning.EndpointSettings.model_validate(given)


def patch(client: Any, endpoint: Endpoint, body: Any, match: str = "*") -> Any:
    return client.patch(f"/api/v1/endpoints/{endpoint.pk}", body, format="json", headers={"If-Match": match})


# Settings over the API


def test_settings_are_stored_and_told_when_changed(endpoint, as_user) -> None:
    answer = patch(as_user("operator"), endpoint, {"settings": FULL}, f'"{endpoint.revision}"')
    assert answer.status_code == 200 and answer.json()["settings"] == FULL
    assert answer.headers["ETag"] == f'"{endpoint.revision + 1}"'
    told = desired.document()["endpoints"][0]
    assert {key: told[key] for key in FULL} == FULL
    entry = Entry.objects.get(action="endpoint.settings")
    assert (entry.data["settings"], entry.data["before"], entry.actor_name) == (FULL, {}, "operator")


def test_other_settings_stay_when_one_is_changed_and_null_takes_it_back(endpoint, as_user) -> None:
    client = as_user("operator")
    patch(client, endpoint, {"settings": FULL})
    answer = patch(client, endpoint, {"settings": {"cache": None, "batching": {"mode": "off"}}})
    assert answer.json()["settings"] == {
        "sticky_header": "x-customer", "limits": FULL["limits"], "batching": {"mode": "off"},
    }  # fmt: skip
    answer = patch(client, endpoint, {"settings": dict.fromkeys(FULL)})
    assert answer.json()["settings"] == {} and not FULL.keys() & desired.document()["endpoints"][0].keys()


def test_settings_are_stored_when_an_endpoint_is_made_with_them(project, as_user) -> None:
    body = {"project": project.slug, "name": "second", "settings": FULL}
    answer = as_user("operator").post("/api/v1/endpoints", body, format="json")
    assert answer.status_code == 201 and answer.json()["settings"] == FULL
    assert Entry.objects.get(action="endpoint.create").data["settings"] == FULL
    body = {"name": "third", "settings": {"cache": {"mb": 0, "ttl_s": 1}}}
    problem(as_user("operator").post("/api/v1/endpoints", body, format="json"), 422, field="settings.cache.mb")


def test_nothing_happens_when_settings_are_the_same(endpoint, as_user) -> None:
    patch(as_user("operator"), endpoint, {"settings": FULL})
    before, revision = desired.generation(), Endpoint.objects.get().revision
    assert patch(as_user("operator"), endpoint, {"settings": FULL}).status_code == 200
    assert (desired.generation(), Endpoint.objects.get().revision) == (before, revision)
    assert Entry.objects.filter(action="endpoint.settings").count() == 1


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"limits": {"concurrency": 0, "queue": 1}}, "settings.limits.concurrency"),
        ({"limits": {"concurrency": 4}}, "settings.limits.queue"),
        ({"limits": {"concurrency": 4, "queue": -1}}, "settings.limits.queue"),
        ({"limits": {"concurrency": "4", "queue": 1}}, "settings.limits.concurrency"),
        ({"limits": {"concurrency": True, "queue": 1}}, "settings.limits.concurrency"),
        ({"limits": {"concurrency": 2**40, "queue": 1}}, "settings.limits.concurrency"),
        ({"cache": {"mb": 4097, "ttl_s": 1}}, "settings.cache.mb"),
        ({"cache": {"mb": 1, "ttl_s": 86401}}, "settings.cache.ttl_s"),
        ({"cache": {"mb": 1.5, "ttl_s": 1}}, "settings.cache.mb"),
        ({"batching": {"mode": "on"}}, "settings.batching.mode"),
        ({"batching": {"mode": "auto", "max": 1}}, "settings.batching.max"),
        ({"batching": {"mode": "auto", "budget_ms": 0}}, "settings.batching.budget_ms"),
        ({"batching": {"mode": "off", "max": 8}}, "settings.batching"),
        ({"sticky_header": "X-Key"}, "settings.sticky_header"),
        ({"sticky_header": "a b"}, "settings.sticky_header"),
        ({"sticky_header": "a\x00"}, "settings.sticky_header"),
        ({"speed": 1}, "settings.speed"),
        ([], "settings"),
    ],
)
def test_settings_are_422_at_their_field_when_wrong(given, field, endpoint, as_user) -> None:
    problem(patch(as_user("operator"), endpoint, {"settings": given}), 422, field=field)
    assert Endpoint.objects.get().revision == endpoint.revision


def test_settings_want_a_current_etag_when_changed(endpoint, as_user) -> None:
    url = f"/api/v1/endpoints/{endpoint.pk}"
    problem(as_user("operator").patch(url, {"settings": FULL}, format="json"), 428)
    problem(patch(as_user("operator"), endpoint, {"settings": FULL}, '"99"'), 412)
    with pytest.raises(Problem, match="changed since"):
        services.settings_change(actor=None, endpoint=endpoint, settings=settings(), revision=99)


@pytest.mark.parametrize(
    "change",
    [
        {"sticky_header": "X-Key"}, {"limit_concurrency": 4}, {"limit_queue": 4},
        {"limit_concurrency": 0, "limit_queue": 0}, {"cache_mb": 4}, {"cache_mb": 5000, "cache_ttl_s": 1},
        {"cache_mb": 1, "cache_ttl_s": 0}, {"batching_mode": "on"}, {"batching_max": 8},
        {"batching_mode": "off", "batching_max": 8}, {"batching_mode": "auto", "batching_max": 257},
        {"batching_mode": "auto", "batching_budget_ms": 0}, {"batching_mode": "auto", "batching_budget_ms": "NaN"},
    ],
)  # fmt: skip
def test_database_refuses_when_settings_are_inconsistent(change, endpoint) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Endpoint.objects.update(**change)


# What runs a deployment


def test_deployment_tells_provider_and_upstream_only_when_chosen(project, artifacts) -> None:
    for name, chosen in {
        "plain": {}, "gpu": {"provider": "cuda"}, "far": {"upstream": {**UPSTREAM, "url": "HTTP://Triton:8000/"}},
    }.items():  # fmt: skip
        services.endpoint_create(actor=None, project=project, name=name, artifact=artifacts[0], **chosen)
    told = {one["name"]: one["deployments"][0] for one in desired.document()["endpoints"]}
    assert not {"provider", "upstream"} & told["plain"].keys()
    assert told["gpu"]["provider"] == "cuda" and "upstream" not in told["gpu"]
    assert told["far"]["upstream"] == UPSTREAM and told["far"]["artifact"]["sha256"] == artifacts[0].sha256


def test_document_is_taken_by_the_server_when_everything_is_set(endpoint, people, artifacts) -> None:
    Endpoint.objects.update(access="token")
    accounts.token_create(user=people["developer"], name="t", rate=2.5)
    accounts.token_create(user=people["developer"], name="u")
    services.settings_change(actor=people["operator"], endpoint=endpoint, settings=settings(**FULL))
    services.candidate_add(
        actor=None, endpoint=endpoint, artifact=artifacts[1], runtime=tuning.runtime_of(upstream=UPSTREAM)
    )
    services.candidate_add(actor=None, endpoint=endpoint, artifact=artifacts[1], runtime=tuning.runtime_of("openvino"))
    (spec,) = parse_document(desired.document()).endpoints
    assert spec.limits == (4, 16) and spec.sticky_header == "x-customer" and list(spec.quotas.values()) == [(2.5, 3)]
    assert len(spec.tokens) == 2 and {one.provider for one in spec.deployments} == {"cpu", "openvino"}
    assert [one.upstream.url for one in spec.deployments if one.upstream] == ["http://triton:8000"]


def test_same_version_moves_to_another_provider_by_rollout_and_keeps_it_afterwards(
    endpoint, artifacts, as_user
) -> None:
    body = {"endpoint": endpoint.pk, "artifact": artifacts[0].pk}
    problem(as_user("operator").post("/api/v1/rollouts", body, format="json"), 422, field="artifact")
    problem(as_user("operator").post("/api/v1/rollouts", {**body, "provider": "cpu"}, format="json"), 422)
    answer = as_user("operator").post("/api/v1/rollouts", {**body, "provider": "cuda"}, format="json")
    assert answer.status_code == 201, answer.content
    candidate = Deployment.objects.get(pk=answer.json()["candidate"])
    assert (candidate.provider, candidate.artifact_id) == ("cuda", artifacts[0].pk)
    assert Entry.objects.get(action="rollout.start").data["provider"] == "cuda"
    services.weights_set(endpoint=endpoint, weights={candidate.pk: 100})
    rollouts.Rollout.objects.all().delete()
    nothing_said = rollouts.rollout_start(actor=None, endpoint=endpoint, artifact=artifacts[1])
    assert nothing_said.candidate.provider == "cuda"


def test_place_takes_provider_and_upstream_over_the_api(project, artifacts, as_user) -> None:
    empty = services.endpoint_create(actor=None, project=project, name="empty")
    url, client = f"/api/v1/endpoints/{empty.pk}/place", as_user("operator")
    wrong = {"artifact": artifacts[0].pk, "upstream": {**UPSTREAM, "url": "http://169.254.169.254"}}
    problem(client.post(url, wrong, format="json"), 422, field="upstream.url")
    both = {"artifact": artifacts[0].pk, "upstream": UPSTREAM, "provider": "cuda"}
    problem(client.post(url, both, format="json"), 422)
    problem(client.post(url, {"artifact": artifacts[0].pk, "provider": "tpu"}, format="json"), 422, field="provider")
    answer = client.post(url, {"artifact": artifacts[0].pk, "upstream": UPSTREAM}, format="json")
    assert answer.status_code == 201 and answer.json()["deployments"][0]["upstream"] == UPSTREAM
    assert Entry.objects.get(action="deployment.place").data["upstream"] == UPSTREAM


def test_ort_file_is_served_when_it_is_signed(project, artifacts) -> None:
    from deployments import desired
    from registry.signing import attest

    artifact = artifacts[0]
    artifact.format, artifact.file_name = "ort", "model.ort"
    named = {"format": "ort", "sha256": artifact.sha256, "size": artifact.size, "file_name": "model.ort"}
    artifact.attestation = attest(artifact.version, **named)
    artifact.save()
    services.endpoint_create(actor=None, project=project, name="edge", artifact=artifact)
    row = next(each for each in desired.document()["endpoints"] if each["name"] == "edge")["deployments"][0]
    assert row["artifact"]["format"] == "ort" and row["artifact"]["sha256"] == artifact.sha256


def test_any_format_may_be_forwarded_and_rejected_ones_never(project, artifacts) -> None:
    artifact = artifacts[0]
    artifact.format = "saved-model"
    empty = services.endpoint_create(actor=None, project=project, name="empty")
    with pytest.raises(Problem, match="serves ONNX"):
        services.deployment_place(actor=None, endpoint=empty, artifact=artifact)
    artifact.verdict = "rejected"
    with pytest.raises(Conflict, match="rejected"):
        services.deployment_place(actor=None, endpoint=empty, artifact=artifact, upstream=UPSTREAM)
    artifact.verdict = "clean"
    row = services.deployment_place(actor=None, endpoint=empty, artifact=artifact, upstream=UPSTREAM)
    assert row.upstream == UPSTREAM and row.provider == "cpu"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a:1", "file:///etc/passwd", "a:8000", "//a:8000", "", "http://", "http://:80", "http://a:0", "http://a:x",
        "http://a:99999", "http://user@a", "http://user:pw@a:1", "http://a/path", "http://a:1?x=1", "http://a?", "http://a#b",
        "http://a b", "http://a\\b", "http://a\n:1", "http://ａ", "http://[::1", "http://-a", "http://a/../b",
        "http://169.254.169.254", "http://169.254.0.1:80", "http://2852039166", "http://0xA9FEA9FE:80", "http://0251.0376.1.1",
        "http://169.254.43518", "http://169.254.169.254.", "http://[fe80::1]", "http://[::ffff:169.254.169.254]:80",
        "http://[64:ff9b::a9fe:a9fe]", "http://[2002:a9fe:a9fe::1]", "http://[fd00:ec2::254]", "http://100.100.100.200",
        "http://0.0.0.0", "http://[::]", "http://224.0.0.1", "http://metadata.google.internal", "http://METADATA.", "http://a%2fb",
    ],
)  # fmt: skip
def test_upstream_is_refused_when_address_is(url: str) -> None:
    with pytest.raises(ValidationError) as refused:
        tuning.runtime_of(upstream={**UPSTREAM, "url": url})
    assert [error["loc"] for error in refused.value.errors()] == [("upstream", "url")]


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://triton:8000", "http://triton:8000"), ("https://Models.Example.com/", "https://models.example.com"),
        ("http://10.0.0.7:8000", "http://10.0.0.7:8000"), ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("http://[fd12::7]:8000", "http://[fd12::7]:8000"), ("http://tf_serving:8501", "http://tf_serving:8501"),
    ],
)  # fmt: skip
def test_upstream_is_taken_when_address_is(url: str, kept: str) -> None:
    assert tuning.runtime_of(upstream={"url": url, "model": "m"}) == {
        "provider": "cpu", "upstream": {"url": kept, "model": "m", "version": None, "timeout_s": 10},
    }  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"model": "../x"}, {"model": ""}, {"model": "a/b"}, {"version": "a b"}, {"timeout_s": 0}, {"timeout_s": 1e9},
        {"x": 1},
    ],
)  # fmt: skip
def test_upstream_is_refused_when_a_part_is_wrong(change) -> None:
    with pytest.raises(ValidationError):
        tuning.runtime_of(upstream={**UPSTREAM, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"provider": "tpu"}, {"upstream": []}, {"upstream": ["url", "model", "timeout_s"]}, {"upstream": 5},
        {"upstream": {"url": "http://a"}}, {"upstream": {**UPSTREAM, "url": "ftp://a"}}, {"upstream": None},
        {"upstream": {**UPSTREAM, "url": "http://u@a"}}, {"upstream": {**UPSTREAM, "timeout_s": 0}},
        {"upstream": UPSTREAM, "provider": "cuda"},
    ],
)  # fmt: skip
def test_database_refuses_when_runtime_is_inconsistent(change, endpoint) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        endpoint.deployments.update(**change)


# The generation


def test_generation_rises_when_settings_runtime_or_quota_change(endpoint, people) -> None:
    token = accounts.token_create(user=people["developer"], name="t")[0]

    def sql(text: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(text)

    changes = {
        **{
            key: lambda key=key: services.settings_change(
                actor=people["operator"], endpoint=endpoint, settings=settings(**{key: FULL[key]})
            )
            for key in FULL
        },
        "by hand": lambda: sql("UPDATE deployments_endpoint SET batching_budget_ms = 7"),
        "provider": lambda: sql("UPDATE deployments_deployment SET provider = 'cuda'"),
        "upstream": lambda: endpoint.deployments.update(provider="cpu", upstream=UPSTREAM),
        "quota": lambda: Token.objects.filter(pk=token.pk).update(rate=5, burst=5),
        "burst": lambda: Token.objects.filter(pk=token.pk).update(burst=6),
        "access": lambda: Endpoint.objects.update(access="token"),
        "token": lambda: Token.objects.filter(pk=token.pk).update(scope="read"),
    }
    for name, change in changes.items():
        before = desired.generation()
        change()
        assert desired.generation() > before, name
    before = desired.generation()
    Endpoint.objects.update(description="new")
    assert desired.generation() == before
