"""Every way in signs; what is not signed is neither copied nor, by the database, signed as something else."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import DataError, IntegrityError, transaction

from engine.formats import signing
from registry import intake, results
from registry.models import Artifact
from registry.signing import attest
from slipway import paths
from slipway.api.problems import Conflict, Unavailable
from slipway.audit.models import Entry
from tests.api.tools import problem
from tests.serving import models as onnx

pytestmark = pytest.mark.django_db
DIGEST = "b" * 64


def trusted() -> dict[str, Any]:
    return signing.trusted_keys(signing.public_pem(signing.private_key(paths.signing_key().read_bytes())))


def verified(artifact: Artifact) -> str:
    artifact.refresh_from_db()
    return signing.verify(
        artifact.attestation, trusted(), sha256=artifact.sha256, size=artifact.size, format=artifact.format
    )


@pytest.fixture
def another_key(monkeypatch, tmp_path) -> Any:
    """Puts a new key in the place of the present one."""

    def rotate() -> None:
        file = tmp_path / "another-key.pem"
        file.write_bytes(signing.generate())
        monkeypatch.setenv("SLIPWAY_SIGNING_KEY_FILE", str(file))

    return rotate


# Ways in


@pytest.mark.parametrize("format", ["source", "onnx", "pmml"])
def test_result_of_a_job_is_signed_once_when_it_repeats(format: str, new_version) -> None:
    named = {"format": format, "sha256": DIGEST, "size": 7, "file_name": "m"}
    made = results.artifact_record(version=new_version(), **named, uri="x")
    again = results.artifact_record(version=made.version, **named, uri="x")
    assert again.pk == made.pk and again.attestation == made.attestation and verified(again)


def test_uploaded_file_is_signed_when_taken_in(as_user, project, use_mlflow) -> None:
    data = onnx.classifier()
    answer = as_user("developer").post(
        "/api/v1/versions/upload?project=vision&model=up&file_name=model.onnx",
        data,
        content_type="application/octet-stream",
    )
    assert answer.status_code == 201, answer.content
    artifact = Artifact.objects.get(sha256=hashlib.sha256(data).hexdigest())
    assert verified(artifact)
    row = as_user("developer").get(f"/api/v1/artifacts/{artifact.pk}").json()
    assert row["signed"]["key_id"] == verified(artifact) and row["signed"]["at"].endswith("Z")
    assert row["attestation"] == artifact.attestation


def test_copy_carries_the_signature_when_its_origin_has_one(new_version, model) -> None:
    origin = new_version().artifacts.get()
    copied = intake.version_copy(actor=None, model=model, sha256=origin.sha256).artifacts.get()
    assert copied.attestation == origin.attestation and verified(copied)


def test_copy_is_refused_when_nothing_signed_is_there(new_version, model) -> None:
    sha256 = new_version().artifacts.get().sha256
    Artifact.objects.update(attestation={})
    with pytest.raises(Conflict, match="not signed"):
        intake.version_copy(actor=None, model=model, sha256=sha256)
    assert model.versions.count() == 1


@pytest.mark.parametrize("content", [None, b"", b"no key"])
def test_nothing_is_recorded_when_the_key_is_away(content, new_version, monkeypatch, tmp_path) -> None:
    version, file = new_version(), tmp_path / "key.pem"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv("SLIPWAY_SIGNING_KEY_FILE", str(file))
    with pytest.raises(Unavailable, match="signing key") as refused:
        results.artifact_record(version=version, format="onnx", sha256=DIGEST, size=1, file_name="m", uri="x")
    assert str(tmp_path) not in refused.value.detail
    assert version.artifacts.count() == 1


# The database


def test_database_refuses_when_signature_is_about_something_else(new_version) -> None:
    one, two = new_version().artifacts.get(), new_version().artifacts.get()
    named = {"sha256": one.sha256, "size": one.size, "file_name": "m"}
    for change in (
        {"attestation": two.attestation}, {"sha256": DIGEST}, {"size": 1}, {"format": "pmml"},
        {"attestation": {"payload": one.attestation["payload"]}}, {"attestation": {"signatures": []}},
        {"attestation": {**one.attestation, "signatures": []}}, {"attestation": {**one.attestation, "payload": "!"}},
        {"attestation": {**one.attestation, "payload": "e30="}}, {"attestation": []}, {"attestation": None},
        {"attestation": attest(one.version, format="pmml", **named)},
    ):  # fmt: skip
        with pytest.raises((IntegrityError, DataError)), transaction.atomic():
            Artifact.objects.filter(pk=one.pk).update(**change)
    assert verified(one)


# Signing afterwards


def sign_artifacts(**options: Any) -> str:
    said = io.StringIO()
    call_command("sign_artifacts", stdout=said, **options)
    return said.getvalue()


def test_command_signs_only_what_is_not_signed_when_asked(new_version, another_key) -> None:
    one, two = new_version().artifacts.get(), new_version().artifacts.get()
    Artifact.objects.filter(pk=one.pk).update(attestation={})
    another_key()
    assert "1 artifacts signed" in sign_artifacts() and "0 artifacts" in sign_artifacts()
    assert verified(one)
    with pytest.raises(signing.SignatureError, match="not trusted"):
        verified(two)
    entry = Entry.objects.get(action="artifact.sign")
    assert entry.data == {"sha256": one.sha256, "key": verified(one), "before": None}


def test_command_signs_again_when_the_key_was_replaced(new_version, another_key) -> None:
    rows = [new_version().artifacts.get() for _ in range(3)]
    before = verified(rows[0])
    another_key()
    assert "3 artifacts signed" in sign_artifacts(again=True) and "0 artifacts" in sign_artifacts(again=True)
    assert {verified(row) for row in rows} != {before}
    assert {entry.data["before"] for entry in Entry.objects.filter(action="artifact.sign")} == {before}


def test_command_says_why_not_when_there_is_no_key(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("SLIPWAY_SIGNING_KEY_FILE", str(tmp_path / "none"))
    with pytest.raises(CommandError, match="cannot be read"):
        sign_artifacts()


def test_rows_of_before_are_signed_when_migrated(new_version) -> None:
    import importlib

    from django.apps import apps

    row = new_version().artifacts.get()
    Artifact.objects.update(attestation={})
    importlib.import_module("registry.migrations.0004_sign_what_is_there").sign(apps, None)
    assert verified(row)


# What people see


def test_page_says_signed_or_not_when_looked_at(browser_as, new_version) -> None:
    version = new_version()
    key = verified(version.artifacts.get())
    page = browser_as("viewer").get(f"/versions/{version.pk}/artifacts/").content.decode()
    assert key[:12] in page and "not signed" not in page
    Artifact.objects.update(attestation={})
    assert "not signed" in browser_as("viewer").get(f"/versions/{version.pk}/artifacts/").content.decode()


def test_deployment_is_refused_with_a_reason_when_not_signed(as_user, new_version) -> None:
    artifact = new_version().artifacts.get()
    Artifact.objects.update(attestation={})
    body = {"project": "vision", "name": "e", "artifact": artifact.pk}
    refused = problem(as_user("operator").post("/api/v1/endpoints", body, format="json"), 409)
    assert "not signed" in refused["detail"]
    assert as_user("viewer").get(f"/api/v1/artifacts/{artifact.pk}").json()["signed"] is None
