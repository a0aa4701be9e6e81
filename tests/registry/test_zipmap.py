"""A scikit-learn classifier as skl2onnx exports it by itself, with its ZipMap: from the upload to the answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

import workers.export  # noqa: F401 - declares the kind
from deployments import services, serving_api
from deployments.answers import answer_table
from deployments.models import DesiredState
from registry.models import Artifact, Version
from registry.services import export_request
from slipway.jobs.models import State
from tests.registry import lab
from tests.serving.conftest import Server, wait_until
from tests.serving.conftest import serve as serve

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("use_mlflow")]
CLASSES = ["setosa", "versicolor", "virginica"]


@pytest.fixture(scope="module")
def iris() -> tuple[LogisticRegression, bytes]:
    x, y = load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=500).fit(x.astype(np.float32), np.array(CLASSES)[y])
    return model, to_onnx(model, x[:1].astype(np.float32)).SerializeToString()


@pytest.fixture
def uploaded(as_user: Callable[[str], Any], iris: tuple[Any, bytes]) -> Version:
    address = "/api/v1/versions/upload?project=vision&model=iris&task=tabular-classification"
    answer = as_user("developer").generic("POST", address, iris[1], content_type="application/octet-stream")
    assert answer.status_code == 201, answer.content
    return Version.objects.get()


def test_classifier_with_its_zipmap_is_taken_shown_and_exported(
    uploaded: Version, browser_as: Callable[[str], Any]
) -> None:
    assert uploaded.state == "ready"
    first = uploaded.artifacts.get(format="onnx")
    for signature in (uploaded.signature, first.signature):
        assert [(one["datatype"], one.get("kind")) for one in signature["outputs"]] == [
            ("BYTES", None), ("BYTES", "maps"),
        ]  # fmt: skip
    page = browser_as("viewer").get(f"/versions/{uploaded.pk}/signature/").content.decode()
    assert "{class: probability} (ZipMap)" in page and "class by class" in page
    (job,) = export_request(actor=None, version=uploaded, exporters=["ort"])
    job = lab.run(job)
    assert job.state == State.SUCCEEDED, job.reason
    ort = Artifact.objects.get(format="ort")
    assert ort.parity["passed"] and ort.parity["max_abs"] == 0 and ort.parity["agreement"] == 1


def test_endpoint_answers_v2_json_when_it_serves_a_zipmap(
    uploaded: Version, iris: tuple[Any, bytes], serve: Callable[..., Server], live_server: Any, tmp_path: Path,
    browser_as: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(serving_api, "watch", serving_api._Watch())
    DesiredState.objects.get_or_create(pk=1)
    artifact = uploaded.artifacts.get(format="onnx")
    services.endpoint_create(actor=None, project=uploaded.model.project, name="iris", access="open", artifact=artifact)
    server = serve(
        "--home", str(tmp_path / "serving"), "--control-url", live_server.url,
        env={"SLIPWAY_SERVING_TOKEN": "serving-token-of-the-tests"},
    )  # fmt: skip
    wait_until(lambda: server.client.get("/v2/models/iris/ready").status_code == 200, what="ready")
    x = load_iris(return_X_y=True)[0][[0, 60, 120]].astype(np.float32)
    answer = server.infer("iris", {"name": "X", "shape": [3, 4], "datatype": "FP32", "data": x.reshape(-1).tolist()})
    assert answer.status_code == 200, answer.text
    label, maps = answer.json()["outputs"]
    assert label["data"] == iris[0].predict(x).tolist()
    assert (maps["datatype"], maps["shape"]) == ("BYTES", [3])
    given = [[json.loads(text)[name] for name in CLASSES] for text in maps["data"]]
    assert np.abs(np.array(given) - iris[0].predict_proba(x)).max() < 1e-5
    table = answer_table(answer.json(), [])
    assert table is not None and table["rows"][0][1]["bars"][0]["name"] == "setosa"
    page = browser_as("viewer").get("/endpoints/iris/playground/").content.decode()
    assert "{class: probability} (ZipMap)" in page
    server.stop()
