"""Where a version's packages come from: the worker's own, a kit, or a lock of its own."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import EngineError
from registry import environments, packages
from registry.models import Environment, Resolution, Version
from slipway.api.problems import Problem
from slipway.audit.models import Entry
from slipway.jobs.models import Job
from tests.api.tools import problem

pytestmark = pytest.mark.django_db
SAME = ["mlflow==2.9", "scikit-learn==1.9.0", "numpy"]
OLDER = ["mlflow==3.1.0", "scikit-learn==1.7.2"]


def asking(new_version: Any, lines: list[str], **more: Any) -> Version:
    return new_version(framework="sklearn", params={"requirements": lines, **more})


def test_nothing_is_installed_when_the_worker_has_what_is_asked_for(new_version: Any) -> None:
    version = asking(new_version, SAME)
    assert (packages.plan_for(version, None).origin, packages.plan_for(version, "pmml").origin) == ("worker", "kit")
    ways = {way.exporter: way for way in environments.ways_of(version)}
    assert ways["onnx"].environment == "" and (ways["pmml"].environment, ways["pmml"].origin) == ("pmml", "kit")


def test_version_gets_its_own_packages_when_nobody_has_them(new_version: Any) -> None:
    version = asking(new_version, OLDER)
    for kit in (None, "pmml"):
        plan = packages.plan_for(version, kit)
        assert plan.origin == "own" and plan.lock is None and plan.unmet == ("scikit-learn==1.7.2",)
        assert "scikit-learn==1.7.2" in plan.requirements and not any("mlflow" in each for each in plan.requirements)
    ways = {way.exporter: way for way in environments.ways_of(version)}
    assert (ways["onnx"].environment, ways["onnx"].origin, ways["onnx"].prepared) == ("base", "own", None)
    with pytest.raises(Problem, match="not resolved yet"):
        environments.file_of(version, "requirements.txt")


def test_format_that_says_everything_asks_for_nothing_when_it_was_made_elsewhere(new_version: Any) -> None:
    version = new_version(framework="onnx", params={"requirements": ["onnx==1.2"], "requirements_refused": ["no"]})
    assert packages.plan_for(version, None).origin == "worker"


def test_own_list_is_needed_when_a_recorded_line_was_refused(new_version: Any, people: Any) -> None:
    version = asking(new_version, ["numpy"], requirements_refused=["requirements.txt, line 2: “-r x” is an option."])
    assert all("line 2" in way.why_not for way in environments.ways_of(version) if way.exporter in ("onnx", "pmml"))
    with pytest.raises(EngineError, match="line 2"):
        packages.plan_for(version, None)
    version = packages.packages_set(actor=people["developer"], version=version, lines=["numpy>=2"])
    assert packages.plan_for(version, None).origin == "worker"
    assert Entry.objects.filter(action="version.packages").count() == 1


def test_own_list_is_taken_and_hostile_one_refused_when_asking_to_prepare(new_version: Any, as_user: Any) -> None:
    version = asking(new_version, SAME)
    url = f"/api/v1/versions/{version.pk}/prepare"
    for bad in ("git+https://example.invalid/x", "-r /etc/passwd", "x @ file:///x", "--index-url=http://x"):
        answer = as_user("developer").post(url, {"name": "base", "requirements": ["numpy", bad]}, format="json")
        assert "line 2" in problem(answer, 422, field="requirements")["detail"]
    assert not Job.objects.exists() and not Version.objects.get(pk=version.pk).packages
    body = {"name": "base", "requirements": ["scikit-learn==1.7.2"]}
    assert as_user("viewer").post(url, body, format="json").status_code == 403
    first = as_user("developer").post(url, body, format="json")
    again = as_user("developer").post(url, {"name": "base"}, format="json")
    assert first.status_code == 202 and first.json()["id"] == again.json()["id"]
    row = Resolution.objects.get()
    assert row.requirements == list(packages.plan_for(Version.objects.get(pk=version.pk), None).requirements)
    assert as_user("developer").post(url, {"name": "base", "requirements": []}, format="json").status_code == 202
    assert packages.plan_for(Version.objects.get(pk=version.pk), None).origin == "worker"


def test_files_follow_the_lock_when_it_is_the_versions_own(new_version: Any) -> None:
    plan = packages.plan_for(version := asking(new_version, OLDER), None)
    lock = f"scikit-learn==1.7.2 \\\n    --hash=sha256:{'a' * 64}\n"
    found = packages.lock_resolved(plan=plan, lock=lock, job=None)
    assert packages.lock_resolved(plan=plan, lock="other==1\n", job=None).lock == lock  # the first stays
    assert environments.file_of(version, "requirements.txt") == lock
    assert "pkg:pypi/scikit-learn@1.7.2" in environments.file_of(version, "sbom.json")
    row = Environment.objects.get()
    assert (row.digest, row.origin, row.state) == (found.digest, "own", "preparing")


def test_reason_is_shown_when_the_packages_cannot_be_had(new_version: Any) -> None:
    plan = packages.plan_for(version := asking(new_version, ["scikit-learn==99"]), None)
    packages.lock_unresolved(plan=plan, reason="There is no scikit-learn==99.")
    ways = {way.exporter: way for way in environments.ways_of(version)}
    assert ways["onnx"].reason == "There is no scikit-learn==99."


def test_another_python_is_said_when_the_model_was_logged_on_it(new_version: Any) -> None:
    assert "Python 3.8.2" in packages.python_words(asking(new_version, SAME, python="3.8.2"))
    assert packages.python_words(asking(new_version, SAME)) == ""


def test_own_packages_are_shown_to_their_project_alone_when_environments_are_listed(
    new_version: Any, people: Any, as_user: Any, client: Any
) -> None:
    plan = packages.plan_for(version := asking(new_version, OLDER), None)
    job = environments.environment_request(actor=people["developer"], version=version, name="base")
    found = packages.lock_resolved(plan=plan, lock="secretive==1.7.2\n", job=job)
    environments.environment_prepared(plan=found, size=10, seconds=1)
    Environment.objects.create(name="pmml", digest="kit", state="ready")
    row = Environment.objects.get(origin="own")

    def seen(name: str) -> tuple[int, int, bool]:
        client.force_login(people[name])
        api = as_user(name)
        listed = len(api.get("/api/v1/environments").json()["results"])
        page = client.get("/environments/").content.decode()
        return listed, api.get(f"/api/v1/environments/{row.pk}").status_code, "secretive" in page

    assert {name: seen(name) for name in ("root", "viewer", "stranger")} == {
        "root": (2, 200, True), "viewer": (2, 200, True), "stranger": (1, 404, False),
    }  # fmt: skip
    # Another project's later job takes its place; what was made with it still says whose it is.
    Environment.objects.update(job=None)
    assert seen("viewer") == (1, 404, False)
    artifact = version.artifacts.get()
    artifact.recipe = {"packages": "own", "lock": row.digest}
    artifact.save()
    assert (seen("viewer"), seen("stranger")) == ((2, 200, True), (1, 404, False))
