"""A person's way through the product in a real browser: sign in, upload, deploy, predict, roll out, roll back.

Chromium is Debian's. Every page on the way is also held to what all pages must be: no script errors, nothing
that the strict content policy refuses, no accessibility fault that axe finds, no sideways scrolling on a phone.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.person import PHONE, WIDE, Person
from tests.e2e.small import classifier, image_means, mood, png
from tests.e2e.stack import Stack, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uploads")
    for seed in (1, 2):
        (folder / f"small-{seed}.onnx").write_bytes(classifier(seed))
    (folder / "pickle.onnx").write_bytes(
        b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94."
    )
    return folder


def upload(person: Person, file: Path) -> None:
    person.see("/models/")
    person.click("upload-link")
    person.page.set_input_files("#file", str(file))
    person.page.fill("#upload input[name=model]", "browser-small")
    person.page.click("#send")


def test_sign_in_is_refused_in_words_when_password_is_wrong(browser: Browser, stack: Stack) -> None:
    page = browser.new_context().new_page()
    page.goto(f"{stack.url}/models/")
    assert "/login/" in page.url
    page.fill("input[name=username]", "admin")
    page.fill("input[name=password]", "not it")
    page.click("button[type=submit]")
    expect(page.locator("main")).to_contain_text("password")
    page.context.close()


def test_upload_says_what_is_wrong_when_file_is_a_pickle(person: Person, files: Path) -> None:
    upload(person, files / "pickle.onnx")
    expect(person.page.locator("#failure")).to_contain_text("pickle", timeout=20_000)
    person.complaints = [line for line in person.complaints if "422" not in line]


def test_version_page_opens_when_an_onnx_file_is_uploaded(person: Person, files: Path) -> None:
    upload(person, files / "small-1.onnx")
    person.page.wait_for_url("**/versions/*/", timeout=30_000)
    expect(person.page.locator("h1")).to_contain_text("browser-small")
    expect(person.page.get_by_test_id("deploy")).to_be_visible()


def test_endpoint_answers_in_the_playground_when_deployed_by_hand(person: Person, stack: Stack) -> None:
    page = person.page
    artifact = stack.api().get("/artifacts", params={"format": "onnx"}).json()["results"][0]
    person.see(f"/endpoints/new/?artifact={artifact['id']}")
    page.fill("input[name=name]", "browser")
    page.select_option("select[name=access]", "open")
    page.select_option("select[name=artifact]", str(artifact["id"]))
    page.get_by_test_id("endpoint-form").locator("button[type=submit]").click()
    page.wait_for_url("**/endpoints/browser/")
    ready = f"{stack.serving}/v2/models/browser/ready"
    until(lambda: page.request.get(ready).status == 200, 30, "The endpoint's readiness")
    person.see("/endpoints/browser/playground/")
    page.get_by_role("tab", name="JSON").click()
    page.fill("textarea[name=body]", json.dumps(request_body()))
    person.click("send")
    expect(page.get_by_test_id("answer")).to_contain_text("200", timeout=20_000)
    expect(page.get_by_test_id("answer")).to_contain_text("label")


def request_body() -> dict[str, Any]:
    from tests.e2e.small import first_row

    return first_row()


def serve(stack: Stack, name: str, model: bytes, page: Page) -> None:
    """An open endpoint that answers with a model's first version."""
    api, params = stack.api(), {"model": f"play-{name}", "project": "default", "file_name": f"{name}.onnx"}
    version = api.post("/versions/upload", params=params, content=model).json()
    artifact = api.get("/artifacts", params={"version": version["id"], "format": "onnx"}).json()["results"][0]
    made = {"name": f"play-{name}", "project": "default", "access": "open", "artifact": artifact["id"]}
    assert api.post("/endpoints", json=made).status_code == 201
    ready = f"{stack.serving}/v2/models/play-{name}/ready"
    until(lambda: page.request.get(ready).status == 200, 30, "The endpoint's readiness")


def test_playground_sends_a_table_when_rows_are_typed_and_pasted(person: Person) -> None:
    page = person.page
    person.see("/endpoints/browser/playground/")
    expect(page.get_by_role("tab", name="Table")).to_have_attribute("aria-selected", "true")
    page.get_by_label("x0, row 1").fill("half")
    person.click("send")
    expect(page.get_by_test_id("wrong")).to_contain_text("x0, row 1: “half” is not a number.")
    page.get_by_label("x0, row 1").fill("0.5")
    page.get_by_label("x0, row 1").press("Enter")  # the row below, a new one
    paste = "(text) => { const data = new DataTransfer(); data.setData('text/plain', text); document.activeElement"
    paste += ".dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true, cancelable: true})); }"
    page.evaluate(paste, "x1\tx0\tx2\tx3\n1\t2\t3\t4\n5\t6\t7\t8\n")
    expect(page.get_by_label("x0, row 2")).to_have_value("2")
    expect(page.get_by_label("x0, row 3")).to_have_value("6")
    person.click("send")
    expect(page.get_by_test_id("answer-table").locator("tbody tr")).to_have_count(3, timeout=20_000)
    expect(page.get_by_test_id("answered-by")).to_contain_text("version 1")
    page.get_by_role("tab", name="Table").press("ArrowRight")
    expect(page.locator("textarea[name=body]")).to_have_value(re.compile(r'"data":\[0.5,0,0,0,2,1,3,4,6,5,7,8\]'))
    assert page.url.endswith("?input=json")


def test_playground_names_what_is_wrong_when_json_does_not_fit(person: Person) -> None:
    page = person.page
    person.see("/endpoints/browser/playground/?input=json")
    page.fill("textarea[name=body]", "{")
    person.click("send")
    expect(page.get_by_test_id("wrong")).to_contain_text("This is not JSON")
    expect(page.get_by_test_id("send-anyway")).to_be_hidden()
    page.fill(
        "textarea[name=body]", '{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, "a"]}]}'
    )
    person.click("send")
    wrong = page.get_by_test_id("wrong")
    expect(wrong).to_contain_text("the shape [1, 3] does not fit [any, 4]")
    expect(wrong).to_contain_text("needs 3 values; “data” has 2")
    expect(wrong).to_contain_text('value 2 ("a") does not fit FP32')
    person.click("send-anyway")
    expect(page.get_by_test_id("refusal")).to_contain_text("The request does not fit the model.", timeout=20_000)


def test_playground_sends_a_picture_when_one_is_chosen(person: Person, stack: Stack) -> None:
    page = person.page
    serve(stack, "image", image_means(), page)
    person.see("/endpoints/play-image/playground/")
    page.set_input_files("#image-file", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"hello"})
    expect(page.locator("#image-says")).to_contain_text("“a.txt” is not a PNG, JPEG or WebP image.")
    page.set_input_files("#image-file", {"name": "a.png", "mimeType": "image/png", "buffer": png(64, 48, (255, 0, 51))})
    expect(page.locator("#image-says")).to_contain_text("64 × 48 pixels, sent as FP32 [1, 3, 32, 32] (NCHW)")
    for scale, means in (("unit", "1, 0, 0.2"), ("byte", "255, 0, 51"), ("imagenet", "2.2489, -2.0357, -0.9156")):
        page.select_option("#image-scale", scale)
        person.click("send")
        expect(page.get_by_test_id("answer-table")).to_contain_text(means, timeout=20_000)
    expect(page.get_by_test_id("calls")).to_contain_text("@request.json")


def test_playground_sends_one_text_a_line_when_the_model_takes_strings(person: Person, stack: Stack) -> None:
    page = person.page
    serve(stack, "text", mood(), page)
    person.see("/endpoints/play-text/playground/")
    page.get_by_label("One text a line").fill("good\n“bad”\nbad\n")
    page.keyboard.press("Control+Enter")
    rows = page.get_by_test_id("answer-table").locator("tbody tr td")
    expect(rows).to_have_text(["1", "2", "0"], timeout=20_000)
    expect(page.get_by_test_id("calls")).to_contain_text("tritonclient.http")


def test_endpoint_shows_what_serves_it_when_it_answered(person: Person) -> None:
    page = person.page
    person.see("/endpoints/play-image/")
    expect(page.get_by_test_id("replicas")).to_contain_text("up to date", timeout=20_000)
    expect(page.get_by_test_id("loads")).to_contain_text("version 1")
    expect(page.get_by_test_id("batches")).to_contain_text("100.0 %", timeout=20_000)
    expect(page.locator("[data-chart='compute queue'] canvas")).to_have_count(1, timeout=20_000)


def test_traffic_comes_back_when_a_rollout_is_aborted_by_click(person: Person, files: Path, stack: Stack) -> None:
    page = person.page
    upload(person, files / "small-2.onnx")
    page.wait_for_url("**/versions/*/", timeout=30_000)
    person.click("deploy")
    page.select_option("select[name=endpoint]", "browser")
    page.fill("input[name=min_minutes]", "60")
    person.click("deploy-continue")
    expect(page.get_by_test_id("effect")).to_contain_text("browser")
    person.click("deploy-confirm")
    page.wait_for_url("**/rollouts/*/")
    expect(page.get_by_test_id("split")).to_contain_text("10 / 90 %", timeout=30_000)
    person.click("full")
    person.click("full-confirm")
    expect(page.get_by_test_id("split")).to_contain_text("100 / 0 %", timeout=15_000)
    person.click("abort")
    person.click("abort-confirm")
    expect(page.get_by_test_id("headline")).to_contain_text("Aborted", timeout=15_000)
    served = stack.api().get("/endpoints", params={"name": "browser"}).json()["results"][0]["deployments"]
    assert [row["weight"] for row in served if row["state"] == "live"] == [100]


def test_palette_and_help_open_when_keys_are_pressed(person: Person) -> None:
    page = person.page
    person.see("/")
    page.keyboard.press("Control+k")
    page.keyboard.type("browser-small", delay=20)
    expect(page.get_by_role("option", name="browser-small").first).to_be_visible()
    page.keyboard.press("Enter")
    page.wait_for_url("**/models/*/")
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("j")
    page.wait_for_url("**/jobs/")


def pages(stack: Stack) -> list[str]:
    """Every kind of page, with something on it."""
    api = stack.api()
    version = api.get("/versions", params={"limit": 1}).json()["results"][0]
    rollout = api.get("/rollouts", params={"limit": 1}).json()["results"][0]
    tabs = ("signature", "artifacts", "metrics", "lineage", "deployments", "jobs", "audit")
    jobs = api.get("/jobs", params={"limit": 1}).json()["results"]
    return [
        "/", "/models/", "/models/new/", "/models/upload/", f"/models/{version['model']}/",
        f"/versions/{version['id']}/",
        *(f"/versions/{version['id']}/{tab}/" for tab in tabs),
        "/jobs/", *(f"/jobs/{job['id']}/" for job in jobs), "/datasets/", "/endpoints/", "/endpoints/browser/",
        "/endpoints/browser/playground/", "/endpoints/play-image/playground/", "/endpoints/play-text/playground/",
        "/endpoints/browser/playground/?input=json", "/rollouts/", f"/rollouts/{rollout['id']}/", "/monitoring/",
        "/targets/", "/settings/", "/settings/tokens/", "/settings/policies/", "/settings/audit/",
    ]  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["1280", "390"])
def test_every_page_is_accessible_and_quiet_when_seen(
    browser: Browser, stack: Stack, password: str, scheme: Any, size: Any
) -> None:
    context = browser.new_context(viewport=size, color_scheme=scheme, locale="en-GB", bypass_csp=False)
    someone = Person(context, stack)
    someone.sign_in(password)
    faults = [fault for path in pages(stack) for fault in someone.faults(path)]
    context.close()
    assert faults == []
    assert someone.complaints == []


def test_pages_complained_about_nothing_when_used(person: Person) -> None:
    assert person.complaints == []
