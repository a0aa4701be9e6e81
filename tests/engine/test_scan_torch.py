"""PyTorch's archives from strangers, made without torch and read as data."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.scan.allowed import judge
from engine.scan.source import scan
from tests.engine.test_scan_source import Reaches, levels

Make = Callable[..., Path]
MLMODEL = '{"flavors": {"pytorch": {"model_data": "model.pth", "pytorch_version": "2.13.0"}}}'
# What torch.save writes for {"w": tensor}: torch's rebuild function, a storage by its number, and its hooks.
STATE = (
    b"\x80\x02}q\x00X\x01\x00\x00\x00wq\x01ctorch._utils\n_rebuild_tensor_v2\nq\x02((X\x07\x00\x00\x00storageq\x03"
    b"ctorch\nFloatStorage\nq\x04X\x01\x00\x00\x000q\x05X\x03\x00\x00\x00cpuq\x06K\x02tq\x07QK\x00K\x02\x85q\x08K\x01"
    b"\x85q\t\x89ccollections\nOrderedDict\nq\n)Rq\x0btq\x0cRq\rs."
)


def hostile() -> bytes:
    return pickle.dumps(Reaches(os.system, "true"), protocol=2)


def archive(parts: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, content in parts.items():
            made.writestr(f"model/{name}", content)
    return buffer.getvalue()


def saved(content: bytes = STATE, **more: bytes) -> bytes:
    return archive({"data.pkl": content, "data/0": b"\x80\x02" + b"\0" * 6, "version": b"3\n", **more})


def program(parts: dict[str, bytes], use_pickle: bool = False) -> bytes:
    """An archive of torch.export with one weight."""
    config = {"config": {"w": {"path_name": "weight_0", "use_pickle": use_pickle}}}
    return archive(
        {
            "models/model.json": b"{}",
            "archive_format": b"pt2",
            ".data/version": b"6\n",
            "data/weights/model_weights_config.json": json.dumps(config).encode(),
            "data/weights/weight_0": b"\x80\x02\0\0",
            "data/sample_inputs/model.pt": saved(),
            **parts,
        }
    )


def test_verdict_is_clean_when_an_archive_holds_a_state(mlflow_folder: Make) -> None:
    found = scan(mlflow_folder({"model.pth": saved()}, MLMODEL))
    assert found["verdict"] == "clean" and found["framework"] == "pytorch", found["findings"]
    assert "A pickle with 3 references: it is only opened in the sandbox." in levels(found)


def test_verdict_is_clean_when_a_program_holds_raw_numbers(mlflow_folder: Make) -> None:
    mlmodel = MLMODEL.replace("model.pth", "model.pt2")
    assert scan(mlflow_folder({"model.pt2": program({})}, mlmodel))["verdict"] == "clean"


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as made:
        made.addfile(tarfile.TarInfo("pickle"), io.BytesIO(b""))
    return buffer.getvalue()


HOSTILE: dict[str, tuple[str, Callable[[], bytes]]] = {
    "os.system": ("model.pth", lambda: saved(hostile())),
    "under .pt": ("model.pt", lambda: saved(hostile())),
    "capital letters": ("model.pth", lambda: archive({"DATA.PKL": hostile()})),
    "second pickle": ("model.pth", lambda: saved(**{"constants.pkl": hostile()})),
    "after the state": ("model.pth", lambda: saved(STATE + hostile())),
    "torch.load": ("model.pth", lambda: saved(b"\x80\x02ctorch\nload\n(X\x01\x00\x00\x00xtR.")),
    "torch.storage": ("model.pth", lambda: saved(b"\x80\x02ctorch.storage\n_load_from_bytes\n(C\x01xtR.")),
    "torch.hub": ("model.pth", lambda: saved(b"\x80\x02ctorch.hub\nload\n(X\x01\x00\x00\x00xtR.")),
    "cloudpickle": (
        "model.pth",
        lambda: saved(b"\x80\x02ccloudpickle.cloudpickle\nsubimport\n(X\x02\x00\x00\x00ostR."),
    ),
    "truncated pickle": ("model.pth", lambda: saved(STATE[:-20])),
    "no pickle": ("model.pth", lambda: archive({"data/0": b""})),
    "bare pickle": ("model.pth", hostile),
    "bare state": ("model.pth", lambda: STATE),
    "tar": ("model.pth", _tar),
    "cut off": ("model.pth", lambda: saved()[:-30]),
    "outside": ("model.pth", lambda: archive({"../../x": b"", "data.pkl": STATE})),
    "program: example": ("model.pt2", lambda: program({"data/sample_inputs/model.pt": saved(hostile())})),
    "program: constant": ("model.pt2", lambda: program({"data/constants/custom_obj_0": saved(hostile())})),
    "program: bare constant": ("model.pt2", lambda: program({"data/constants/custom_obj_0": hostile()})),
    "program: weight": ("model.pt2", lambda: program({"data/weights/weight_0": saved(hostile())}, use_pickle=True)),
    "program: unnamed weight": ("model.pt2", lambda: program({"data/weights/weight_1": hostile()})),
    "program: old": ("model.pt2", lambda: archive({"serialized_state_dict.pt": saved(hostile())})),
    "program: library": ("model.pt2", lambda: program({"data/aotinductor/model/a.so": b"\x7fELF" + b"\0" * 600})),
    "program: bad json": ("model.pt2", lambda: program({"data/constants/model_constants_config.json": b"{"})),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_verdict_is_rejected_when_an_archive_of_torch_is_hostile(name: str, mlflow_folder: Make) -> None:
    file, content = HOSTILE[name]
    found = scan(mlflow_folder({file: content()}, MLMODEL.replace("model.pth", file)))
    assert found["verdict"] == "rejected", found["findings"]


def test_hostile_archive_stays_asleep_when_scanned(mlflow_folder: Make, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    content = saved(pickle.dumps(Reaches(os.system, f"touch {mark}"), protocol=2))
    found = scan(mlflow_folder({"model.pth": content}, MLMODEL))
    assert not mark.exists() and any(text.endswith(".system.") for text in levels(found))


def test_verdict_is_suspicious_when_the_class_is_somebodys_own(mlflow_folder: Make) -> None:
    found = scan(mlflow_folder({"model.pth": saved(b"\x80\x02cmy_company.models\nNet\nq\x00)\x81q\x01.")}, MLMODEL))
    assert found["verdict"] == "suspicious"
    assert any("my_company.models.Net" in text for text in levels(found))


@pytest.mark.parametrize(
    ("reference", "judgement"),
    [
        ("torch.nn.modules.conv.Conv2d", "allowed"),
        ("torch.nn.modules.container.Sequential", "allowed"),
        ("torch.nn.functional.relu", "allowed"),
        ("torch.bfloat16", "allowed"),
        ("torch._utils._rebuild_parameter", "allowed"),
        ("__torch__.torch.nn.modules.linear.Linear", "allowed"),
        ("torch.nn.functional.importlib", "dangerous"),
        ("torch.nn.modules.utils.importlib", "dangerous"),
        ("torch.load", "dangerous"),
        ("torch.compile", "dangerous"),
        ("torch.jit.load", "dangerous"),
        ("torch.ops.load_library", "dangerous"),
        ("torch._utils._import_dotted_name", "dangerous"),
        ("torch.serialization.load", "dangerous"),
        ("torchvision.models.resnet.ResNet", "unknown"),
    ],
)
def test_reference_is_judged_when_it_is_torchs(reference: str, judgement: str) -> None:
    assert judge(*reference.rpartition(".")[::2]) == judgement
