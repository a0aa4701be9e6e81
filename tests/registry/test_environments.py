"""Which formats a version can have, and the environments that some of them need."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied
from django.utils import timezone

from engine.export import environment_store
from engine.export.environments import digest_of
from registry import environments, packages
from registry.models import Environment
from slipway import paths
from slipway.api.problems import Conflict, Problem
from slipway.jobs.models import Job

pytestmark = pytest.mark.django_db


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLIPWAY_HOME", str(tmp_path))
    return paths.environments()


def prepared(root: Path, digest: str, size: int, days: float) -> Environment:
    """An environment on disk that was used so many days ago."""
    (root / digest / "bin").mkdir(parents=True)
    (root / digest / "bin" / "python").write_bytes(b"")
    used = timezone.now() - dt.timedelta(days=days)
    return Environment.objects.create(name="pmml", digest=digest, state="ready", size=size, used_at=used)


def test_every_format_is_possible_or_says_why_not_when_the_framework_is_known(new_version: Any) -> None:
    version = new_version(framework="sklearn")
    ways = {way.exporter: way for way in environments.ways_of(version)}
    assert not ways["onnx"].why_not and ways["onnx"].environment == ""
    assert not ways["pmml"].why_not and ways["pmml"].environment == "pmml" and ways["pmml"].prepared is None
    strange = environments.ways_of(new_version(framework="unheard-of"))
    assert all(way.why_not.endswith(".") for way in strange)


def test_way_shows_what_is_there_when_it_was_made_and_prepared(new_version: Any) -> None:
    version = new_version(framework="sklearn")
    artifact = version.artifacts.get()
    type(artifact).objects.filter(pk=artifact.pk).update(recipe={"exporter": "onnx"})
    row = Environment.objects.create(name="pmml", digest=digest_of(packages.lock_of("pmml")), state="ready")
    ways = {way.exporter: way for way in environments.ways_of(version)}
    assert ways["onnx"].artifact == artifact and ways["pmml"].prepared == row


def test_one_job_prepares_an_environment_when_several_ask(people: Any, new_version: Any) -> None:
    version = new_version()
    jobs = {environments.environment_request(actor=people["developer"], version=version, name="pmml") for _ in range(3)}
    assert len(jobs) == 1 and Environment.objects.get().job in jobs
    Job.objects.update(state="failed", finished_at=timezone.now())
    again = environments.environment_request(actor=people["developer"], version=version, name="pmml")
    assert again not in jobs
    with pytest.raises(PermissionDenied):
        environments.environment_request(actor=people["viewer"], version=version, name="pmml")
    with pytest.raises(Problem, match="no environment"):
        environments.environment_request(actor=people["developer"], version=version, name="../base")


def test_oldest_go_when_they_are_too_old_or_too_large_together(home: Path) -> None:
    rows = [prepared(home, f"e{days}", 10, days) for days in (1, 2, 3, 40)]
    assert environments.environments_trim(days=30, total_bytes=25) == 2
    states = [Environment.objects.get(pk=row.pk).state for row in rows]
    assert states == ["ready", "ready", "evicted", "evicted"]
    assert sorted(path.name for path in home.iterdir() if not path.name.startswith(".")) == ["e1", "e2"]


def test_environment_stays_when_a_job_uses_it(home: Path, people: Any) -> None:
    row = prepared(home, "e", 10, 40)
    with environment_store.held(home, "e"):
        assert environments.environments_trim(days=30, total_bytes=1) == 0
        with pytest.raises(Conflict, match="uses it"):
            environments.environment_evict(actor=people["root"], row=row)
    with pytest.raises(Problem, match="administrator"):
        environments.environment_evict(actor=people["admin"], row=row)
    environments.environment_evict(actor=people["root"], row=row)
    assert not (home / "e").exists() and Environment.objects.get().state == "evicted"


def test_files_build_the_same_environment_when_taken_elsewhere(new_version: Any) -> None:
    version = new_version(framework="sklearn")
    lock, bill = environments.file_of(version, "requirements.txt"), environments.file_of(version, "sbom.json")
    listed = json.loads(bill)
    assert listed["bomFormat"] == "CycloneDX" and listed["specVersion"] == "1.6"
    components = {each["name"]: each for each in listed["components"]}
    assert components["scikit-learn"]["purl"] == "pkg:pypi/scikit-learn@1.9.0"
    assert len(components) == len({line.split("==")[0] for line in lock.splitlines() if "==" in line})
    assert f"--hash=sha256:{components['scikit-learn']['properties'][0]['value']}" in lock
    assert "--require-hashes" in environments.file_of(version, "Dockerfile")
