"""The same checks let ordinary files through."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.errors import EngineError
from engine.scan import archives, onnx_loops, safetensors
from tests.engine import onnx_files
from tests.hostile.archives import nested, tarred, zipped
from tests.hostile.models import GOOD_TENSORS, tensor, tensors


def _arrays() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, a=np.zeros((100, 100)), b=np.arange(5))
    return buffer.getvalue()


FIT: dict[str, Callable[[], bytes]] = {
    "zip": lambda: zipped("folder/", "folder/data.pkl", "folder/data/0"),
    "arrays": _arrays,
    "tar": lambda: tarred("./a", "b/c"),
    "gzipped tar": lambda: gzip.compress(tarred("MAR-INF/MANIFEST.json", "model.pt")),
    "archive in an archive": lambda: nested(1),
    "names in other scripts": lambda: zipped("modèle", "模型", "модель"),
}


@pytest.mark.parametrize("name", FIT)
def test_archive_is_fit_when_it_is_ordinary(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.mar"
    path.write_bytes(FIT[name]())
    assert archives.problem(path) is None


@pytest.mark.parametrize(
    "content",
    [
        tensors(GOOD_TENSORS),
        tensors({"b": tensor([0], [0, 0]), "a": tensor([2, 2], [0, 16]), "c": tensor([], [16, 20])}, bytes(20)),
        tensors({"half": tensor([3], [0, 6], "BF16")}, bytes(6)),
        tensors({}, b""),
    ],
    ids=["plain", "empty and scalar", "half", "none"],
)
def test_safetensors_are_fit_when_they_are_ordinary(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert safetensors.problem(path) is None


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9])
def test_safetensors_are_refused_when_there_is_no_header(size: int, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(size))
    assert "cut short" in str(safetensors.problem(path))


def test_loops_multiply_when_they_lie_within_each_other() -> None:
    import onnx

    model = onnx.load_from_string(onnx_files._endless_loop(computed=False))
    rounds = model.graph.initializer[0]
    rounds.CopyFrom(onnx.numpy_helper.from_array(np.array(5000, np.int64), rounds.name))
    onnx_loops.check(model)
    inner = onnx.NodeProto()
    inner.CopyFrom(next(node for node in model.graph.node if node.op_type == "Loop"))
    next(node for node in model.graph.node if node.op_type == "Loop").attribute[0].g.node.append(inner)
    with pytest.raises(EngineError, match="25000000 rounds"):
        onnx_loops.check(model)
