"""Models, versions, artifacts: every command, and what its table and its JSON hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry.models import Approval, Artifact, Model, Version
from registry.search_models import Search
from tests.cli.conftest import Cli
from tests.dashboard import lab_world, world

pytestmark = pytest.mark.django_db(transaction=True)


def test_models_live_from_create_to_archive_when_asked(cli: Cli, project: Any) -> None:
    made = cli("models", "create", "digits", "--project", "vision", "--task", "image-classification", "-o", "json").json
    assert made["name"] == "digits" and made["task"] == "image-classification"
    assert "digits" in cli("models", "list").out
    assert cli("-o", "json", "models", "list", "--project", "vision").json["results"][0]["id"] == made["id"]
    assert "No versions yet." in cli("models", "show", "digits").err
    assert "archived" in cli("models", "archive", "digits", "--yes").out
    assert "Nothing here." in cli("models", "list").err
    assert "digits" in cli("models", "list", "--archived").out
    cli("models", "archive", "digits", "--restore")
    assert Model.objects.get().archived_at is None


def test_aliases_move_and_go_when_asked(cli: Cli, new_version: Callable[..., Version]) -> None:
    new_version(), new_version()
    assert "champion of digits is now version 2." in cli("models", "alias", "digits", "champion", 2).out
    shown = cli("versions", "show", "digits@champion", "-o", "json").json
    assert shown["number"] == 2 and shown["aliases"] == ["champion"]
    gone = cli("models", "unalias", "digits", "champion", "--yes", "-o", "json")
    assert gone.out == ""
    cli("versions", "show", "digits@champion", code=5)
    cli("models", "unalias", "digits", "champion", "--yes", code=5)


def test_versions_are_listed_and_decided_when_named_by_number(cli: Cli, new_version: Callable[..., Version]) -> None:
    version = new_version(metrics={"accuracy": 0.97})
    assert "digits/1" in cli("versions", "list", "--model", "digits").out
    card = cli("versions", "show", "digits/1").out
    assert "accuracy 0.97" in card and "onnx" in card
    assert "approved" in cli("versions", "approve", "digits/1", "--note", "fine", by="approver").out
    assert "declined" in cli("versions", "decline", version.pk, by="approver").out
    version.refresh_from_db()
    assert version.approval == Approval.DECLINED


def test_lists_follow_cursors_when_more_rows_are_wanted_than_a_page(cli: Cli, project: Any) -> None:
    Model.objects.bulk_create([Model(project=project, name=f"m{index}") for index in range(130)])
    page = cli("models", "list", "--limit", 120, "-o", "json").json
    assert len({row["id"] for row in page["results"]}) == 120 and page["next"]
    short = cli("models", "list", "--limit", 2)
    assert len(short.out.strip().splitlines()) == 3 and "There are more" in short.err


def test_upload_registers_and_download_returns_the_same_bytes(
    cli: Cli, project: Any, onnx_file: Path, stored: Path
) -> None:
    made = cli("versions", "upload", onnx_file, "--model", "digits", "--task", "tabular-classification", "-o", "json")
    digest = hashlib.sha256(onnx_file.read_bytes()).hexdigest()
    assert made.json["sha256"] == digest and made.json["number"] == 1
    assert cli("artifacts", "list", "--version", "digits/1", "-o", "json").json["results"][0]["sha256"] == digest
    target = stored / "copy.onnx"
    assert digest in cli("artifacts", "download", "digits/1", "--to", target).out
    assert target.read_bytes() == onnx_file.read_bytes()
    assert "--force" in cli("artifacts", "download", digest, "--to", target, code=2).err
    cli("artifacts", "download", digest, "--to", target, "--force")
    again = cli("versions", "register", digest, "--model", "digits")
    assert "digits/2 is registered" in again.out
    assert [path.name for path in stored.iterdir() if path.name.endswith(".part")] == []


def test_upload_is_refused_when_the_file_is_no_model(cli: Cli, project: Any, stored: Path) -> None:
    bad = stored / "bad.onnx"
    bad.write_bytes(b"\x80\x04 no model")
    assert "slipway: " in cli("versions", "upload", bad, "--model", "digits", code=7).err
    assert not Version.objects.exists()
    cli("versions", "upload", stored / "missing.onnx", "--model", "digits", code=2)


def test_download_is_thrown_away_when_the_bytes_are_others(
    cli: Cli, new_version: Callable[..., Version], stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_version()
    other = stored / "other"
    other.write_bytes(b"other bytes")
    monkeypatch.setattr("registry.storage.fetch_file", lambda *args, **more: other)
    target = stored / "got.onnx"
    assert "not the artifact" in cli("artifacts", "download", "digits/1", "--to", target, code=8).err
    assert not target.exists() and len(list(stored.glob(".got*"))) == 0


def test_names_must_be_clear_when_several_rows_have_them(cli: Cli, new_version: Callable[..., Version]) -> None:
    version = new_version()
    source = version.artifacts.get()
    for label in ("int8", "int8"):
        Artifact.objects.create(
            version=version, format="onnx", sha256=hashlib.sha256(label.encode() + source.sha256.encode()).hexdigest()
            if not Artifact.objects.filter(recipe__label="int8").exists() else "a" * 64,
            size=1, file_name="m.onnx", uri="x", parent=source, recipe={"optimizer": "q", "label": label},
        )  # fmt: skip
    assert "more than one" in cli("artifacts", "download", "digits/1:int8", code=2).err
    assert "names no version" in cli("versions", "show", "digits", code=2).err
    cli("versions", "show", "digits/9", code=5)
    cli("versions", "show", "nothing/1", code=5)


def test_ids_beyond_every_row_are_not_found_when_asked_for(cli: Cli, new_version: Callable[..., Version]) -> None:
    new_version()
    cli("jobs", "show", 10**25, code=5)
    cli("alerts", "ack", 10**25, code=5)
    cli("versions", "show", 10**17, code=5)
    cli("versions", "show", f"digits/{10**17}", code=5)
    cli("models", "alias", "digits", "../..", 1, code=5)
    cli("versions", "list", "--state", "nonsense", code=7)


def test_search_starts_and_shows_its_front_when_asked(cli: Cli, project: Any, people: Any) -> None:
    built = world.build(project, people["admin"])
    version = built["versions"][4]
    onnx = version.artifacts.filter(format="onnx").order_by("id").first()
    started = cli("search", "start", onnx.pk, "--max-loss", 0.5, "--goal", "prefer=latency", "--goal", "size_mb=2",
                  "--slice", "site", "--slice", "age")  # fmt: skip
    search = Search.objects.get()
    assert f"slipway search show {search.pk}" in started.out
    assert (search.goal["max_loss"], search.goal["prefer"], search.goal["size_mb"]) == (0.5, "latency", 2)
    assert search.goal["slices"] == ["site", "age"]
    cli("search", "start", onnx.pk, "--goal", "max_loss=much", code=7)
    assert "is the target" in cli("search", "start", onnx.pk, "--slice", "target", code=7).err
    searches = lab_world.build(version, people["admin"])
    shown = cli("search", "show", searches["done"].pk).out
    assert "recommended" in shown and "refused" in shown and "Static int8" in shown
    data = cli("search", "show", searches["done"].pk, "-o", "json").json
    assert data["recommended"]["artifact"] and len(data["trials"]) == 11 and data["front"]
    assert "of the size" in data["reasons"][0]
    assert cli("search", "show", searches["unmet"].pk, "-o", "json").json["relax"]
    assert "Half precision" in cli("search", "show", searches["offer"].pk, "-o", "json").json["offered"]["label"]
    assert "running" in cli("search", "list").out
    cli("search", "show", 10**6, code=5)


def test_measurement_of_a_device_is_imported_when_it_is_of_the_artifact(
    cli: Cli, new_version: Callable[..., Version], tmp_path: Path
) -> None:
    artifact = new_version().artifacts.get()
    told = {
        "sha256": artifact.sha256, "latency_ms": {"p50": 4, "p95": 5, "p99": 6},
        "profile": {"cpu": "Cortex-A72", "cores": 4, "threads": 1, "machine": "aarch64"},
    }  # fmt: skip
    file = tmp_path / "measured.json"
    file.write_text(json.dumps(told))
    assert "Cortex-A72: p50 4.000 ms" in cli("artifacts", "import-measurement", artifact.pk, file).out
    assert artifact.measurements.get().latency_p95_ms == 5
    file.write_text(json.dumps({**told, "sha256": "0" * 64}))
    assert "another file" in cli("artifacts", "import-measurement", artifact.pk, file, code=7).err
    file.write_text("{")
    assert "is not JSON" in cli("artifacts", "import-measurement", artifact.pk, file, code=2).err
