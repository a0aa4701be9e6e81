"""Scans the folder of an MLflow model as data and sums it up; nothing in it is loaded."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from engine.errors import EngineError
from engine.export import requirements
from engine.formats import signature
from engine.scan import archives, mlmodel, pickles, safetensors, tensorflow_files, torch_zip
from engine.scan.allowed import judge
from engine.scan.magic import kind_of_file
from engine.scan.verdict import Findings

_MAX_FILES = 10_000
_MAX_BYTES = 16 * 1024**3
_MAX_REFUSED = 20
_MODEL_ARCHIVES = {".npz", ".keras", ".mar"}


def scan(source: Path) -> dict[str, Any]:
    """{"verdict", "findings", "framework", "flavor_version", "signature", "requirements", "python",
    "requirements_refused"}; the last are sentences about lines that are no plain requirements.

    EngineError(field="file") when there is no model to speak of: no MLmodel, or one that cannot be read.
    """
    findings = Findings()
    files = _files(source, findings)
    if findings.verdict == "rejected":
        # Links and devices: nothing here is worth following.
        return {
            **findings.result(), "framework": "unknown", "flavor_version": None,
            "signature": {"inputs": [], "outputs": []}, "requirements": [], "python": "", "requirements_refused": [],
        }  # fmt: skip
    framework, version, found = _description(source, files, findings)
    for path in files:
        _scan_file(path, path.relative_to(source).as_posix(), findings)
    onnx_files = [path for path in files if path.suffix == ".onnx"]
    for path in onnx_files:
        checked = _scan_onnx(path, path.relative_to(source).as_posix(), findings)
        if checked and len(onnx_files) == 1:
            found = checked
    pmml_files = [path for path in files if path.suffix == ".pmml"]
    for path in pmml_files:
        described = _scan_pmml(path, path.relative_to(source).as_posix(), findings)
        if described and framework == "pmml" and len(pmml_files) == 1:
            found = described
    packages = _packages(source, findings)
    return {
        **findings.result(),
        "framework": framework,
        "flavor_version": version,
        "signature": found,
        "requirements": packages.lines,
        "python": packages.python,
        "requirements_refused": packages.refused[:_MAX_REFUSED],
    }


def _files(source: Path, findings: Findings) -> list[Path]:
    """Every plain file; links and devices are findings and are not followed."""
    found: list[Path] = []
    total = 0
    for folder, folders, names in os.walk(source):
        for name in [*folders, *names]:
            path = Path(folder, name)
            shown = path.relative_to(source).as_posix()
            info = path.lstat()
            if stat.S_ISDIR(info.st_mode):
                continue
            if not stat.S_ISREG(info.st_mode):
                findings.add("rejected", shown, "Links and special files are not allowed.")
                continue
            if info.st_nlink > 1:
                findings.add("rejected", shown, "Hard links are not allowed.")
                continue
            found.append(path)
            total += info.st_size
            if len(found) > _MAX_FILES or total > _MAX_BYTES:
                raise EngineError("The model has too many files or is too large.", field="file", code="size")
    return sorted(found)


def _description(source: Path, files: list[Path], findings: Findings) -> tuple[str, str | None, signature.Signature]:
    if not (source / "MLmodel").is_file():
        for framework in ("onnx", "pmml"):
            if len([path for path in files if path.suffix == f".{framework}"]) == 1:
                return framework, None, {"inputs": [], "outputs": []}
        raise EngineError("There is no MLmodel file, so this is no MLflow model.", field="file", code="mlmodel")
    data = mlmodel.read_yaml(source / "MLmodel", "MLmodel")
    framework, _, version = mlmodel.flavor_of(data)
    generic = data["flavors"].get("python_function")
    if isinstance(generic, dict):
        loader = str(generic.get("loader_module"))
        if not loader.startswith("mlflow."):
            foul = judge(loader, "_load_pyfunc") == "dangerous"
            findings.add("rejected" if foul else "suspicious", "MLmodel", f"loader_module {loader} is not used here.")
        if generic.get("code"):
            findings.add("suspicious", "MLmodel", "Code shipped with the model is not used here.")
    if framework != "pyfunc":
        mlmodel.model_path(source, data)
    return framework, version, signature.of_mlflow(data.get("signature"))


def _scan_file(path: Path, name: str, findings: Findings) -> None:
    kind = kind_of_file(path)
    suffix = path.suffix.lower()
    if suffix == ".skops":
        _scan_skops(path, name, findings)
    elif suffix in torch_zip.SUFFIXES:
        if kind not in archives.KINDS or _check_archive(path, name, findings):
            torch_zip.scan_torch(path, name, findings)
    elif kind == "pickle" or suffix in pickles.SUFFIXES:
        if kind == "pickle" and suffix not in pickles.SUFFIXES:
            findings.add("rejected", name, "This is a pickle under another name.")
        pickles.scan_pickle(path, name, findings)
    elif kind and kind.endswith("archive") and (suffix not in _MODEL_ARCHIVES or kind not in archives.KINDS):
        findings.add("rejected", name, f"A {kind} inside a model is not opened.")
    elif kind == "program":
        findings.add("rejected", name, "This is a program.")
    elif suffix in {".py", ".sh", ".so", ".dll"}:
        findings.add("suspicious", name, "Code shipped with the model is not used here.")
    if suffix in _MODEL_ARCHIVES:
        fit = _check_archive(path, name, findings)
        if fit and suffix == ".keras":
            tensorflow_files.scan_keras(path, name, findings)
    elif suffix == ".safetensors":
        wrong = safetensors.problem(path)
        if wrong:
            findings.add("rejected", name, wrong)
    elif path.name == "saved_model.pb":
        tensorflow_files.scan_saved_model(path, name, findings)


def _check_archive(path: Path, name: str, findings: Findings) -> bool:
    """Whether an archive that is a model format is fit to be looked into."""
    wrong = archives.problem(path)
    if wrong:
        findings.add("rejected", name, wrong)
    return wrong is None


def _scan_skops(path: Path, name: str, findings: Findings) -> None:
    if not _check_archive(path, name, findings):
        return
    from engine.scan.skops_types import untrusted

    try:
        types = untrusted(path)
    except Exception as error:
        # The file is foreign and skops raises whatever its JSON makes it raise.
        findings.add("rejected", name, f"This skops file cannot be read ({type(error).__name__}).")
        return
    for each in types:
        module, _, attribute = each.rpartition(".")
        judgement = judge(module, attribute)
        if judgement == "dangerous":
            findings.add("rejected", name, f"The model calls {each}.")
        elif judgement == "unknown":
            findings.add("suspicious", name, f"The model uses {each}, which is not on the list.")


def _scan_onnx(path: Path, name: str, findings: Findings) -> signature.Signature | None:
    from engine.scan.tasks import check_onnx_file

    try:
        return check_onnx_file(path)["signature"]
    except EngineError as error:
        findings.add("rejected", name, error.message)
        return None


def _scan_pmml(path: Path, name: str, findings: Findings) -> signature.Signature | None:
    from engine.scan.pmml import check_pmml_file

    try:
        found: signature.Signature = check_pmml_file(path)["signature"]
    except EngineError as error:
        findings.add("rejected", name, error.message)
        return None
    return found


def _packages(source: Path, findings: Findings) -> requirements.Recorded:
    """What the model says it needs; options, addresses and folders are left out and said."""
    try:
        found = requirements.recorded(source)
    except EngineError as error:
        found = requirements.Recorded([], "", [error.message])
    for sentence in found.refused[:_MAX_REFUSED]:
        findings.add("suspicious", "requirements", sentence)
    return found
