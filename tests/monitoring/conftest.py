"""An endpoint, and a policy with its hook."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from deployments import services as endpoints
from deployments.models import Deployment, DesiredState
from monitoring import services
from monitoring.models import Policy
from tests.api.tools import light_settings as light_settings


@pytest.fixture
def deployment(project: Any, new_version: Callable[..., Any]) -> Deployment:
    DesiredState.objects.get_or_create(pk=1)
    artifact = new_version().artifacts.get()
    endpoint = endpoints.endpoint_create(actor=None, project=project, name="digits", artifact=artifact)
    return endpoint.deployments.get()


@pytest.fixture
def policy(model: Any) -> Policy:
    return services.policy_create(actor=None, model=model, name="nightly")
