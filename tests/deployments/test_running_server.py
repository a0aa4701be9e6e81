"""A real inference server that follows the real control plane."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rest_framework.test import APIClient

from deployments import desired, services, serving_api
from deployments.models import Endpoint
from deployments.models import Server as Row
from registry import storage
from registry.models import Artifact
from registry.signing import attest
from slipway.accounts import services as accounts
from tests.serving import models
from tests.serving.conftest import Server, wait_until
from tests.serving.conftest import serve as serve

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def protected(
    new_version: Callable[..., Any], project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Endpoint]:
    """An endpoint that asks for a token and serves a real model out of this node's cache."""
    monkeypatch.setenv("SLIPWAY_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(serving_api, "watch", serving_api._Watch())
    file = tmp_path / "model.onnx"
    file.write_bytes(models.classifier())
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    (tmp_path / "home" / "cache").mkdir(parents=True)
    storage.cache_add(file, sha256=sha256)
    row: Artifact = new_version().artifacts.get()
    row.sha256, row.size = sha256, file.stat().st_size
    row.attestation = attest(row.version, format="onnx", sha256=sha256, size=row.size, file_name=row.file_name)
    row.save()
    yield services.endpoint_create(actor=None, project=project, name="digits", artifact=row)


def test_new_quota_holds_when_changed_while_the_server_runs(
    protected: Endpoint, people: dict[str, Any], live_server: Any, serve: Callable[..., Server], tmp_path: Path
) -> None:
    token, text = accounts.token_create(user=people["developer"], name="app", scope="infer", rate=0.01, burst=1)
    server = serve(
        "--home", str(tmp_path / "serving"), "--control-url", live_server.url,
        env={"SLIPWAY_SERVING_TOKEN": "serving-token-of-the-tests"},
    )  # fmt: skip
    headers = {"Authorization": f"Bearer {text}"}
    wait_until(lambda: server.client.get("/v2/models/digits/ready", headers=headers).status_code == 200, what="ready")

    def ask() -> int:
        return server.infer("digits", models.rows(), headers=headers).status_code

    def change(**quota: Any) -> None:
        client = APIClient()
        client.force_authenticate(people["developer"])
        address = f"/api/v1/tokens/{token.pk}"
        tag = client.get(address).headers["ETag"]
        answer = client.patch(address, quota, format="json", headers={"If-Match": tag})
        assert answer.status_code == 200, answer.content
        wait_until(lambda: Row.objects.filter(generation__gte=desired.generation()).exists(), what="followed")

    assert [ask(), ask()] == [200, 429]
    change(rate=None)
    assert [ask() for _ in range(5)] == [200] * 5
    change(rate=0.01, burst=3)
    # The request before counts: a changed quota is not a fresh one.
    assert [ask() for _ in range(5)] == [200] * 2 + [429] * 3
    change(rate=1000, burst=1000)
    wait_until(lambda: ask() == 200, what="the new rate")
    time.sleep(0.1)  # nothing was left of the old burst; at the new rate that is 100 requests
    assert [ask() for _ in range(20)] == [200] * 20
    assert server.process.poll() is None and Row.objects.count() == 1
    server.stop()
