"""The optimization lab as a person uses it: a goal, a search that goes on before their eyes, and a rollout of its best.

The search is a real one, of a small model, on the workers of the whole stack.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.person import PHONE, WIDE, Person
from tests.e2e.small import classifier
from tests.e2e.stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
HIDDEN = 1024
ROWS = f"""
from registry.models import Version
from tests.e2e.small import classifier
from tests.registry import lab
lab.dataset(Version.objects.get(pk={{}}), lab.rows(400, model=classifier(5, hidden={HIDDEN})))
"""


@pytest.fixture(scope="module")
def version(stack: Stack) -> int:
    """A version with an ONNX artifact that an endpoint answers with, and an evaluation set."""
    params = {"model": "lab", "project": "default", "file_name": "lab.onnx", "task": "tabular-classification"}
    api = stack.api()
    answer = api.post("/versions/upload", params=params, content=classifier(5, hidden=HIDDEN))
    assert answer.status_code == 201, answer.text
    found = int(answer.json()["id"])
    artifact = api.get("/artifacts", params={"version": found, "format": "onnx"}).json()["results"][0]["id"]
    made = {"name": "lab", "project": "default", "access": "open", "artifact": artifact}
    assert api.post("/endpoints", json=made).status_code == 201
    stack.python(ROWS.format(found))
    return found


@pytest.fixture(scope="module")
def lab(person: Person, version: int) -> str:
    """The address of a search that a person started by the form and saw to its end without reloading the page."""
    page = person.page
    person.see(f"/versions/{version}/variants/")
    person.click("search-new")
    page.get_by_label("What matters").select_option("size")
    page.get_by_label("Most that may be lost").fill("10")
    page.get_by_label("Minutes").fill("3")
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Trials").fill("2")
    person.click("search-start")
    page.wait_for_url("**/searches/*/")
    page.evaluate("window.neverLeft = true")
    tried = page.get_by_test_id("trials").locator("tbody tr")
    expect(tried.first).to_be_visible(timeout=60_000)
    expect(page.get_by_test_id("cancel")).to_be_visible()
    expect(page.get_by_test_id("tiles").locator("progress")).to_be_visible()
    expect(page.get_by_test_id("recommended")).to_contain_text("Recommended", timeout=90_000)
    expect(tried).to_have_count(2)
    assert page.evaluate("window.neverLeft") is True
    return page.url


def test_search_recommends_with_reasons_when_it_has_ended(person: Person, lab: str) -> None:
    page = person.page
    expect(page.get_by_test_id("recommended")).to_contain_text("of the size")
    expect(page.get_by_test_id("recommended")).to_contain_text("best of them for size")
    expect(page.get_by_test_id("tiles")).to_contain_text("tried of at most 2")
    expect(page.get_by_test_id("confusion")).to_have_count(2)
    expect(page.get_by_test_id("sizes")).to_be_visible()
    expect(page.get_by_test_id("sensitivity")).to_be_visible()


def test_scatter_tells_its_points_when_hovered_or_walked_by_keyboard(person: Person, lab: str) -> None:
    page = person.page
    page.goto(lab)
    points = page.get_by_test_id("scatter").locator("a.point")
    last = points.last
    expect(last.locator(".tip")).to_be_hidden()
    last.locator(".mark").hover()
    expect(last.locator(".tip")).to_be_visible()
    expect(last.locator(".tip")).to_contain_text("times the speed")
    page.mouse.move(0, 0)
    page.get_by_role("region", name="Scatter of the trials").focus()
    for index in range(points.count()):
        page.keyboard.press("Tab")
        expect(points.nth(index)).to_be_focused()
        expect(points.nth(index).locator(".tip")).to_be_visible()
    name = points.last.get_attribute("aria-label") or ""
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"\?trial=\d+#trial$"))
    expect(page.get_by_test_id("chosen").locator("h2").first).to_have_text(name.partition(":")[0])


def test_table_says_the_same_when_read_instead_of_the_scatter(person: Person, lab: str) -> None:
    page = person.page
    page.goto(lab)
    told = page.get_by_test_id("scatter").locator("a.point").evaluate_all(
        "points => points.map((point) => point.getAttribute('aria-label'))"
    )  # fmt: skip
    table = page.get_by_test_id("trials")
    for point in told:
        label, speed, loss = re.match(r"(.*): (\d+\.\d+) times the speed, loses (-?\d+\.\d+)", point).groups()  # type: ignore[union-attr]
        row = table.locator("tbody tr", has_text=label).filter(has_text=f"{speed}×")
        expect(row).to_contain_text(loss)
    page.get_by_role("link", name="Size", exact=True).click()
    page.wait_for_url("**/?sort=size")
    expect(table.locator("tbody tr")).to_have_count(2)


def test_rollout_form_opens_with_the_variant_when_deploy_this_is_clicked(
    person: Person, lab: str, stack: Stack
) -> None:
    page = person.page
    page.goto(lab)
    best = page.get_by_test_id("recommended").locator("h2 a").inner_text()
    found = stack.api().get(f"/searches/{lab.rstrip('/').rpartition('/')[2]}").json()
    person.click("deploy-best")
    page.wait_for_url(re.compile(rf"artifact={found['recommended']['artifact']}$"))
    chosen = page.locator("select[name=artifact]")
    expect(chosen).to_have_value(str(found["recommended"]["artifact"]))
    expect(chosen.locator("option:checked")).to_contain_text(best)
    page.select_option("select[name=endpoint]", "lab")
    person.click("deploy-continue")
    expect(page.get_by_test_id("effect")).to_contain_text("lab")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["1280", "390"])
def test_lab_pages_are_accessible_and_quiet_when_seen(
    browser: Browser, stack: Stack, password: str, version: int, lab: str, scheme: Any, size: Any
) -> None:
    context = browser.new_context(viewport=size, color_scheme=scheme, locale="en-GB")
    someone = Person(context, stack)
    someone.sign_in(password)
    of_version = (f"/versions/{version}/{page}/" for page in ("search", "variants", "optimize"))
    paths = [*of_version, lab.removeprefix(stack.url)]
    faults = [fault for path in paths for fault in someone.faults(path)]
    # Whatever is wider than a phone scrolls within its own frame, which the keyboard can reach.
    if someone.page.get_by_test_id("sensitivity").evaluate("panel => panel.scrollWidth > panel.clientWidth + 1"):
        faults.append("the table of layers is cut off")
    context.close()
    assert faults == []
    assert someone.complaints == []
