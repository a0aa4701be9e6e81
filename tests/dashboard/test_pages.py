"""Every page as everybody: the roles see it, a stranger gets 404, nobody is sent to sign in."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from slipway.accounts.models import Role
from tests.dashboard.conftest import LISTS

Browser = Callable[[str], Client]
INLINE = re.compile(r"""<script(?![^>]*\bsrc=)|<style\b|\sstyle=["']|\son[a-z]+=["']|javascript:""")


def text_of(answer: Any) -> str:
    return b"".join(answer).decode() if answer.streaming else answer.content.decode()


@pytest.mark.parametrize("role", [*Role.values, "root"])
def test_every_page_opens_when_role(role: str, browser_as: Browser, addresses: dict[str, str]) -> None:
    browser = browser_as(role)
    for name, address in (LISTS | addresses).items():
        answer = browser.get(address)
        assert answer.status_code == 200, (role, name)


@pytest.mark.parametrize("language", ["en", "zh-hans"])
def test_no_page_has_inline_code_when_strict_csp(language: str, browser_as: Browser, addresses: dict[str, str]) -> None:
    browser = browser_as("admin")
    browser.cookies["django_language"] = language
    for name, address in (LISTS | addresses | {"404": "/nothing/", "login": "/login/"}).items():
        answer = browser.get(address)
        found = INLINE.search(text_of(answer))
        assert not found, (name, found)
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]


def test_pages_of_a_project_are_not_found_when_stranger(browser_as: Browser, addresses: dict[str, str]) -> None:
    browser = browser_as("stranger")
    for name, address in addresses.items():
        assert browser.get(address).status_code == 404, name


def test_lists_show_nothing_of_others_when_stranger(browser_as: Browser, world: dict[str, Any]) -> None:
    browser = browser_as("stranger")
    for name, address in LISTS.items():
        text = browser.get(address).content.decode().replace("letters, digits", "")
        assert "digits" not in text, name
    assert browser.get("/models/?project=vision").status_code == 404


def test_everything_sends_to_sign_in_when_anonymous(browser_as: Browser, addresses: dict[str, str]) -> None:
    browser = browser_as("anonymous")
    for name, address in (LISTS | addresses).items():
        answer = browser.get(address)
        assert answer.status_code == 302, name
        assert answer.headers["Location"].startswith("/login/?next="), name


def test_sign_in_opens_home_when_password_right(browser_as: Browser, world: dict[str, Any]) -> None:
    browser = browser_as("anonymous")
    wrong = browser.post("/login/", {"username": "admin", "password": "no"})
    assert wrong.status_code == 200 and "correct username" in wrong.content.decode()
    answer = browser.post("/login/", {"username": "admin", "password": "pw"})
    assert answer.status_code == 302 and answer.headers["Location"] == "/"


def test_buttons_are_disabled_with_the_reason_when_viewer(browser_as: Browser, addresses: dict[str, str]) -> None:
    browser = browser_as("viewer")
    rollout = browser.get(addresses["rollout"]).content.decode()
    assert "Needs the role operator or admin." in rollout
    assert "promote-confirm" not in rollout
    version = browser.get(addresses["version"]).content.decode()
    assert "Needs the role developer, operator or admin." in version
    assert "Needs the role approver or admin." in version


def test_rollout_tells_the_effect_of_each_move_when_operator(browser_as: Browser, addresses: dict[str, str]) -> None:
    text = browser_as("operator").get(addresses["rollout"]).content.decode()
    assert "Send 50 % of the traffic of digits to version 4; version 3 keeps 50 %." in text
    assert "Sends all traffic of digits back to version 3 and ends the rollout." in text
    assert 'data-testid="roll-back"' not in text


def test_lists_are_pages_with_the_first_step_when_project_empty(browser_as: Browser, people: dict[str, Any]) -> None:
    browser = browser_as("stranger")
    for name, address in LISTS.items():
        assert browser.get(f"{address.split('?')[0]}?project=other").status_code == 200, name
    assert "MLFLOW_TRACKING_URI" in browser.get("/models/").content.decode()


def test_card_is_harmless_when_it_holds_a_script(browser_as: Browser, addresses: dict[str, str]) -> None:
    text = browser_as("admin").get(addresses["version"]).content.decode()
    assert "&lt;script&gt;alert(1)" in text and "<script>alert" not in text


ODD = (
    "/models/?before=x", "/models/?sort=newest&before=-1", "/jobs/?before=99999999999999999999", "/jobs/?state=%00x",
    "/models/?q=%00", "/compare/?v=a", "/versions/99999999999/", "/endpoints/digits/?span=abc", "/search?q=%00",
    "/jobs/?kind=%27%22", "/endpoints/?before=%00", "/deploy/?version=x", "/rollouts/?state=x", "/?project=%00",
    "/versions/99999999999999999999999/", "/jobs/1/log?after=x", "/endpoints/digits/series.json?span=1",
)  # fmt: skip


def test_odd_addresses_are_answered_when_hand_written(browser_as: Browser, world: dict[str, Any]) -> None:
    browser = browser_as("admin")
    for address in ODD:
        assert browser.get(address).status_code in {200, 404}, address


def test_signed_in_person_sees_chinese_when_chosen(browser_as: Browser, world: dict[str, Any]) -> None:
    browser = browser_as("admin")
    browser.post("/i18n/setlang/", {"language": "zh-hans", "next": "/"})
    text = browser.get("/").content.decode()
    assert 'lang="zh-Hans"' in text and "需要关注" in text


def test_pages_arrive_compressed_when_the_browser_can(browser_as: Browser, addresses: dict[str, str]) -> None:
    browser = browser_as("admin")
    for name, address in (LISTS | addresses).items():
        answer = browser.get(address, headers={"accept-encoding": "gzip"})
        if answer.headers["Content-Type"].startswith("text/html") and name != "log":
            assert answer.headers["Content-Encoding"] == "gzip", name
            assert len(answer.content) < 30_000, (name, len(answer.content))
            assert "accept-encoding" in answer.headers["Vary"].lower(), name


TEMPLATES = Path(__file__).resolve().parents[2] / "templates"


def test_templates_can_be_read_by_a_stranger() -> None:
    for file in TEMPLATES.rglob("*.html"):
        lines = file.read_text().splitlines()
        assert len(lines) <= 250, file
        for number, line in enumerate(lines, 1):
            assert len(line) <= 140 or "_(" in line or "translate" in line, f"{file}:{number} is {len(line)} wide"


def test_artifacts_show_their_worst_rows_when_parity_found_differences(
    browser_as: Browser, addresses: dict[str, str]
) -> None:
    text = text_of(browser_as("viewer").get(addresses["version-artifacts"]))
    assert "Row 17: differs by 0.021" in " ".join(text.split()) and "0.489, 0.511" in text
    assert re.search(r"relative\s+0.034", text)
