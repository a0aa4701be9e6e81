"""Uploads through the API: the real sandbox, a real MLflow, and files of every bad kind."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.db.models.functions import Now
from django.test import Client

from deployments.models import DesiredState
from registry import selectors, storage, upload
from registry.models import Artifact, Model, Version
from slipway import paths
from slipway.audit.models import Entry
from slipway.environment import environment
from tests.api.tools import problem, race
from tests.engine.onnx_files import HOSTILE, relu

GOOD = relu().SerializeToString()
SHA256 = hashlib.sha256(GOOD).hexdigest()
BINARY = "application/octet-stream"
pytestmark = pytest.mark.usefixtures("use_mlflow")


@pytest.fixture
def api(as_user) -> Any:
    DesiredState.objects.get_or_create(pk=1)
    return as_user("developer")


def send(api: Any, data: bytes = GOOD, /, kind: str = BINARY, headers: Any = None, **query: str) -> Any:
    from urllib.parse import urlencode

    names = urlencode({"project": "vision", "model": "uploaded", **query})
    return api.generic("POST", f"/api/v1/versions/upload?{names}", data, content_type=kind, headers=headers or {})


def nothing_left() -> None:
    assert not Model.objects.exists() and not Version.objects.exists() and not Artifact.objects.exists()
    assert not Entry.objects.exists()
    left = [path for path in paths.scratch().rglob("*") if path.is_file()] if paths.scratch().exists() else []
    assert not left
    assert not [path for path in paths.cache().rglob("*") if path.is_file()] if paths.cache().exists() else True


@pytest.mark.django_db
def test_version_is_registered_when_file_is_good(api, mlflow_url, people) -> None:
    answer = send(api, task="tabular-regression")
    assert answer.status_code == 201, answer.content
    version = Version.objects.select_related("model").get()
    artifact = version.artifacts.get()
    assert answer.json() == {
        "id": version.pk, "model": version.model_id, "number": 1, "sha256": SHA256, "url": answer.json()["url"],
    }  # fmt: skip
    assert (version.state, version.origin, version.framework) == ("ready", "upload", "onnx")
    assert version.model.task == "tabular-regression" and version.created_by == people["developer"]
    assert version.signature["inputs"][0]["name"] == "x" and version.params["opset"] == 17
    assert (artifact.sha256, artifact.size, artifact.verdict, artifact.format) == (SHA256, len(GOOD), "clean", "onnx")
    assert storage.open_cached(SHA256).read_bytes() == GOOD
    storage.open_cached(SHA256).unlink()
    assert storage.fetch_file(artifact.uri, sha256=SHA256, size_limit=10**6).read_bytes() == GOOD
    content = api.get(f"/api/v1/artifacts/{artifact.pk}/content")
    assert b"".join(content.streaming_content) == GOOD
    run = httpx.get(f"{mlflow_url}/api/2.0/mlflow/runs/get", params={"run_id": version.mlflow_run_id}).json()
    assert run["run"]["info"]["run_name"] == "uploaded upload"
    assert not [path for path in paths.scratch().rglob("*") if path.is_file()]
    assert send(api).json()["number"] == 2  # the same bytes again are a version of their own


@pytest.mark.django_db
def test_every_bad_file_is_refused_and_the_next_good_one_taken_when_uploaded(api) -> None:
    names = [
        "pickle", "random bytes", "truncated", "external parent", "external absolute", "custom domain", "zip",
        "opset 999", "cycle", "overflow", "unknown operator",
    ]  # fmt: skip
    for name in names:
        answer = send(api, HOSTILE[name][0]())
        body = problem(answer, answer.status_code, field="file")
        assert 400 <= answer.status_code < 500 and HOSTILE[name][1].lower() in body["detail"].lower(), (name, body)
        nothing_left()
    assert send(api).status_code == 201


@pytest.mark.django_db
def test_bomb_is_taken_as_the_bytes_it_is_when_it_says_gzip(api) -> None:
    bomb = gzip.compress(bytes(200 * 1024**2), 9)
    body = problem(send(api, bomb, headers={"Content-Encoding": "gzip"}), 422, field="file")
    assert "gzip archive" in body["detail"]
    nothing_left()


@pytest.mark.django_db
def test_upload_is_refused_when_empty(api) -> None:
    problem(send(api, b""), 422, "empty", field="file")
    nothing_left()


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"file_name": "../model.onnx"}, "file_name"), ({"file_name": "model.pkl"}, "file_name"),
        ({"file_name": "a\x00.onnx"}, "file_name"), ({"file_name": "a/b.onnx"}, "file_name"),
        ({"file_name": "a\n.onnx"}, "file_name"), ({"file_name": "m.onnx\n"}, "file_name"),
        ({"file_name": "\u202exnno.onnx"}, "file_name"), ({"file_name": "a" * 300 + ".onnx"}, "file_name"),
        ({"file_name": ""}, "file_name"), ({"model": "a\x00b"}, "model"), ({"model": ""}, "model"),
        ({"model": "../x"}, "model"), ({"model": "a" * 129}, "model"), ({"model": "name\n"}, "model"),
        ({"model": "<b>"}, "model"), ({"task": "zzz"}, "task"), ({"task": "a\x00"}, "task"),
    ],
)  # fmt: skip
def test_upload_is_422_naming_the_field_when_a_parameter_is_bad(query, field: str, api) -> None:
    problem(send(api, **query), 422, field=field)
    nothing_left()


@pytest.mark.django_db
@pytest.mark.parametrize("slug", ["zzz", "other", "a\x00b", "é"])
def test_upload_is_404_when_project_is_unknown_or_not_ones_own(slug: str, api) -> None:
    problem(send(api, project=slug), 404, field="project")
    nothing_left()


@pytest.mark.django_db
def test_upload_is_409_when_model_is_archived(api, model, mlflow_url) -> None:
    from django.utils import timezone

    Model.objects.update(archived_at=timezone.now())
    problem(send(api, model="digits"), 409, field="model")
    assert not Version.objects.exists() and not paths.scratch().exists()


class Unread(io.RawIOBase):
    """A body that fails the test when somebody reads it."""

    def read(self, size: int = -1) -> bytes:
        raise AssertionError("the body was read")


@pytest.mark.django_db
def test_upload_is_413_before_reading_when_declared_too_large(people, project) -> None:
    with pytest.raises(Exception, match="larger than") as refused:
        upload.version_upload(
            actor=people["developer"], project=project, model_name="m", task="", file_name="m.onnx",
            stream=Unread(), declared=environment.max_upload_mb * 1024**2 + 1,
        )  # fmt: skip
    assert (refused.value.status, refused.value.field) == (413, "file")
    nothing_left()


@pytest.mark.django_db
def test_upload_is_413_when_it_grows_beyond_the_limit(api, people, project, monkeypatch) -> None:
    monkeypatch.setattr(upload, "environment", dataclasses.replace(environment, max_upload_mb=1))
    problem(send(api, bytes(1024**2 + 1)), 413, "too_large", field="file")
    with pytest.raises(Exception, match="larger than 1 MB"):
        upload.version_upload(
            actor=people["developer"], project=project, model_name="m", task="", file_name="m.onnx",
            stream=io.BytesIO(bytes(2 * 1024**2)), declared=None,
        )  # fmt: skip
    nothing_left()


@pytest.mark.django_db
@pytest.mark.parametrize("length", [str(len(GOOD) + 5), "99999"])
def test_upload_is_400_when_it_breaks_off(length: str, people) -> None:
    web = Client()
    web.force_login(people["developer"])
    answer = web.generic(
        "POST", "/api/v1/versions/upload?project=vision&model=m", GOOD, content_type=BINARY, CONTENT_LENGTH=length,
        **{"wsgi.input": io.BytesIO(GOOD)},
    )  # fmt: skip
    problem(answer, 400, "truncated", field="file")
    nothing_left()


@pytest.mark.django_db
@pytest.mark.parametrize("length", ["5", "-1", "x", "", "0", "1e3"])
def test_upload_is_refused_when_content_length_lies(length: str, people) -> None:
    web = Client(raise_request_exception=False)
    web.force_login(people["developer"])
    answer = web.generic(
        "POST", "/api/v1/versions/upload?project=vision&model=m", GOOD, content_type=BINARY, CONTENT_LENGTH=length,
        **{"wsgi.input": io.BytesIO(GOOD)},
    )  # fmt: skip
    problem(answer, answer.status_code)
    assert 400 <= answer.status_code < 500
    nothing_left()


@pytest.mark.django_db
def test_upload_is_411_when_it_comes_in_chunks(api) -> None:
    answer = api.generic(
        "POST", "/api/v1/versions/upload?project=vision&model=m", b"", content_type=BINARY,
        headers={"Transfer-Encoding": "chunked"},
    )  # fmt: skip
    problem(answer, 411, field="file")


@pytest.mark.django_db
def test_upload_is_503_and_leaves_nothing_when_mlflow_is_away(api, monkeypatch) -> None:
    from registry.mlflow import client

    monkeypatch.setattr(client, "environment", dataclasses.replace(environment, mlflow_url="http://127.0.0.1:9/mlflow"))
    answer = send(api)
    problem(answer, 503)
    assert answer.headers["Retry-After"]
    nothing_left()


@pytest.mark.django_db
def test_upload_is_507_when_the_disk_is_full(api, monkeypatch) -> None:
    def full(self: Path, *args: Any, **more: Any) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        problem(send(api), 507, "storage", field="file")
    nothing_left()
    assert send(api).status_code == 201


@pytest.mark.django_db(transaction=True)
def test_versions_are_numbered_when_four_upload_the_same_file_at_once(api, as_user) -> None:
    assert send(api).status_code == 201
    done = race(4, lambda index: send(as_user("developer")))
    assert sorted(answer.json()["number"] for answer in done) == [2, 3, 4, 5]
    assert Artifact.objects.filter(sha256=SHA256).count() == 5


PMML = (
    b'<PMML xmlns="http://www.dmg.org/PMML-4_4" version="4.4"><Header><Application name="made by hand"/></Header>'
    b'<DataDictionary><DataField name="y" optype="continuous" dataType="double"/>'
    b'<DataField name="a" optype="continuous" dataType="double"/></DataDictionary>'
    b'<RegressionModel functionName="regression"><MiningSchema><MiningField name="y" usageType="target"/>'
    b'<MiningField name="a"/></MiningSchema><RegressionTable intercept="1">'
    b'<NumericPredictor name="a" coefficient="2"/></RegressionTable></RegressionModel></PMML>'
)


@pytest.mark.django_db
def test_pmml_is_kept_as_a_source_and_its_export_queued_when_uploaded(api, tmp_path: Path) -> None:
    from slipway.jobs.models import Job
    from workers.common import source_folder

    answer = send(api, PMML, file_name="house prices.pmml")
    assert answer.status_code == 201 and answer.json()["sha256"] == hashlib.sha256(PMML).hexdigest()
    version = Version.objects.get()
    artifact = version.artifacts.get()
    assert (version.framework, version.state, version.params["model"]) == ("pmml", "ready", "RegressionModel")
    assert version.signature["inputs"] == [{"name": "a", "datatype": "FP64", "shape": [-1]}]
    assert (artifact.format, artifact.verdict, artifact.size) == ("source", "clean", len(PMML))
    assert artifact.signed is not None and artifact.manifest[0]["path"] == "model.pmml"
    job = Job.objects.get(kind="export")
    assert job.params["exporter"] == "onnx" and job.params["version_id"] == version.pk
    # What the job starts with: the folder, whose digest must be the artifact's; the same bytes under another
    # name go to the same run and leave it as it is.
    assert send(api, PMML, file_name="other.pmml").json()["number"] == 2
    assert (source_folder(version, tmp_path / "fetched") / "model.pmml").read_bytes() == PMML


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'<!DOCTYPE a [<!ENTITY b "c">]>' + PMML, "document type"),
        (PMML[:-20], "not well-formed"),
        (GOOD, "not well-formed"),
        (b"<html/>", "not a PMML 4 document"),
    ],
)
def test_pmml_is_refused_and_leaves_nothing_when_it_is_hostile(content: bytes, words: str, api) -> None:
    body = problem(send(api, content, file_name="model.pmml"), 422, field="file")
    assert words in body["detail"]
    nothing_left()


@pytest.mark.django_db(transaction=True)
def test_pmml_becomes_onnx_when_its_export_job_runs(api, shared_environments: Path) -> None:
    import workers.export  # noqa: F401 - declares the kind
    from slipway.jobs.kernel import execute
    from slipway.jobs.kinds import kind_of
    from slipway.jobs.models import Job

    send(api, PMML, file_name="model.pmml")
    job = Job.objects.get(kind="export")
    execute(kind_of("export"), job.pk)
    job.refresh_from_db()
    if job.state == "queued":
        # First its environment is prepared, by a job of its own.
        assert "Waits for the environment pmml" in job.reason
        execute(kind_of("prepare"), Job.objects.get(kind="prepare").pk)
        Job.objects.filter(pk=job.pk).update(available_at=Now())
        execute(kind_of("export"), job.pk)
        job.refresh_from_db()
    assert job.state == "succeeded", job.reason
    artifact = Artifact.objects.get(format="onnx")
    assert (
        artifact.parent is not None and artifact.parent.format == "source" and artifact.recipe["environment"] == "pmml"
    )
    assert artifact.parity["passed"] and artifact.parity["max_abs"] == 0 and artifact.signed is not None
    assert artifact.signature["inputs"] == [{"name": "a", "datatype": "FP64", "shape": [-1, 1]}]


@pytest.mark.django_db(transaction=True)
def test_pmml_is_kept_as_it_is_for_a_scorer_when_it_has_no_exact_onnx(
    api, people, environments_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import workers.export  # noqa: F401 - declares the kind
    from deployments import services as deployments
    from slipway import paths
    from slipway.jobs.kernel import execute
    from slipway.jobs.kinds import kind_of
    from slipway.jobs.models import Job
    from tests.serving.pmml_documents import BAYES

    send(api, BAYES.encode(), file_name="bayes.pmml")
    refused = Job.objects.get(kind="export")
    execute(kind_of("export"), refused.pk)
    # A home without environments makes it wait; one that other tests prepared need not be made again.
    monkeypatch.setattr(paths, "environments", lambda: environments_root)
    execute(kind_of("prepare"), Job.objects.get(kind="prepare").pk)
    Job.objects.filter(pk=refused.pk).update(available_at=Now())
    execute(kind_of("export"), refused.pk)
    refused.refresh_from_db()
    assert refused.state == "failed" and "no way to ONNX for NaiveBayesModel" in refused.reason
    job = Job.objects.exclude(pk=refused.pk).get(kind="export")
    execute(kind_of("export"), job.pk)
    job.refresh_from_db()
    assert job.state == "succeeded", job.reason
    artifact = Artifact.objects.get(format="pmml")
    assert artifact.sha256 == hashlib.sha256(BAYES.encode()).hexdigest() and artifact.signed is not None
    assert artifact.parity["passed"] and artifact.verdict == "clean"
    assert [(t["name"], t["datatype"]) for t in artifact.signature["outputs"]] == [
        ("animal", "BYTES"),
        ("probability(cat)", "FP64"),
        ("probability(dog)", "FP64"),
    ]
    project = artifact.version.model.project
    assert artifact in selectors.servable(people["admin"], project)
    endpoint = deployments.endpoint_create(actor=None, project=project, name="animals", artifact=artifact)
    assert endpoint.deployments.get().artifact == artifact
