"""Jobs, endpoints, rollouts, policies, alerts."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone

from deployments.models import Deployment, Endpoint, Rollout, RolloutState, Server
from monitoring.models import Alert, AlertState, Policy
from registry.models import Artifact, Model, Version
from slipway.accounts.models import Token
from slipway.jobs.models import Job, JobLog, State
from tests.cli.conftest import Cli

pytestmark = pytest.mark.django_db(transaction=True)
Ticking = Callable[[Callable[[int], None]], None]


def end(job: Job, state: str, reason: str = "") -> None:
    Job.objects.filter(pk=job.pk).update(state=state, finished_at=timezone.now(), reason=reason, progress=1)


def test_export_waits_and_prints_the_log_when_told_to(
    cli: Cli, new_version: Callable[..., Version], ticking: Ticking
) -> None:
    new_version()

    def move(pause: int) -> None:
        job = Job.objects.filter(state=State.QUEUED).order_by("id").first()
        assert job is not None
        JobLog.objects.create(job=job, attempt=1, text=f"line {pause}")
        if pause % 2:
            end(job, State.SUCCEEDED)

    ticking(move)
    ran = cli("versions", "export", "digits/1", "--to", "onnx", "--to", "pmml", "--wait")
    lines = [line.split()[-1] for line in ran.out.splitlines() if re.search(r"line \d$", line)]
    assert lines == ["0", "1", "2", "3"] and ran.out.count("succeeded.") == 2
    listed = cli("jobs", "list", "--state", "succeeded", "--state", "failed", "--kind", "export", "-o", "json").json
    assert len(listed["results"]) == 2


def test_export_carries_each_formats_options_when_given(cli: Cli, new_version: Callable[..., Version]) -> None:
    new_version()
    export = ("versions", "export", "digits/1")
    cli(*export, "--to", "onnx", "--option", "opset=17")
    cli(*export, "--to", "ort", "--to", "mar", "--option", "ort.level=basic", "--option", "mar.archive_version=1.0")
    given = {job.params["exporter"]: job.params["options"] for job in Job.objects.filter(kind="export")}
    assert given == {"onnx": {"opset": 17}, "ort": {"level": "basic"}, "mar": {"archive_version": "1.0"}}
    table = cli("versions", "formats", "digits/1").out
    assert "opset (integer, 11 to 30)" in table and "level (basic or extended, without it extended)" in table
    assert {way["exporter"] for way in cli("versions", "formats", "digits/1", "-o", "json").json} > set(given)


def test_export_is_refused_with_the_apis_words_when_an_option_does_not_fit(
    cli: Cli, new_version: Callable[..., Version]
) -> None:
    new_version()
    export = ("versions", "export", "digits/1", "--to", "onnx", "--option")
    assert "nonsense: Extra inputs are not permitted" in cli(*export, "nonsense=1", code=7).err
    assert "less than or equal to 30" in cli(*export, "opset=99", code=7).err
    assert "this exporter is not asked for" in cli(*export, "ort.level=basic", code=7).err
    assert "as in --option onnx.opset=17" in cli(*export, "opset=17", "--to", "ort", code=2).err
    assert "KEY=VALUE" in cli(*export, "opset", code=2).err
    assert not Job.objects.exists()


def test_optimize_ends_with_1_when_its_job_fails(
    cli: Cli, new_version: Callable[..., Version], ticking: Ticking
) -> None:
    new_version()
    ticking(lambda pause: end(Job.objects.get(), State.FAILED, "nothing to quantize"))
    command = ("artifacts", "optimize", "digits/1", "--with", "dynamic-quantization", "--option", "per_channel=true")
    ran = cli(*command, "--wait", code=1)
    job = Job.objects.get()
    assert "failed: nothing to quantize" in ran.out and job.params["options"] == {"per_channel": True}
    assert cli("jobs", "watch", job.pk, "-o", "json", code=1).json["state"] == "failed"
    assert "nothing to quantize" in cli("jobs", "show", job.pk).out
    cli("artifacts", "optimize", "digits/1", "--with", "dynamic-quantization", "--option", "nonsense=1", code=7)


def test_jobs_are_cancelled_and_retried_when_asked(cli: Cli, new_version: Callable[..., Version]) -> None:
    new_version()
    started = cli("versions", "export", "digits/1", "--to", "onnx", by="developer")
    job = Job.objects.get()
    assert f"slipway jobs watch {job.pk}" in started.out
    assert "--yes" in cli("jobs", "cancel", job.pk, code=2).err
    assert "is cancelled" in cli("jobs", "cancel", job.pk, "--yes").out
    assert "nothing to cancel" in cli("jobs", "cancel", job.pk, "--yes", code=6).err
    assert cli("jobs", "retry", job.pk, "-o", "json").json["state"] == "queued"
    assert cli("jobs", "watch", "987654", code=5).out == ""


@pytest.fixture
def digits(cli: Cli, new_version: Callable[..., Version]) -> Endpoint:
    """An endpoint that serves version 1; version 2 is there."""
    new_version(), new_version()
    out = cli("endpoints", "create", "digits", "--artifact", "digits/1", "--access", "open").out
    assert "digits/1 100 %" in out
    return Endpoint.objects.get()


def test_endpoints_live_from_create_to_delete_when_asked(cli: Cli, digits: Endpoint) -> None:
    assert "digits/1 100 %" in cli("endpoints", "list").out
    assert "/v2/models/digits/infer" in cli("endpoints", "show", "digits").out
    assert "rollout" in cli("endpoints", "deploy", "digits", "digits/2", code=6).err
    old = digits.deployments.get()
    new = Deployment.objects.create(endpoint=digits, artifact=Artifact.objects.get(version__number=2), state="warm")
    split = cli("endpoints", "weights", "digits", f"{old.pk}=25", "v2=75").out
    assert "digits/2 75 %, digits/1 25 %" in split
    new.refresh_from_db()
    assert new.weight == 75
    cli("endpoints", "weights", "digits", f"{old.pk}=25", code=7)
    cli("endpoints", "weights", "digits", "v9=100", code=2)
    assert "No requests" in cli("endpoints", "stats", digits.pk, "--minutes", 5).err
    assert "serves digits/2 75 %" in cli("endpoints", "delete", "digits", code=2).err
    assert "is deleted" in cli("endpoints", "delete", "digits", "--yes").out
    cli("endpoints", "show", "digits", code=5)
    cli("endpoints", "create", "second")
    assert "digits/2 100 %" in cli("endpoints", "deploy", "second", "digits/2").out


def test_settings_are_set_changed_and_reset_when_asked(cli: Cli, digits: Endpoint) -> None:
    every = (
        "--concurrency", 4, "--queue", 16, "--cache-mb", 64, "--cache-ttl", 60, "--batching-max", 32,
        "--batching-budget-ms", 5.5, "--sticky-header", "x-customer",
    )  # fmt: skip
    full = {
        "sticky_header": "x-customer", "limits": {"concurrency": 4, "queue": 16}, "cache": {"mb": 64, "ttl_s": 60},
        "batching": {"mode": "auto", "max": 32, "budget_ms": 5.5},
    }  # fmt: skip
    assert "cache: 64 MB, each answer kept for 60 s" in cli("endpoints", "set", "digits", *every).out
    shown = cli("endpoints", "show", "digits").out
    assert "4 at once, 16 may wait" in shown and "auto, at most 32, at most 5.5 ms a run" in shown
    assert cli("endpoints", "set", "digits", "--queue", 0, "-o", "json").json["settings"]["limits"]["queue"] == 0
    off = ("--batching", "off", "--reset", "limits", "--reset", "sticky-header", "-o", "json")
    assert cli("endpoints", "set", "digits", *off).json["settings"] == {
        "cache": {"mb": 64, "ttl_s": 60}, "batching": {"mode": "off"},
    }  # fmt: skip
    cli("endpoints", "set", "digits", "--batching-max", 8)
    assert (
        "servers do by themselves" in cli("endpoints", "set", "digits", "--reset", "cache", "--reset", "batching").out
    )
    assert cli("endpoints", "create", "second", *every, "-o", "json").json["settings"] == full
    assert Endpoint.objects.get(name="second").cache_mb == 64


def test_settings_are_refused_with_their_exit_codes_when_wrong(cli: Cli, digits: Endpoint) -> None:
    change = ("endpoints", "set", "digits")
    assert "--cache-mb 64" in cli(*change, code=2).err
    assert "one of limits, cache" in cli(*change, "--reset", "everything", code=2).err
    assert "at the same time" in cli(*change, "--reset", "cache", "--cache-mb", 1, code=2).err
    assert "settings.cache.ttl_s" in cli(*change, "--cache-mb", 1, code=7).err
    assert "settings.cache.mb" in cli(*change, "--cache-mb", 10**6, "--cache-ttl", 1, code=7).err
    assert "settings.sticky_header" in cli("endpoints", "create", "new", "--sticky-header", "X Y", code=7).err
    cli(*change, "--cache-mb", 1, "--cache-ttl", 1, by="developer", code=4)
    cli("endpoints", "set", "nobody", "--queue", 1, code=5)
    assert digits.cache_mb is None and not Endpoint.objects.filter(name="new").exists()


def test_provider_and_upstream_are_chosen_when_an_artifact_is_placed(cli: Cli, digits: Endpoint) -> None:
    upstream = ("--upstream", "http://triton:8000", "--upstream-model", "digits", "--upstream-version", "2")
    told = {"url": "http://triton:8000", "model": "digits", "version": "2", "timeout_s": 10}
    made = cli("endpoints", "create", "far", "--artifact", "digits/1", *upstream, "-o", "json").json
    assert made["deployments"][0]["upstream"] == told
    assert "http://triton:8000 digits/2" in cli("endpoints", "show", "far").out
    cli("endpoints", "create", "near")
    placed = cli("endpoints", "deploy", "near", "digits/1", "--provider", "openvino", "-o", "json").json
    assert placed["deployments"][0]["provider"] == "openvino"
    cli("rollout", "start", "digits", "digits/2", *upstream, "--upstream-timeout", 3)
    assert Rollout.objects.get().candidate.upstream == {**told, "timeout_s": 3}
    assert "add --artifact" in cli("endpoints", "create", "new", "--provider", "cuda", code=2).err
    assert "--upstream-model NAME" in cli("endpoints", "deploy", "near", "digits/1", *upstream[:2], code=2).err
    assert "http://HOST:PORT" in cli("endpoints", "deploy", "near", "digits/1", *upstream[2:], code=2).err
    create = ("endpoints", "create", "new", "--artifact", "digits/1")
    cli(*create, "--provider", "tpu", code=7)
    metadata = cli(*create, "--upstream", "http://169.254.169.254", "--upstream-model", "x", code=7).err
    assert "link-local and metadata" in metadata


def test_weights_are_refused_when_the_endpoint_changed_meanwhile(
    cli: Cli, digits: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    from slipway.cli import endpoints

    real = endpoints.weights_of

    def slowly(*args: Any) -> dict[str, int]:
        Endpoint.objects.update(revision=99)
        return real(*args)

    monkeypatch.setattr(endpoints, "weights_of", slowly)
    assert "changed" in cli("endpoints", "weights", "digits", "v1=100", code=6).err


def test_rollouts_are_started_steered_and_returned_when_asked(cli: Cli, digits: Endpoint) -> None:
    steps = ("--step", "10:60:50", "--step", "50:60:0:900:gate", "--step", "100")
    started = cli("rollout", "start", "digits", "digits/2", *steps, "--max-error-share", "0.02").out
    row = Rollout.objects.get()
    assert f"digits/{row.pk} has begun" in started and row.guard["max_error_share"] == 0.02
    assert [(step["weight"], step["mode"], step["gate"]) for step in row.steps] == [
        (10, "canary", False),
        (50, "canary", True),
        (100, "full", False),
    ]
    assert "paused" in cli("rollout", "pause", f"digits/{row.pk}").out
    assert "progressing" in cli("rollout", "resume", "digits").out
    assert "not ready" in cli("rollout", "promote", "digits", code=6).err
    ready = {str(row.candidate_id): {"state": "ready", "sha256": row.candidate.artifact.sha256, "reason": ""}}
    from deployments import desired

    Server.objects.create(instance="host-1-1", generation=desired.generation() + 50, deployments=ready)
    assert "step 1 of 3 (10 %)" in cli("rollout", "promote", "digits").out
    assert "baking" in cli("rollout", "full", "digits", "--yes").out
    assert "Moved to 100 % by root." in cli("rollout", "show", "digits").out
    cli("rollout", "roll-back", "digits", code=2)
    assert "rolled-back" in cli("rollout", "roll-back", "digits", "--yes").out
    assert cli("rollout", "list", "--endpoint", "digits", "-o", "json").json["results"][0]["state"] == "rolled-back"
    cli("rollout", "abort", "digits", "--yes", code=6)
    assert "Rolled back by root." in cli("rollout", "watch", f"digits/{row.pk}", code=1).out
    for bad in ("ten", "10:1:1:1:1", "10:-1", ""):
        cli("rollout", "start", "digits", "digits/2", "--step", bad, code=2)
    cli("rollout", "start", "digits", "digits/2", "--step", "10", code=7)


def test_rollout_is_followed_to_its_promotion_when_waited_for(cli: Cli, digits: Endpoint, ticking: Ticking) -> None:
    def move(pause: int) -> None:
        row = Rollout.objects.get()
        row.decisions.create(action="step", text=f"decision {pause}")
        if pause == 2:
            Rollout.objects.update(state=RolloutState.PROMOTED, finished_at=timezone.now())

    ticking(move)
    out = cli("rollout", "start", "digits", "digits/2", "--wait").out
    assert [line.split()[-1] for line in out.splitlines() if "decision" in line] == ["0", "1", "2"]


def test_policies_fire_and_rotate_when_asked(cli: Cli, model: Model, ticking: Ticking) -> None:
    cli("policies", "create", "digits", "nightly", "--cron", "0 3 * * *", "--cooldown", 0)
    assert "digits/nightly" in cli("policies", "list").out
    secret = cli("policies", "secret", "digits/nightly").out.strip()
    assert secret.startswith("whsec_")
    assert cli("policies", "rotate", "digits/nightly", "--yes", "-o", "json").json["secret"] != secret
    assert "slipway jobs watch" in cli("policies", "fire", Policy.objects.get().pk).out
    ticking(lambda pause: end(Job.objects.order_by("-id")[0], State.SUCCEEDED))
    assert "succeeded" in cli("policies", "fire", "digits/nightly", "--wait").out
    cli("policies", "create", "digits", "bad", "--cron", "never", code=7)


def test_alerts_are_acknowledged_and_harmless_when_printed(cli: Cli, project: Any) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\u202eevil\x9b31m"
    alert = Alert.objects.create(project=project, key="k", title=f"high {evil} error [red]share[/red]", text="a\nb")
    shown = cli("alerts", "list")
    assert not re.search("[\x1b\x07\x9b\u202e]", shown.out + shown.err)
    assert "␛" in shown.out and "[red]share[/red]" in shown.out and "a b" in shown.out
    as_json = cli("alerts", "list", "--state", "firing", "-o", "json")
    assert not re.search("[\x1b\x07\x9b\u202e]", as_json.out)
    assert as_json.json["results"][0]["title"] == alert.title
    acknowledged = cli("alerts", "ack", alert.pk)
    assert "\x1b" not in acknowledged.out
    alert.refresh_from_db()
    assert alert.state == AlertState.ACKNOWLEDGED
    cli("alerts", "ack", alert.pk, code=6)


def test_tokens_are_made_bounded_and_revoked_when_asked(cli: Cli) -> None:
    text = cli("tokens", "create", "app", "--scope", "infer", "--days", 7, "--rate", 2.5).out.strip()
    assert text.startswith("slip_")
    row = Token.objects.get(name="app")
    assert (row.burst, row.revision) == (3, 1) and row.expires_at is not None
    assert "2.5/s, 3 at once" in cli("tokens", "list").out and text not in cli("tokens", "list", "-o", "json").out
    assert "Quota of app: 20/s, 40 at once" in cli("tokens", "quota", "app", "--rate", 20, "--burst", 40).out
    assert cli("tokens", "quota", row.pk, "--burst", 50, "-o", "json").json["rate"] == 20
    assert "none" in cli("tokens", "quota", "app", "--none").out
    cli("tokens", "quota", "app", code=2)
    cli("tokens", "quota", "app", "--none", "--rate", 1, code=2)
    assert "burst" in cli("tokens", "quota", "app", "--burst", 1, code=7).err
    cli("tokens", "quota", "app", "--rate", 1, by="developer", code=5)
    cli("tokens", "revoke", "app", code=2)
    assert "is revoked" in cli("tokens", "revoke", "app", "--yes").out
    assert not Token.objects.filter(name="app").exists()
