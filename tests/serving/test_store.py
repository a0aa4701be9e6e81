"""The cache of artifacts, the saved state, the desired-state document, the options."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from serving.document import DocumentError, parse_document
from serving.model import ModelError, load_model
from serving.options import OptionsError, parse_options
from serving.sealed import Sealed
from serving.store import Store, StoreError
from tests.serving import models
from tests.serving.control_plane import deployment, endpoint

DATA = b"some bytes of a model"
DIGEST = hashlib.sha256(DATA).hexdigest()


def chunks(data: bytes):
    return lambda digest: iter([data[i : i + 5] for i in range(0, len(data), 5)])


def content(sealed: Sealed) -> bytes:
    with contextlib.closing(sealed), sealed.path() as path:
        assert list(path.parent.iterdir()) == [path]
        return path.read_bytes()


def test_artifact_is_cached_whole_when_its_digest_fits(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert content(store.obtain(DIGEST, len(DATA), chunks(DATA))) == DATA
    assert (tmp_path / "artifacts" / DIGEST).read_bytes() == DATA
    assert content(store.obtain(DIGEST, len(DATA), None)) == DATA


@pytest.mark.parametrize(
    ("data", "size"), [(DATA + b"x", len(DATA)), (DATA[:-1], len(DATA)), (DATA[:-1] + b"X", 0), (b"", 0)]
)
def test_artifact_is_refused_and_leaves_nothing_when_it_differs(tmp_path: Path, data: bytes, size: int) -> None:
    store = Store(tmp_path)
    with pytest.raises(StoreError):
        store.obtain(DIGEST, size, chunks(data))
    assert list(store.artifacts.iterdir()) == []


def test_download_that_breaks_leaves_nothing_when_it_raises(tmp_path: Path) -> None:
    def broken(digest: str):
        yield DATA[:5]
        raise OSError("gone")

    store = Store(tmp_path)
    with pytest.raises(OSError, match="gone"):
        store.obtain(DIGEST, 0, broken)
    assert list(store.artifacts.iterdir()) == []


def test_garbage_is_collected_when_old_and_not_named(tmp_path: Path) -> None:
    store = Store(tmp_path, gc_grace_s=60)
    old = time.time() - 120
    for name in ("keep", "old", "new", ".old.1.tmp"):
        (store.artifacts / name).write_bytes(b"x")
        if name != "new":
            os.utime(store.artifacts / name, (old, old))
    assert sorted(store.collect_garbage({"keep"})) == [".old.1.tmp", "old"]
    assert sorted(p.name for p in store.artifacts.iterdir()) == ["keep", "new"]


def test_saved_state_stays_when_the_next_cannot_be_written(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save_state({"generation": 1})
    with pytest.raises(TypeError):
        store.save_state({"generation": object()})
    assert store.load_state() == {"generation": 1}
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".tmp")] == []


def good() -> dict[str, Any]:
    live = [deployment("1", b"a", 60), deployment("2", b"b", 40), deployment("3", b"c", 0, "shadow")]
    return {"generation": 3, "endpoints": [endpoint("m", *live)]}


def test_document_is_read_when_it_keeps_the_contract() -> None:
    document = parse_document(good())
    assert document.generation == 3
    assert [d.mode for d in document.endpoints[0].deployments] == ["live", "live", "shadow"]
    assert len(document.digests()) == 3


WRONG: dict[str, tuple[tuple[Any, ...], Any]] = {
    "generation": (("generation",), "3"),
    "generation true": (("generation",), True),
    "endpoints": (("endpoints",), {}),
    "name": (("endpoints", 0, "name"), "../m"),
    "access": (("endpoints", 0, "access"), "all"),
    "tokens": (("endpoints", 0, "tokens"), ["abc"]),
    "weight sum": (("endpoints", 0, "deployments", 0, "weight"), 61),
    "weight nan": (("endpoints", 0, "deployments", 0, "weight"), float("nan")),
    "weight negative": (("endpoints", 0, "deployments", 0, "weight"), -1),
    "weight text": (("endpoints", 0, "deployments", 0, "weight"), "60"),
    "mode": (("endpoints", 0, "deployments", 0, "mode"), "hot"),
    "id twice": (("endpoints", 0, "deployments", 0, "id"), "2"),
    "id": (("endpoints", 0, "deployments", 0, "id"), "a\r\nb"),
    "digest path": (("endpoints", 0, "deployments", 0, "artifact", "sha256"), "../../etc/passwd"),
    "digest case": (("endpoints", 0, "deployments", 0, "artifact", "sha256"), "A" * 64),
    "artifact": (("endpoints", 0, "deployments", 0, "artifact"), None),
    "format": (("endpoints", 0, "deployments", 0, "artifact", "format"), 1),
    "size": (("endpoints", 0, "deployments", 0, "artifact", "size"), -1),
}


@pytest.mark.parametrize("case", WRONG)
def test_document_is_refused_whole_when_one_field_is_wrong(case: str) -> None:
    path, value = WRONG[case]
    document = copy.deepcopy(good())
    holder: Any = document
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = value
    with pytest.raises(DocumentError):
        parse_document(document)


@pytest.mark.parametrize("location", ["weights", "../weights", "x/../../weights", "{folder}/weights", "model"])
def test_model_is_refused_when_it_names_another_file_as_its_weights(tmp_path: Path, location: str) -> None:
    (tmp_path / "weights").write_bytes(bytes(64))
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location.format(folder=tmp_path), "offset": "0", "length": "64"}.items():
        weights.external_data.add(key=key, value=value)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weights])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(ModelError, match="xternal data") as refused:
        load_model(made.SerializeToString())
    assert "slipway-load" not in str(refused.value)


@pytest.mark.parametrize("data", [b"", b"\x80\x04N.", b"\x00" * 100, models.classifier()[:50]])
def test_model_is_refused_when_it_is_not_onnx(data: bytes) -> None:
    with pytest.raises(ModelError):
        load_model(data)
    with pytest.raises(ModelError, match="cannot be served"):
        load_model(models.classifier(), "pickle")


def test_cheap_model_runs_in_the_loop_and_costly_one_does_not_when_measured() -> None:
    cheap, costly = load_model(models.classifier()), load_model(models.slow(100))
    assert cheap.warm() == "" and costly.warm() == ""
    assert costly.inline_elements == 0
    assert (cheap.cost_us or 0) < (costly.cost_us or 0)


def test_flag_wins_when_the_environment_says_otherwise(tmp_path: Path) -> None:
    env = {"SLIPWAY_SERVING_PORT": "1", "SLIPWAY_SERVING_HOME": str(tmp_path), "SLIPWAY_SERVING_TOKEN": "t"}
    options = parse_options(["--port", "2", "--max-body-mb", "3"], env)
    assert (options.port, options.home, options.max_body) == (2, tmp_path, 3 << 20)
    assert options.read_token() == "t"
    (tmp_path / "token").write_text("from-file\n")
    options = parse_options(["--token-file", str(tmp_path / "token")], env)
    assert options.read_token() == "from-file"
    with pytest.raises(OptionsError):
        parse_options(["--control-url", "file:///etc"], env)
