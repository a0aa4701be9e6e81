"""Answers are compressed, and entity tags survive it."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.django_db


def test_entity_tag_stays_strong_when_the_client_accepts_compression(as_user, model) -> None:
    model.description = "long enough to be worth compressing " * 20
    model.save()
    api = as_user("developer")
    seen = api.get(f"/api/v1/models/{model.pk}", HTTP_ACCEPT_ENCODING="gzip")
    assert seen["ETag"] == f'"{model.revision}"'
    changed = api.patch(f"/api/v1/models/{model.pk}", {"description": "short"}, HTTP_IF_MATCH=seen["ETag"])
    assert changed.status_code == 200


def test_lists_arrive_compressed_when_the_client_accepts_it(as_user, new_version) -> None:
    for _ in range(10):
        new_version()
    answer = as_user("viewer").get("/api/v1/versions", HTTP_ACCEPT_ENCODING="gzip")
    assert answer["Content-Encoding"] == "gzip"
