"""Buttons and forms: one service call each, and its refusal in words beside the form or on top of the page."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from html import unescape
from typing import Any

import httpx
import pytest
from django.test import Client
from django.utils import timezone

from deployments.models import Deployment, Endpoint, Rollout, Server
from monitoring.models import Alert, Policy
from registry.models import Model, Version
from slipway.accounts.models import Membership, Project, Token
from slipway.jobs.models import Job

Browser = Callable[[str], Client]


def flash(answer: Any) -> str:
    return answer.content.decode()


def test_model_is_made_when_form_is_right(browser_as: Browser, project: Project) -> None:
    answer = browser_as("developer").post("/models/new/", {"project": "vision", "name": "cats", "task": "other"})
    assert answer.status_code == 302
    assert Model.objects.get(name="cats").project == project


def test_form_shows_the_refusal_when_name_is_taken(browser_as: Browser, world: dict[str, Any]) -> None:
    answer = browser_as("developer").post("/models/new/", {"project": "vision", "name": "digits", "task": "other"})
    assert answer.status_code == 422
    assert 'role="alert"' in answer.content.decode()


def test_form_offers_no_project_when_viewer(browser_as: Browser, world: dict[str, Any]) -> None:
    answer = browser_as("viewer").post("/models/new/", {"project": "vision", "name": "cats", "task": "other"})
    assert answer.status_code == 422
    assert not Model.objects.filter(name="cats").exists()


def test_rollout_moves_when_operator_pauses(browser_as: Browser, world: dict[str, Any]) -> None:
    rollout = world["rollout"]
    answer = browser_as("operator").post(f"/rollouts/{rollout.pk}/pause", {"revision": rollout.revision})
    assert answer.status_code == 302
    assert Rollout.objects.get(pk=rollout.pk).state == "paused"


def test_rollout_stays_when_viewer_or_stale(browser_as: Browser, world: dict[str, Any]) -> None:
    rollout = world["rollout"]
    address = f"/rollouts/{rollout.pk}/abort"
    refused = browser_as("viewer").post(address, {"revision": rollout.revision}, follow=True)
    assert "does not allow this" in flash(refused)
    stale = browser_as("operator").post(address, {"revision": rollout.revision + 7}, follow=True)
    assert "changed since you looked" in flash(stale)
    assert Rollout.objects.get(pk=rollout.pk).state == "progressing"
    assert browser_as("stranger").post(address, {"revision": rollout.revision}).status_code == 404
    assert browser_as("operator").post(f"/rollouts/{rollout.pk}/explode").status_code == 404


def test_traffic_returns_when_operator_aborts(browser_as: Browser, world: dict[str, Any]) -> None:
    rollout = world["rollout"]
    browser_as("operator").post(f"/rollouts/{rollout.pk}/abort", {"revision": rollout.revision})
    assert Deployment.objects.get(pk=rollout.stable_id).weight == 100


def test_deploy_says_the_effect_before_it_starts(browser_as: Browser, world: dict[str, Any]) -> None:
    browser = browser_as("operator")
    browser.post(f"/rollouts/{world['rollout'].pk}/abort", {"revision": world["rollout"].revision})
    version = world["versions"][2]
    values = {
        "endpoint": "digits", "artifact": version.artifacts.filter(format="onnx").last().pk, "strategy": "standard",
        "min_minutes": 1, "min_requests": 50, "error_percent": 5, "guard_requests": 20,
    }  # fmt: skip
    page = browser.post(f"/deploy/?version={version.pk}", values)
    assert "Send 10 % of the traffic of digits to version 2; version 3 keeps 90 %." in page.content.decode()
    assert Rollout.objects.count() == 1
    answer = browser.post(f"/deploy/?version={version.pk}", values | {"confirmed": "1"})
    assert answer.status_code == 302, answer.content.decode()
    started = Rollout.objects.first()
    assert started.candidate.artifact.version == version and started.guard["max_error_share"] == 0.05


def test_endpoint_is_made_with_its_artifact(browser_as: Browser, world: dict[str, Any]) -> None:
    artifact = world["versions"][4].artifacts.filter(format="onnx").last()
    values = {"project": "vision", "name": "fresh", "access": "token", "artifact": artifact.pk}
    assert browser_as("operator").post("/endpoints/new/", values).status_code == 302
    assert Endpoint.objects.get(name="fresh").deployments.get().weight == 100
    wrong = browser_as("operator").post("/endpoints/new/", values | {"name": "Not good"})
    assert wrong.status_code == 422 and "Lower-case" in wrong.content.decode()


def test_job_is_cancelled_and_retried(browser_as: Browser, world: dict[str, Any]) -> None:
    browser, queued = browser_as("developer"), world["jobs"]["queued"]
    browser.post(f"/jobs/{queued.pk}/cancel")
    assert Job.objects.get(pk=queued.pk).state == "cancelled"
    browser.post(f"/jobs/{queued.pk}/retry")
    assert Job.objects.get(pk=queued.pk).state == "queued"
    late = browser.post(f"/jobs/{world['jobs']['succeeded'].pk}/cancel", follow=True)
    assert "already ended" in flash(late)


def test_version_is_approved_by_somebody_else(browser_as: Browser, world: dict[str, Any]) -> None:
    version = world["versions"][4]
    answer = browser_as("approver").post(f"/versions/{version.pk}/decide", {"approve": "1", "note": "fits"})
    assert answer.status_code == 302
    assert Version.objects.get(pk=version.pk).approval == "approved"
    refused = browser_as("developer").post(f"/versions/{version.pk}/decide", {"approve": "0"}, follow=True)
    assert "does not allow this" in flash(refused)


def test_alias_star_and_archive_change_the_model(browser_as: Browser, world: dict[str, Any]) -> None:
    browser, version, model = browser_as("developer"), world["versions"][4], world["model"]
    browser.post(f"/versions/{version.pk}/alias/", {"name": "kiosk"})
    assert model.aliases.get(name="kiosk").version == version
    wrong = browser.post(f"/versions/{version.pk}/alias/", {"name": "NOT GOOD"})
    assert wrong.status_code == 422
    browser.post(f"/versions/{version.pk}/alias/remove", {"name": "kiosk"})
    assert not model.aliases.filter(name="kiosk").exists()
    browser.post(f"/models/{model.pk}/star")
    assert model.stars.filter(username="developer").exists()
    browser.post(f"/models/{model.pk}/archive")
    assert Model.objects.get(pk=model.pk).archived_at is not None


def test_export_starts_a_job_for_each_format_with_its_options(browser_as: Browser, world: dict[str, Any]) -> None:
    browser, version = browser_as("developer"), world["versions"][4]
    page = browser.get(f"/versions/{version.pk}/export/").content.decode()
    assert 'type="checkbox"' in page
    nothing = browser.post(f"/versions/{version.pk}/export/", {})
    assert nothing.status_code == 422
    wrong = {"exporters": ["onnx", "triton"], "onnx-opset": "17", "triton-model_name": "../up"}
    refused = browser.post(f"/versions/{version.pk}/export/", wrong)
    assert refused.status_code == 422 and "The options of Triton repository do not fit." in refused.content.decode()
    assert 'value="../up"' in refused.content.decode() and "should match pattern" in refused.content.decode()
    sent = {**wrong, "triton-model_name": "digits", "triton-max_batch_size": "64", "pmml-heap_mb": "-1"}
    assert browser.post(f"/versions/{version.pk}/export/", sent).status_code == 302
    made = {job.params["exporter"]: job.params["options"] for job in Job.objects.order_by("-id")[:2]}
    assert made == {"onnx": {"opset": 17}, "triton": {"model_name": "digits"}}


def test_deploy_says_what_pmml_needs_when_the_version_has_no_onnx(browser_as: Browser, world: dict[str, Any]) -> None:
    browser, version = browser_as("operator"), world["versions"][4]
    address, words = f"/deploy/?version={version.pk}", "libraries under the AGPL"
    assert words not in browser.get(address).content.decode()
    version.artifacts.filter(format="onnx").update(verdict="rejected")
    assert words in browser.get(address).content.decode()
    values = {
        "endpoint": "digits", "artifact": version.artifacts.get(format="pmml").pk, "strategy": "quick",
        "min_minutes": "1", "min_requests": "5", "error_percent": "5", "guard_requests": "20",
    }  # fmt: skip
    effect = re.search(r'data-testid="effect">(.*?)</p>', browser.post(address, values).content.decode(), re.S)
    assert effect and words in effect[1]


def test_policy_is_made_fired_and_reveals_its_secret_once(browser_as: Browser, world: dict[str, Any]) -> None:
    browser, policy = browser_as("developer"), world["policy"]
    wrong = browser.post("/settings/policies/", {"model": world["model"].pk, "name": "x", "cron": "often"})
    assert wrong.status_code == 422 and "five fields" in wrong.content.decode()
    browser.post("/settings/policies/", {"model": world["model"].pk, "name": "weekly", "cron": "0 3 * * 1"})
    assert Policy.objects.filter(name="weekly").exists()
    secret = browser.post(f"/settings/policies/{policy.pk}/secret").content.decode()
    assert "whsec_" in secret and "whsec_" not in browser.get("/settings/policies/").content.decode()
    refused = browser_as("viewer").post(f"/settings/policies/{policy.pk}/secret", follow=True)
    assert "whsec_" not in refused.content.decode() and "does not allow" in refused.content.decode()


def test_alert_is_acknowledged(browser_as: Browser, world: dict[str, Any]) -> None:
    alert = world["alert"]
    browser_as("developer").post(f"/monitoring/alerts/{alert.pk}/acknowledge")
    assert Alert.objects.get(pk=alert.pk).state == "acknowledged"


def test_token_is_shown_once_and_revoked(browser_as: Browser, people: dict[str, Any]) -> None:
    browser = browser_as("viewer")
    made = browser.post("/settings/tokens/", {"name": "script", "scope": "read", "days": 7}).content.decode()
    assert "slip_" in made
    token = Token.objects.get(name="script")
    assert token.expires_at is not None
    assert browser.get("/settings/tokens/").content.decode().count("slip_") == 1  # its beginning only
    browser_as("admin").post(f"/settings/tokens/{token.pk}/revoke")
    assert Token.objects.filter(pk=token.pk).exists()
    browser.post(f"/settings/tokens/{token.pk}/revoke")
    assert not Token.objects.filter(pk=token.pk).exists()


def test_member_is_added_by_admin_only(browser_as: Browser, people: dict[str, Any], project: Project) -> None:
    values = {"username": "stranger", "role": "viewer"}
    refused = browser_as("operator").post("/settings/projects/vision/members", values, follow=True)
    assert "does not allow" in flash(refused)
    browser_as("admin").post("/settings/projects/vision/members", values)
    assert Membership.objects.get(project=project, user=people["stranger"]).role == "viewer"
    unknown = browser_as("admin").post("/settings/projects/vision/members", values | {"username": "x"}, follow=True)
    assert "no user of this name" in flash(unknown)


def test_chain_is_checked_by_root_only(browser_as: Browser, world: dict[str, Any]) -> None:
    assert browser_as("admin").post("/settings/audit/check").status_code == 403
    answer = browser_as("root").post("/settings/audit/check", follow=True)
    assert "The chain holds" in flash(answer)


def test_playground_shows_the_servers_answer(
    browser_as: Browser, world: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def post(url: str, **request: Any) -> httpx.Response:
        assert url.endswith("/v2/models/digits/infer") and request["content"] == b'{"inputs": []}'
        return httpx.Response(400, json={"error": "input 'input' is missing"})

    monkeypatch.setattr(httpx, "post", post)
    address = "/endpoints/digits/playground/"
    text = browser_as("developer").post(address, {"body": '{"inputs": []}'}).content.decode()
    assert "input &#x27;input&#x27; is missing" in text and "400" in text
    assert browser_as("viewer").post(address, {"body": "{}"}).status_code == 403


def test_playground_says_so_when_server_is_away(
    browser_as: Browser, world: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def post(url: str, **request: Any) -> httpx.Response:
        raise httpx.ConnectError("refused")

    monkeypatch.setattr(httpx, "post", post)
    answer = browser_as("developer").post("/endpoints/digits/playground/", {"body": "{}"})
    assert answer.status_code == 200 and "could not be reached" in answer.content.decode()


def test_playground_and_snippets_name_the_served_files_own_input(
    browser_as: Browser, world: dict[str, Any], addresses: dict[str, str]
) -> None:
    version = world["versions"][4]
    trained = {"inputs": [{"name": "input_0", "datatype": "FP64", "shape": [-1, 2]}], "outputs": []}
    Version.objects.filter(pk=version.pk).update(signature=trained)
    live = world["endpoint"].deployments.get(artifact__version=version, state="live").artifact
    live.signature = {"inputs": [{"name": "pixels", "datatype": "FP32", "shape": [-1, 3]}], "outputs": []}
    live.save()
    text = unescape(browser_as("developer").get(addresses["version"]).content.decode())
    assert '"name": "pixels", "shape": [1, 3], "datatype": "FP32", "data": [0, 0, 0]' in text
    assert "input_0" not in text
    serving = Deployment.objects.filter(endpoint=world["endpoint"], state="live")
    serving.filter(artifact=live).update(weight=90)
    serving.exclude(artifact=live).update(weight=10)
    text = unescape(browser_as("developer").get("/endpoints/digits/playground/").content.decode())
    assert '"name": "pixels"' in text and "input_0" not in text


@pytest.mark.parametrize(
    ("state", "testid", "effect"),
    [
        ("baking", "abort", "back to version 3 and ends the rollout."),
        ("promoted", "roll-back", "back to version 3 at once."),
    ],
)
def test_rollout_offers_the_way_back_in_the_same_words(
    browser_as: Browser, world: dict[str, Any], addresses: dict[str, str], state: str, testid: str, effect: str
) -> None:
    Rollout.objects.filter(pk=world["rollout"].pk).update(state=state)
    text = " ".join(browser_as("operator").get(addresses["rollout"]).content.decode().split())
    button = re.search(rf'<button [^>]*data-testid="{testid}">\s*([^<]+?)\s*</button>', text)
    assert button and button[1] == "Back to version 3"
    assert effect in text
    assert text.count(">Back to version 3") + text.count("> Back to version 3") == 3  # button, title, confirmation


def test_endpoint_says_the_same_words_when_promoted(browser_as: Browser, world: dict[str, Any]) -> None:
    Rollout.objects.filter(pk=world["rollout"].pk).update(state="promoted")
    text = browser_as("operator").get("/endpoints/digits/").content.decode()
    assert "Back to version 3" in text and 'data-testid="roll-back"' in text


def test_processes_long_unheard_of_are_one_line(browser_as: Browser, world: dict[str, Any]) -> None:
    browser = browser_as("viewer")
    fresh = browser.get("/endpoints/digits/").content.decode()
    assert 'data-testid="replicas"' in fresh and "gone quiet" not in fresh
    Server.objects.filter(process=1).update(seen_at=timezone.now() - dt.timedelta(seconds=90))
    some = browser.get("/endpoints/digits/").content.decode()
    assert 'data-testid="replicas"' in some and "1 process gone quiet" in some
    Server.objects.update(seen_at=timezone.now() - dt.timedelta(seconds=90))
    none = browser.get("/endpoints/digits/").content.decode()
    assert 'data-testid="replicas"' not in none and "2 processes gone quiet" in none
    assert "No inference server has reported in the last minute." in none


def test_twin_lists_when_traffic_was_moved(browser_as: Browser, world: dict[str, Any]) -> None:
    text = " ".join(browser_as("viewer").get("/endpoints/digits/").content.decode().split())
    assert 'data-testid="marks"' in text and "→ 10 %," in text and "→ 25 %</span>" in text


SETTINGS = {
    "limit_concurrency": 4, "limit_queue": 16, "cache_mb": "", "cache_ttl_s": "", "batching_mode": "auto",
    "batching_max": "", "batching_budget_ms": "", "sticky_header": "",
}  # fmt: skip


def test_settings_are_saved_when_operator_sends_the_form(browser_as: Browser, world: dict[str, Any]) -> None:
    row, browser = Endpoint.objects.get(name="digits"), browser_as("operator")
    values = SETTINGS | {"revision": row.revision}
    saved = browser.post("/endpoints/digits/settings/", values | {"batching_max": 32}, follow=True).content.decode()
    assert "Saved." in saved and "4 requests at once, 16 may wait" in saved and "at most 32" in saved
    row.refresh_from_db()
    assert (row.limit_concurrency, row.limit_queue, row.batching_mode, row.batching_max) == (4, 16, "auto", 32)
    assert (row.cache_mb, row.sticky_header) == (None, "")
    emptied = dict.fromkeys(SETTINGS, "") | {"revision": row.revision}
    assert browser.post("/endpoints/digits/settings/", emptied).status_code == 302
    row.refresh_from_db()
    assert (row.limit_concurrency, row.batching_mode, row.batching_max) == (None, "", None)
    assert browser.get("/endpoints/digits/settings/").status_code == 302


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"limit_queue": ""}, "Give both of these, or neither."), ({"cache_mb": 5}, "Give both of these, or neither."),
        ({"limit_concurrency": 0}, "greater than or equal to 1"), ({"sticky_header": "X Key"}, "in lower case"),
        ({"batching_mode": "off", "batching_max": 8}, "Leave this empty"), ({"batching_budget_ms": "nan"}, "number"),
        ({"revision": 99}, "changed since you looked"),
    ],
)  # fmt: skip
def test_settings_show_the_refusal_at_the_field_when_wrong(
    change: dict[str, Any], text: str, browser_as: Browser, world: dict[str, Any]
) -> None:
    row = Endpoint.objects.get(name="digits")
    answer = browser_as("operator").post("/endpoints/digits/settings/", SETTINGS | {"revision": row.revision} | change)
    page = answer.content.decode()
    assert answer.status_code == 422 and text in page and "<details open>" in page
    assert Endpoint.objects.get(name="digits").limit_concurrency is None


def test_settings_are_shown_and_not_changed_when_viewer(browser_as: Browser, world: dict[str, Any]) -> None:
    page = browser_as("viewer").get("/endpoints/digits/").content.decode()
    assert "Serving settings" in page and 'data-testid="settings-save"' not in page
    values = SETTINGS | {"revision": Endpoint.objects.get(name="digits").revision}
    refused = browser_as("viewer").post("/endpoints/digits/settings/", values)
    assert refused.status_code == 403 and "does not allow this" in refused.content.decode()
    assert browser_as("stranger").post("/endpoints/digits/settings/", values).status_code == 404
    assert Endpoint.objects.get(name="digits").limit_concurrency is None


def test_deploy_takes_provider_and_upstream_when_given(browser_as: Browser, world: dict[str, Any]) -> None:
    browser = browser_as("operator")
    browser.post(f"/rollouts/{world['rollout'].pk}/abort", {"revision": world["rollout"].revision})
    version = world["versions"][2]
    address = f"/deploy/?version={version.pk}"
    values = {
        "endpoint": "digits", "artifact": version.artifacts.filter(format="onnx").last().pk, "strategy": "standard",
        "min_minutes": 1, "min_requests": 50, "error_percent": 5, "guard_requests": 20,
    }  # fmt: skip
    far = {"upstream_url": "http://triton:8000", "upstream_model": "digits"}
    for wrong, text in (
        (far | {"upstream_url": "http://169.254.169.254"}, "link-local and metadata"),
        (far | {"upstream_model": ""}, "begins with a letter or digit"),
        (far | {"provider": "cuda"}, "chooses its own hardware"),
        ({"upstream_model": "digits"}, "Say where the other server is"),
    ):
        answer = browser.post(address, values | wrong)
        assert answer.status_code == 422 and text in answer.content.decode(), text
    assert "It runs on NVIDIA GPU" in browser.post(address, values | {"provider": "cuda"}).content.decode()
    assert "The server at http://triton:8000 answers." in browser.post(address, values | far).content.decode()
    assert browser.post(address, values | far | {"confirmed": "1"}).status_code == 302
    candidate = Rollout.objects.first().candidate
    assert (candidate.upstream["url"], candidate.upstream["timeout_s"]) == ("http://triton:8000", 10)
    assert "→ triton:8000" in browser.get("/endpoints/digits/").content.decode()


def test_token_has_a_quota_when_asked_for(browser_as: Browser, people: dict[str, Any]) -> None:
    values = {"name": "app", "scope": "infer", "rate": 2.5}
    page = browser_as("viewer").post("/settings/tokens/", values).content.decode()
    assert "2.5/s, 3 at once" in page and Token.objects.get(name="app").burst == 3
    wrong = browser_as("viewer").post("/settings/tokens/", {"name": "x", "scope": "infer", "burst": 5})
    assert wrong.status_code == 422 and "A burst needs" in wrong.content.decode()
