"""Every way of starting the web process limits how long and how large a request's head may be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from uvicorn.importer import import_from_string

from slipway.heads import HEAD_S, MAX_HEAD

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["Procfile", "docker-compose.yml"])
def test_web_closes_endless_heads_when_started(name: str) -> None:
    found = re.findall(r"slipway\.asgi:application[^\n]*?--http (\S+)", (ROOT / name).read_text())
    assert found == ["slipway.heads:Protocol"]
    assert import_from_string(found[0]).__name__ == "Protocol"
    assert HEAD_S <= 30 and MAX_HEAD <= 128 * 1024
