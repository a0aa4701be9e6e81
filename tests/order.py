"""Pytest plug-in (`-p tests.order`): the files that take longest begin first, so that no worker is alone at the end.

xdist by itself begins with the files of most tests, which leaves those with one long test for the end. A file that is
not named here comes after those that are.
"""

from __future__ import annotations

import pytest

LONGEST_FIRST = (
    # All but e2e and chaos.
    "tests/engine/test_export_torch.py",
    "tests/serving/test_pmml.py",
    "tests/registry/test_search_jobs.py",
    "tests/engine/test_export_tensorflow.py",
    "tests/serving/test_process.py",
    "tests/engine/test_export.py",
    "tests/registry/test_bad_variants.py",
    "tests/dashboard/test_pages.py",
    "tests/engine/test_training.py",
    "tests/registry/test_upload.py",
    "tests/hostile/test_ingest.py",
    "tests/hostile/test_uploads.py",
    "tests/engine/test_fine_tuning.py",
    "tests/engine/test_pmml.py",
    "tests/serving/test_swaps.py",
    "tests/launch/test_up.py",
    "tests/engine/test_export_boosting.py",
    "tests/registry/test_search_training.py",
    "tests/engine/test_requirements.py",
    "tests/serving/test_desired_state.py",
    "tests/serving/test_grpc_life.py",
    "tests/cli/test_registry.py",
    "tests/cli/test_delivery.py",
    "tests/api/test_schema.py",
    "tests/mlflow/test_away.py",
    "tests/launch/test_services.py",
    "tests/conformance/test_conformance.py",
    # The first worker of two begins with the stack of the chaos tests, the other with that of e2e. What has to be back
    # within seconds of its kill comes late, when the jobs under faults are over.
    "tests/chaos/test_jobs.py",
    "tests/e2e/test_browser.py",
    "tests/chaos/test_failpoints.py",
    "tests/e2e/test_main_job.py",
    "tests/e2e/test_lab.py",
    "tests/e2e/test_kills.py",
    "tests/chaos/test_serving_load.py",
)
_PLACES = {name: place for place, name in enumerate(LONGEST_FIRST)}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Only xdist's workers: one process alone keeps the order that leaves the database's slow tests for the end."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _PLACES.get(item.nodeid.partition("::")[0], len(_PLACES)))
