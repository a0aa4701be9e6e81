"""A person at a browser: Debian's Chromium, and what is held against every page that it shows."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.e2e.stack import Stack

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
# Faults of these kinds are what WCAG 2.1 AA names; "best practice" rules are opinions.
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser, running."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    assert program, "No Chromium here; `make test` installs one where it can."
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield running
        running.close()


class Person:
    """One signed-in browser window that remembers every complaint of the pages it saw."""

    def __init__(self, context: BrowserContext, stack: Stack) -> None:
        self.page: Page = context.new_page()
        self.url = stack.url
        self.complaints: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(f"{self.page.url}: {error}"))
        self.page.on("console", self._heard)

    def _heard(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(f"{self.page.url}: {message.text}")

    def sign_in(self, password: str) -> None:
        self.page.goto(f"{self.url}/login/")
        self.page.fill("input[name=username]", "admin")
        self.page.fill("input[name=password]", password)
        self.page.click("button[type=submit]")
        expect(self.page.get_by_test_id("sign-out")).to_have_count(1)

    def see(self, path: str) -> None:
        answer = self.page.goto(self.url + path)
        assert answer is not None and answer.status == 200, path
        self.page.wait_for_load_state("load")

    def click(self, testid: str) -> None:
        self.page.get_by_test_id(testid).first.click()

    def faults(self, path: str) -> list[str]:
        """What axe holds against a page, and whether it scrolls sideways."""
        self.see(path)
        # evaluate() runs outside the page's content policy, which therefore stays on for the page itself.
        self.page.evaluate(axe_source())
        found = self.page.evaluate("rules => axe.run(document, rules)", RULES)["violations"]
        faults = [f"{path}: {fault['id']} {fault['nodes'][0]['html'][:120]}" for fault in found]
        if self.page.evaluate("document.documentElement.scrollWidth > innerWidth + 1"):
            faults.append(f"{path}: scrolls sideways")
        return faults


def axe_source() -> str:
    spec = importlib.util.find_spec("axe_core_python")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).with_name("axe.min.js").read_text()
