"""Problems, idempotency, entity tags, cursors, queries, and text that a database does not take."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from deployments import services as endpoints
from deployments.models import DesiredState
from monitoring import services as monitors
from registry.models import Alias, Model
from slipway.accounts.models import Membership, Project
from slipway.api.models import IdempotencyRecord
from slipway.jobs.models import Job
from slipway.jobs.services import submit
from tests.api.tools import problem, race

JSON = "application/json"


@pytest.fixture
def api(as_user, db) -> APIClient:
    DesiredState.objects.get_or_create(pk=1)
    return as_user("admin")


def post(api: APIClient, path: str, body: Any, **headers: str) -> Any:
    text = body if isinstance(body, bytes | str) else json.dumps(body)
    return api.post(f"/api/v1/{path}", text, content_type=JSON, headers=headers)


# Problems


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"", b"nonsense", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b'{"project": NaN}', b"[]",
        b"null", b'"x"',
        b'{"project": 1e999, "name": "x"}', b"{\"project\": \"vision\", \"name\": \"x\"} trailing",
        b'{"name": "\\ud800", "project": "vision"}', b'{"name": "a\\u0000b", "project": "vision"}',
        b'{"name": "x", "project": "vision", "description": "a\\u0000b"}',
        b'{"name": "x", "project": "vision", "tags": ["a\\u0000b"]}',
        b'{"name": "x", "project": "vision", "tags": ["\\udfff"]}',
        b'{"name": "x", "project": "vision", "tags": {"a": 1}}',
        b'{"name": {"a": 1}, "project": ["vision"]}', b'{"name": "x", "project": "a\\u0000b"}',
        b'{"name": "x", "project": "vision", "task": "a\\u0000b"}',
    ],
)  # fmt: skip
def test_model_is_refused_with_a_problem_when_body_is(body: bytes, api) -> None:
    for headers in ({}, {"Idempotency-Key": "k"}):
        answer = post(api, "models", body, **headers)
        problem(answer, answer.status_code)
        assert answer.status_code in {400, 422}, answer.content
    assert not Model.objects.exists() and not IdempotencyRecord.objects.exists()
    assert post(api, "models", {"project": "vision", "name": "x"}).status_code == 201


@pytest.mark.parametrize("path", ["models", "endpoints", "policies", "rollouts"])
def test_body_is_413_when_too_large(path: str, api) -> None:
    body = b'{"name": "' + b"x" * 6_000_000 + b'"}'
    problem(post(api, path, body), 413)
    problem(post(api, path, body, **{"Idempotency-Key": "k"}), 413)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "nothing", 404), ("GET", "models/999999", 404), ("GET", f"models/{'9' * 40}", 404),
        ("GET", "models/x", 404), ("GET", "models?cursor=nonsense", 404),
        ("DELETE", "models", 405), ("PUT", "models", 405), ("POST", "jobs", 405), ("DELETE", "alerts/1", 405),
        ("GET", "models?project=%00", 422), ("GET", "models?task=zzz", 422), ("GET", "versions?model=zzz", 422),
        ("GET", "jobs?state=zzz", 422), ("GET", "endpoints?access=zzz", 422),
        ("GET", "jobs/1?wait=abc", 400), ("GET", "jobs/1?wait=nan", 400), ("GET", "jobs/1?wait=99", 400),
        ("GET", "endpoints/1/stats?minutes=0", 404),
    ],
)  # fmt: skip
def test_problem_has_its_shape_when_request_is_wrong(method: str, path: str, status: int, api) -> None:
    problem(api.generic(method, f"/api/v1/{path}", content_type=JSON), status)


@pytest.mark.parametrize(
    "path",
    [
        "versions?number=99999999999999999999", "versions?model=99999999999999999999", "artifacts?sha256=%00",
        "models?archived=zzz", "jobs?parent=99999999999999999999", "rollouts?endpoint=99999999999999999999",
        "models?limit=abc", "models?limit=-1", "models?limit=99999999999999999999", "datasets?role=x",
        "jobs?kind=%00", "endpoints?name=%00", "versions?alias=%00", "policies?model=99999999999999999999",
        "alerts?state=x", "rollouts?live=x",
    ],
)  # fmt: skip
def test_filter_never_breaks_when_value_is_odd(path: str, api) -> None:
    assert api.get(f"/api/v1/{path}").status_code in {200, 404, 422}


def test_problem_is_406_when_another_form_is_wanted(api) -> None:
    problem(api.get("/api/v1/models", headers={"Accept": "text/csv"}), 406)


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "multipart/form-data; boundary=x", "x", ""])
def test_problem_is_415_when_body_is_of_another_type(kind: str, api) -> None:
    problem(api.generic("POST", "/api/v1/models", "a=1", content_type=kind), 415)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("models", {}, "project"), ("models", {"project": "vision"}, "name"),
        ("models", {"project": "zzz", "name": "x"}, "project"),
        ("models", {"project": "vision", "name": "a/b"}, "name"),
        ("models", {"project": "vision", "name": "x", "task": "zzz"}, "task"),
        ("endpoints", {"name": "Bad Name"}, "name"), ("endpoints", {"name": "e", "access": "zzz"}, "access"),
        ("endpoints", {"name": "e", "artifact": 999999}, "artifact"),
        ("endpoints", {"name": "e", "artifact": -1}, "artifact"),
        ("endpoints", {"name": "e", "artifact": "x"}, "artifact"),
        ("endpoints", {"name": "e", "artifact": 10**30}, "artifact"),
        ("rollouts", {"endpoint": 999999, "artifact": 1}, "endpoint"), ("rollouts", {"endpoint": 1}, "artifact"),
        ("policies", {"model": 999999, "name": "x"}, "model"),
    ],
)  # fmt: skip
def test_problem_names_the_field_when_it_is_wrong(path: str, body, field: str, api) -> None:
    problem(post(api, path, body), 422, field=field)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"steps": [{"weight": 10}]}, "steps"), ({"steps": []}, "steps"), ({"steps": [{"weight": -1}]}, "steps"),
        ({"steps": "x"}, "steps"), ({"steps": [1]}, "steps"), ({"steps": [{"weight": 100, "x\x00": "\x00"}]}, "steps"),
        ({"guard": {}}, "guard"), ({"guard": {"max_error_share": 5}}, "guard"), ({"guard": 1}, "guard"),
    ],
)  # fmt: skip
def test_problem_names_the_field_when_a_plan_is_wrong(change, field: str, api, project, new_version) -> None:
    one, two = (new_version().artifacts.get() for _ in range(2))
    endpoint = endpoints.endpoint_create(actor=None, project=project, name="e", artifact=one)
    body = problem(post(api, "rollouts", {"endpoint": endpoint.pk, "artifact": two.pk, **change}), 422)
    assert body["errors"][0]["field"].split(".")[0] == field


def test_problem_is_412_or_428_when_if_match_is_stale_or_missing(api, model, project, new_version) -> None:
    artifact = new_version().artifacts.get()
    endpoint = endpoints.endpoint_create(actor=None, project=project, name="e", artifact=artifact)
    policy = monitors.policy_create(actor=None, model=model, name="p")
    for method, path, body in (
        ("PATCH", f"models/{model.pk}", {"description": "x"}),
        ("PATCH", f"policies/{policy.pk}", {"enabled": False}),
        ("PUT", f"endpoints/{endpoint.pk}/weights", {"weights": {}}),
        ("DELETE", f"endpoints/{endpoint.pk}", None),
    ):
        url = f"/api/v1/{path}"
        problem(api.generic(method, url, json.dumps(body), content_type=JSON), 428, "precondition_required")
        for stale in ('"999"', "", "nonsense", 'W/"1"', "\xff"):
            answer = api.generic(method, url, json.dumps(body), content_type=JSON, headers={"If-Match": stale})
            problem(answer, 412, "precondition_failed")


def test_change_succeeds_once_when_its_tag_is_used_twice(api, model) -> None:
    url = f"/api/v1/models/{model.pk}"
    tag = api.get(url).headers["ETag"]
    assert api.patch(url, {"description": "one"}, headers={"If-Match": tag}).headers["ETag"] != tag
    problem(api.patch(url, {"description": "two"}, headers={"If-Match": tag}), 412)
    assert Model.objects.get().description == "one"


@pytest.mark.django_db(transaction=True)
def test_one_change_wins_when_six_use_the_same_tag_at_once(api, people, model, project, new_version) -> None:
    artifact = new_version().artifacts.get()
    endpoint = endpoints.endpoint_create(actor=None, project=project, name="e", artifact=artifact)
    deployment = endpoint.deployments.get().pk
    policy = monitors.policy_create(actor=None, model=model, name="p")
    for method, path, body in (
        ("PATCH", f"models/{model.pk}", {"description": "x"}),
        ("PATCH", f"policies/{policy.pk}", {"cooldown_seconds": 5}),
        ("PUT", f"endpoints/{endpoint.pk}/weights", {"weights": {deployment: 100}}),
    ):
        tag = api.get(f"/api/v1/{path.removesuffix('/weights')}").headers["ETag"]

        def work(index: int) -> int:
            mine = APIClient()
            mine.force_authenticate(people["root"])
            url = f"/api/v1/{path}"  # noqa: B023
            return mine.generic(method, url, json.dumps(body), content_type=JSON, headers={"If-Match": tag}).status_code  # noqa: B023

        assert sorted(race(6, work)) == [200, 412, 412, 412, 412, 412], path


def test_answer_carries_the_request_id_when_given(api) -> None:
    assert api.get("/api/v1/models", headers={"X-Request-Id": "abc-1"}).headers["X-Request-Id"] == "abc-1"
    for bad in ("a" * 65, "a b", "é", "<b>"):
        assert api.get("/api/v1/models", headers={"X-Request-Id": bad}).headers["X-Request-Id"] != bad


@pytest.mark.django_db(transaction=True)
def test_same_name_gives_409_or_422_when_eight_create_it_at_once(api, people, model, new_version) -> None:
    new_version()

    def work(index: int) -> tuple[int, ...]:
        mine = APIClient(raise_request_exception=False)
        mine.force_authenticate(people["root"])
        return (
            post(mine, "models", {"project": "vision", "name": "same"}).status_code,
            post(mine, "endpoints", {"project": "vision", "name": "same"}).status_code,
            mine.put(f"/api/v1/models/{model.pk}/aliases/champion", {"version": 1}).status_code,
        )

    done = race(8, work)
    for column in zip(*done, strict=True):
        assert set(column) <= {200, 201, 409, 422}, done
    assert [row[0] for row in done].count(201) == 1 and [row[1] for row in done].count(201) == 1


# Idempotency


def test_first_answer_is_given_again_when_key_and_body_are_the_same(api) -> None:
    first = post(api, "models", {"project": "vision", "name": "x"}, **{"Idempotency-Key": "k"})
    again = post(api, "models", {"project": "vision", "name": "x"}, **{"Idempotency-Key": "k"})
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json() and again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["Location"] == first.headers["Location"] and Model.objects.count() == 1


def test_key_is_refused_when_body_or_path_differ(api) -> None:
    post(api, "models", {"project": "vision", "name": "x"}, **{"Idempotency-Key": "k"})
    for path, body in (
        ("models", {"project": "vision", "name": "y"}), ("endpoints", {"project": "vision", "name": "x"}),
    ):  # fmt: skip
        answer = post(api, path, body, **{"Idempotency-Key": "k"})
        problem(answer, 422, "idempotency_key_reused", field="Idempotency-Key")
    problem(post(api, "models", {}, **{"Idempotency-Key": "k" * 256}), 422, field="Idempotency-Key")


def test_key_is_free_when_first_request_failed_or_was_anothers(api, as_user) -> None:
    problem(post(api, "models", {"project": "vision", "name": "a/b"}, **{"Idempotency-Key": "k"}), 422)
    assert post(api, "models", {"project": "vision", "name": "x"}, **{"Idempotency-Key": "k"}).status_code == 201
    other = post(as_user("developer"), "models", {"project": "vision", "name": "y"}, **{"Idempotency-Key": "k"})
    assert other.status_code == 201


@pytest.mark.django_db(transaction=True)
def test_work_is_done_once_when_eight_send_the_same_key_at_once(api, people) -> None:
    def work(index: int) -> Any:
        mine = APIClient()
        mine.force_authenticate(people["root"])
        return post(mine, "models", {"project": "vision", "name": "x"}, **{"Idempotency-Key": "k"})

    done = race(8, work)
    assert {answer.status_code for answer in done} == {201}
    assert all(answer.json() == done[0].json() for answer in done)
    assert Model.objects.count() == 1


# Cursors and queries


def fill(project: Any, count: int) -> None:
    """`count` more rows of everything."""
    from registry.models import Artifact, Version
    from registry.signing import attest

    base = Model.objects.count()
    for n in range(base, base + count):
        model = Model.objects.create(project=project, name=f"m{n}", mlflow_name=f"m{n}")
        version = Version.objects.create(model=model, number=1, state="ready", origin="upload")
        Alias.objects.create(model=model, name="champion", version=version)
        named = {"format": "onnx", "sha256": f"{n:064x}", "size": 1, "file_name": "m"}
        artifact = Artifact.objects.create(
            version=version, **named, attestation=attest(version, **named), uri="x", verdict="clean"
        )
        endpoints.endpoint_create(actor=None, project=project, name=f"e{n}", artifact=artifact)
        monitors.policy_create(actor=None, model=model, name="p")
        monitors.alert_raise(project_id=project.pk, key=f"k{n}", title="t")
        submit("ingest", project=project, params={"version_id": version.pk})


@pytest.mark.parametrize("path", ["models", "versions", "artifacts", "endpoints", "policies", "alerts", "jobs"])
def test_every_row_comes_once_when_rows_are_added_between_pages(path: str, api, project) -> None:
    fill(project, 7)
    url, seen = f"/api/v1/{path}?limit=3", []
    while url:
        page = api.get(url).json()
        assert set(page) == {"next", "previous", "results"} and len(page["results"]) <= 3
        seen += [row["id"] for row in page["results"]]
        url = page["next"]
        if len(seen) == 3:
            fill(project, 2)
    assert len(seen) == 7 and seen == sorted(set(seen), reverse=True)


@pytest.mark.parametrize("who", ["viewer", "root"])
def test_lists_need_as_many_queries_when_rows_are_50_instead_of_5(who: str, as_user, api, project, people) -> None:
    paths = ["models", "versions", "artifacts", "datasets", "targets", "endpoints", "policies", "alerts", "jobs"]
    fill(project, 5)
    counts: list[dict[str, int]] = []
    for _ in range(2):
        counts.append({})
        for path in [*paths, "rollouts"]:
            people[who].__dict__.pop("_roles", None)
            with CaptureQueriesContext(
                connection,
            ) as captured:
                assert api_get(as_user(who), f"{path}?limit=100")
            counts[-1][path] = len(captured)
        fill(project, 45)
    assert counts[0] == counts[1] and max(counts[0].values()) <= 5, counts


def api_get(api: APIClient, path: str) -> bool:
    return bool(api.get(f"/api/v1/{path}").status_code == 200)


def test_lists_hold_only_the_rows_of_ones_projects_when_read(as_user, api, project, people) -> None:
    fill(project, 2)
    foreign = Project.objects.get(slug="other")
    theirs = Model.objects.create(project=foreign, name="theirs")
    Membership.objects.filter(user=people["stranger"]).update(role="viewer")
    assert [row["id"] for row in as_user("stranger").get("/api/v1/models").json()["results"]] == [theirs.pk]
    assert theirs.pk not in [row["id"] for row in as_user("viewer").get("/api/v1/models").json()["results"]]


# What a body may not set


def test_fields_of_the_system_are_ignored_when_a_body_sets_them(api, project) -> None:
    body = {
        "project": "vision", "name": "x", "id": 77, "last_number": 50, "revision": 9, "mlflow_name": "stolen",
        "archived_at": "2020-01-01T00:00:00Z", "created_at": "2020-01-01T00:00:00Z", "aliases": [{"name": "champion"}],
        "stars": [1], "is_superuser": True, "tags": ["kiosk"], "description": "text", "task": "embedding",
    }  # fmt: skip
    made = post(api, "models", body).json()
    row = Model.objects.get()
    assert row.pk != 77 and (row.last_number, row.revision, row.mlflow_name, row.archived_at) == (0, 1, None, None)
    assert row.created_at.year > 2020 and not row.aliases.exists() and not row.stars.exists()
    assert (made["tags"], made["description"], made["task"]) == (["kiosk"], "text", "embedding")
    url = f"/api/v1/models/{row.pk}"
    change = {"name": "y", "last_number": 5, "project": "other", "id": 1, "description": "new"}
    assert api.patch(url, change, headers={"If-Match": "*"}).status_code == 200
    row.refresh_from_db()
    assert (row.name, row.last_number, row.project, row.description) == ("x", 0, project, "new")


def test_state_is_ignored_when_a_body_sets_it(api, project, new_version) -> None:
    version = new_version(state="pending")
    url = f"/api/v1/versions/{version.pk}"
    problem(api.patch(url, {"state": "ready"}), 405)
    made = post(api, "endpoints", {"project": "vision", "name": "e", "revision": 9, "target": 99, "id": 5}).json()
    assert made["revision"] == 1 and made["id"] != 5 and made["target"] == "slipway"
    problem(post(api, f"versions/{version.pk}/decide", {"approve": True, "approved_by": 1}), 409)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "models/{model}", {"description": "a\x00b"}), ("PATCH", "models/{model}", {"tags": ["a\x00b"]}),
        ("PATCH", "models/{model}", {"tags": ["a" * 61]}), ("PATCH", "models/{model}", {"tags": [{}]}),
        ("PATCH", "models/{model}", {"description": "a" * 20_001}), ("PATCH", "models/{model}", {"archived": "x"}),
        ("POST", "versions/{version}/decide", {"approve": True, "note": "a\x00b"}),
        ("POST", "versions/{version}/decide", {"approve": "x"}), ("POST", "versions/{version}/decide", {}),
        ("POST", "versions/{version}/export", {"exporters": ["a\x00b"]}),
        ("POST", "versions/{version}/export", {"exporters": []}),
        ("POST", "versions/{version}/export", {"exporters": ["zzz"]}),
        ("POST", "versions/{version}/export", {"exporters": ["onnx"], "options": {"onnx": {"a\x00": "\x00"}}}),
        ("POST", "versions/{version}/export", {"exporters": ["onnx"], "options": {"a\x00": {}}}),
        ("POST", "versions/{version}/export", {"exporters": ["onnx"], "options": {"onnx": 3}}),
        ("POST", "models/{model}/versions", {"artifact": "a\x00b"}),
        ("POST", "models/{model}/versions", {"artifact": "0" * 64}),
        ("POST", "artifacts/{artifact}/optimize", {"optimizer": "a\x00b"}),
        ("POST", "artifacts/{artifact}/optimize", {"optimizer": "zzz"}),
        ("POST", "artifacts/{artifact}/searches", {"goal": {"max_loss": "much"}}),
        ("POST", "artifacts/{artifact}/searches", {"goal": {"a\x00b": 1}}),
        ("POST", "artifacts/{artifact}/searches", {"dataset": 10**20}),
        ("POST", "artifacts/{artifact}/optimize", {"optimizer": "dynamic-quantization", "options": {"a\x00": "\x00"}}),
        ("POST", "artifacts/{artifact}/optimize", {"optimizer": "dynamic-quantization", "options": {"label": "\x00"}}),
        ("POST", "policies", {"model": "{model}", "name": "a\x00b"}),
        ("POST", "policies", {"model": "{model}", "name": "p", "cron": "a\x00 * * * *"}),
        ("POST", "policies", {"model": "{model}", "name": "p", "cron": "* * * *"}),
        ("POST", "policies", {"model": "{model}", "name": "p", "cron": "99 * * * *"}),
        ("POST", "policies", {"model": "{model}", "name": "p", "cooldown_seconds": -1}),
        ("PUT", "models/{model}/aliases/champion", {"version": 99}),
        ("PUT", "models/{model}/aliases/champion", {"version": "a\x00"}),
    ],
)  # fmt: skip
def test_change_is_422_when_a_value_is_bad(method: str, path: str, body, api, model, new_version) -> None:
    version = new_version()
    names = {"model": model.pk, "version": version.pk, "artifact": version.artifacts.get().pk}
    body = {key: names["model"] if value == "{model}" else value for key, value in body.items()}
    answer = api.generic(
        method, f"/api/v1/{path.format(**names)}", json.dumps(body), content_type=JSON, headers={"If-Match": "*"}
    )
    assert problem(answer, 422)["errors"], answer.content
    assert not Job.objects.exists() and not Alias.objects.exists()
