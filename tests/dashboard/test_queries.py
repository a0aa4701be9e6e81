"""Pages make a constant number of queries, however many rows there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from registry.models import Alias, Artifact, Model, Origin, Version, VersionState
from tests.dashboard import world as factory
from tests.dashboard.conftest import LISTS

Browser = Callable[[str], Client]
# What the pages make today, with some air; a row that brings a query of its own breaks through at once.
MOST = {
    "version-optimize": 14,
    "version-search": 17,
    "rollout": 15,
    "endpoint": 24,
    "home": 24,
    "deploy": 18,
    "endpoint-new": 16,
}
USUAL = 13


def queries(browser: Client, address: str) -> int:
    browser.get(address)  # what is remembered per process is not counted
    with CaptureQueriesContext(connection) as captured:
        answer = browser.get(address)
        if answer.streaming:
            list(answer)
    return len(captured)


def more(world: dict[str, Any], people: dict[str, Any]) -> None:
    """Thirty of everything."""
    model, project = world["model"], world["model"].project
    models = [Model.objects.create(project=project, name=f"m{n}", tags=["x"]) for n in range(30)]
    for number, one in enumerate(models):
        version = Version.objects.create(model=one, number=1, state=VersionState.READY, origin=Origin.UPLOAD)
        Alias.objects.create(model=one, name="champion", version=version)
        Artifact.objects.create(
            version=version,
            format="onnx",
            sha256=factory.digest(f"m{number}"),
            size=5,
            file_name="x",
            uri="x",
            verdict="clean",
        )
    for number in range(6, 36):
        factory.make_version(model, number, people["admin"], world["jobs"]["succeeded"])
    for _ in range(6):
        factory.make_jobs(project, people["developer"])
    for number in range(3):
        factory.make_endpoint(
            project, world["versions"][3], world["versions"][4], people["admin"], name=f"more-{number}"
        )
    factory.make_monitoring(models[0], world["jobs"]["failed"])


def test_queries_stay_the_same_when_there_is_more(
    browser_as: Browser, world: dict[str, Any], addresses: dict[str, str], people: dict[str, Any]
) -> None:
    browser = browser_as("admin")
    pages = LISTS | addresses
    few = {name: queries(browser, address) for name, address in pages.items()}
    world["alert"].delete()
    type(world["alert"]).objects.all().delete()
    more(world, people)
    many = {name: queries(browser, address) for name, address in pages.items()}
    grown = {name: (few[name], many[name]) for name in pages if many[name] > few[name] + 1}
    assert not grown
    heavy = {name: count for name, count in many.items() if count > MOST.get(name, USUAL)}
    assert not heavy
