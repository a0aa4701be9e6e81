"""What a model says it needs: read as data, refused where it is more than names, resolved to locks of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.errors import EngineError
from engine.export import bill, installing, requirements, resolve
from tests.engine.conftest import ROOT, Task

HOSTILE = [
    "git+https://example.invalid/evil.git", "evil @ https://example.invalid/evil-1.whl", "./evil", "/tmp/evil.whl",
    "evil @ file:///tmp/evil", "-r other.txt", "-e .", "--index-url https://example.invalid", "-f /tmp",
    "--find-links=/tmp", "--extra-index-url x", "-c c.txt", "numpy --hash=sha256:00", "numpy==${VERSION}", "nu\\",
    "numpy==2;os_name=='$HOME'", "numpy===anything", "numpy\u200b==2", "numpy\x00", "numpy==", "a" * 301, "a;b;c",
    "numpy --config-settings x=y", "https://example.invalid/evil.whl",
]  # fmt: skip


@pytest.mark.parametrize("line", HOSTILE)
def test_line_is_refused_and_named_when_it_is_more_than_a_name(line: str, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="line 3") as caught:
        requirements.parsed(["# mine", "numpy>=1  # fine", line], "list")
    assert caught.value.code == "requirements" and len(caught.value.message) < 400
    (tmp_path / "requirements.txt").write_text(f"numpy>=1\n{line}\n")
    found = requirements.recorded(tmp_path)
    assert found.lines == ["numpy>=1"] and len(found.refused) == 1 and "line 2" in found.refused[0]


def test_list_is_refused_when_it_is_too_long(tmp_path: Path) -> None:
    lines = [f"package{n}" for n in range(requirements.MOST + 1)]
    with pytest.raises(EngineError, match="more than 200"):
        requirements.parsed(lines, "list")
    (tmp_path / "requirements.txt").write_text("\n".join(lines))
    assert requirements.recorded(tmp_path).lines == [] and requirements.recorded(tmp_path).refused
    (tmp_path / "requirements.txt").write_text("x" * 100_001)
    assert "100 kB" in requirements.recorded(tmp_path).refused[0]


def test_conda_file_is_read_when_there_is_no_list(tmp_path: Path) -> None:
    pip = ["mlflow==3.1", "numpy==1.26.4", "-r x"]
    text = json.dumps({"dependencies": ["python=3.10.4", "pip<=23", {"pip": pip}], "name": "mlflow-env"})
    (tmp_path / "conda.yaml").write_text(text)
    found = requirements.recorded(tmp_path)
    assert (found.lines, found.python) == (
        ["mlflow==3.1", "numpy==1.26.4"],
        "3.10.4",
    ) and "conda.yaml" in found.refused[0]
    (tmp_path / "requirements.txt").write_text("numpy==2\n")
    (tmp_path / "python_env.yaml").write_text(
        "python: 3.11.7\nbuild_dependencies:\n- pip\ndependencies:\n- -r requirements.txt\n"
    )
    assert requirements.recorded(tmp_path) == requirements.Recorded(["numpy==2"], "3.11.7", [])
    (tmp_path / "python_env.yaml").write_text("python: $(rm -rf)\n")
    assert requirements.recorded(tmp_path).python == ""


def test_packages_that_are_there_do_when_they_satisfy() -> None:
    def wanted(*lines: str) -> list[str]:
        return requirements.unmet(requirements.needed(requirements.parsed(lines, "list")), requirements.installed)

    assert wanted("mlflow==1.0", "scikit-learn==1.9.0", "NumPy>=2", "nothing; sys_platform=='win32'") == []
    assert wanted("scikit-learn==1.7.2", "no-such-package", "numpy") == ["scikit-learn==1.7.2", "no-such-package"]
    pins = {each.name: each.version for each in bill.packages_of((ROOT / "locks" / "boosting.txt").read_text())}
    xgboost = requirements.parsed([f"xgboost=={pins['xgboost-cpu']}", "lightgbm"], "list")
    assert requirements.unmet(xgboost, pins.get) == []  # the CPU build goes by another name


def test_word_of_the_model_goes_first_when_ours_names_the_same() -> None:
    theirs = requirements.parsed(["Scikit_Learn==1.7.2", "xgboost==3.0.0"], "list")
    ours = requirements.parsed(["scikit-learn==1.9.0", "xgboost-cpu>=3", "onnx>=1.18"], "list")
    assert requirements.merged(theirs, ours) == ["onnx>=1.18", "scikit-learn==1.7.2", "xgboost==3.0.0"]


@pytest.mark.parametrize("installer", installing.INSTALLERS)
def test_lock_pins_everything_by_hash_when_resolved(installer: str) -> None:
    lock = resolve.resolve(["scikit-learn==1.7.2"], installing.Tools(installer), print)
    packages = {each.name: each for each in bill.packages_of(lock)}
    assert packages["scikit-learn"].version == "1.7.2" and {"numpy", "scipy", "joblib"} <= set(packages)
    assert all(each.hashes for each in packages.values()) and "://" not in lock


@pytest.mark.parametrize("installer", installing.INSTALLERS)
@pytest.mark.parametrize(
    ("wanted", "named"),
    [(["scikit-learn==99"], "scikit-learn==99"), (["scikit-learn==1.7.2", "numpy<1.20"], "numpy")],
)
def test_error_names_the_requirement_when_it_cannot_be_had(wanted: list[str], named: str, installer: str) -> None:
    with pytest.raises(EngineError) as caught:
        resolve.resolve(wanted, installing.Tools(installer), print)
    assert named in caught.value.message and caught.value.code == "requirements"


def test_torch_is_the_cpu_build_when_there_is_no_gpu() -> None:
    if installing.has_gpu():
        pytest.skip("a CUDA build is welcome where there is a GPU")
    lock = resolve.resolve(["torch==2.13.0"], installing.Tools("uv"), print)
    names = {each.name: each.version for each in bill.packages_of(lock)}
    assert names["torch"].startswith("2.13.0") and not [name for name in names if name.startswith("nvidia")]
    with pytest.raises(EngineError, match="only with CUDA"):
        resolve._refuse_cuda("torch==2.9.0\nnvidia-cublas-cu12==12.8\n")


def test_package_is_refused_when_it_has_no_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tarfile

    folder = tmp_path / "onlysource-1.0"
    folder.mkdir()
    (folder / "setup.py").write_text("from setuptools import setup; setup(name='onlysource', version='1.0')")
    with tarfile.open(tmp_path / "onlysource-1.0.tar.gz", "w:gz") as archive:
        archive.add(folder, "onlysource-1.0")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(EngineError, match="onlysource"):
        resolve.resolve(["onlysource"], installing.Tools(), print)
    assert "onlysource==1.0" in resolve.resolve(["onlysource"], installing.Tools(build=True), print)


def test_older_model_loads_and_exports_when_in_an_environment_of_its_own(
    older_model: Path, older_python: Path, task: Task
) -> None:
    params = {"exporter": "onnx", "framework": "sklearn"}
    value = task("engine.export.tasks:export", params, source=older_model, python=older_python).value
    assert value["parity"]["passed"] and value["parity"]["rows"] > 0
