"""The demo world for page tests, built once per test inside its transaction."""

from __future__ import annotations

from typing import Any

import pytest

from slipway.accounts.models import Project, User
from tests.dashboard import lab_world
from tests.dashboard import world as factory


@pytest.fixture
def world(project: Project, people: dict[str, User]) -> dict[str, Any]:
    """Everything a page can show, in the project `vision`, made by its admin."""
    made = factory.build(project, people["admin"])
    return made | {"searches": lab_world.build(made["versions"][4], people["admin"])}


@pytest.fixture
def addresses(world: dict[str, Any]) -> dict[str, str]:
    """{name: address} of every page that belongs to a project."""
    version, rollout = world["versions"][4], world["rollout"]
    tabs = (
        "signature",
        "artifacts",
        "metrics",
        "lineage",
        "deployments",
        "jobs",
        "audit",
        "export",
        "packages",
        "optimize",
        "search",
        "variants",
        "alias",
    )
    return {
        "model": f"/models/{world['model'].pk}/",
        "model-edit": f"/models/{world['model'].pk}/edit/",
        "version": f"/versions/{version.pk}/",
        "rejected": f"/versions/{world['rejected'].pk}/",
        **{f"version-{tab}": f"/versions/{version.pk}/{tab}/" for tab in tabs},
        "compare": f"/compare/?v={version.pk}&v={world['versions'][3].pk}",
        **{f"job-{state}": f"/jobs/{job.pk}/" for state, job in world["jobs"].items()},
        "log": f"/jobs/{world['jobs']['running'].pk}/log",
        "log-text": f"/jobs/{world['jobs']['running'].pk}/log.txt",
        "endpoint": "/endpoints/digits/",
        "series": "/endpoints/digits/series.json",
        "playground": "/endpoints/digits/playground/",
        "deploy": f"/deploy/?version={version.pk}",
        "rollout": f"/rollouts/{rollout.pk}/",
        **{f"lab-{name}": f"/searches/{search.pk}/" for name, search in world["searches"].items()},
    }


LISTS = {
    "home": "/",
    "models": "/models/",
    "model-new": "/models/new/",
    "upload": "/models/upload/",
    "datasets": "/datasets/",
    "jobs": "/jobs/",
    "endpoints": "/endpoints/",
    "endpoint-new": "/endpoints/new/",
    "rollouts": "/rollouts/",
    "targets": "/targets/",
    "monitoring": "/monitoring/",
    "settings": "/settings/",
    "tokens": "/settings/tokens/",
    "policies": "/settings/policies/",
    "audit": "/settings/audit/",
    "language": "/settings/language/",
    "search": "/search?q=digits",
    "counts": "/counts",
}
