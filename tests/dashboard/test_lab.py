"""The lab page in every state, its filters, and the form of a goal."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.utils import translation

from engine.optimize.base import optimizers
from engine.optimize.lab.goal import Goal
from registry.goal_form import goal_fields
from registry.search_models import Search, SearchTrial
from slipway.jobs.models import Job

Browser = Callable[[str], Client]


def page(browser: Client, search: Search, query: str = "") -> str:
    answer = browser.get(f"/searches/{search.pk}/{query}")
    assert answer.status_code == 200
    return str(answer.content.decode())


def test_page_recommends_with_reasons_and_a_way_to_deploy_when_the_search_is_done(
    browser_as: Browser, world: dict[str, Any]
) -> None:
    search = world["searches"]["done"]
    text = page(browser_as("operator"), search)
    best = search.trials.get(key=search.found.recommended)
    assert 'data-testid="recommended"' in text and best.label in text and "times the speed" in text
    assert f"?version={search.artifact.version_id}&amp;artifact={best.artifact_id}" in text
    assert "slower than its parent" in text and "faster than its parent" in text and "It loses 4.26 points" in text
    assert "data-live" not in text.split('id="page"')[1].split(">")[0]
    assert text.count('class="point ') == search.trials.filter(state="measured").count() == 9
    assert text.count('data-testid="confusion"') == 2 and 'data-testid="sensitivity"' in text
    assert "378 of its rows; 162 others calibrate (seed 0)" in text
    bold = search.trials.get(recipe__steps__0__options__amount=0.375)
    assert "amount = 0.375" in page(browser_as("operator"), search, f"?trial={bold.pk}")


def test_groups_that_the_goal_guards_are_shown_with_those_that_lost_too_much(
    browser_as: Browser, world: dict[str, Any]
) -> None:
    search = world["searches"]["done"]
    refused = search.trials.get(state="refused")
    text = page(browser_as("viewer"), search, f"?trial={refused.pk}")
    assert "guarded by scanner" in text and "By scanner" in text and "By class" in text
    _, desk, phone, van = re.split("desk|phone|van", text.split("By scanner")[1].split("</table>")[0])
    assert "loses too much" in phone and "8.52" in phone and "loses too much" not in desk + van
    assert "too few rows to guard" in van


def test_new_endpoint_takes_the_variant_when_the_way_to_deploy_it_goes_by_one(
    browser_as: Browser, world: dict[str, Any]
) -> None:
    search = world["searches"]["done"]
    best = search.trials.get(key=search.found.recommended).artifact
    assert best != search.artifact.version.artifacts.order_by("-pk").first()  # what a page takes unless told
    text = browser_as("operator").get(f"/deploy/?version={best.version_id}&artifact={best.pk}").content.decode()
    assert f"/endpoints/new/?project=vision&amp;artifact={best.pk}" in text


def test_page_is_live_and_can_be_cancelled_when_the_search_runs(browser_as: Browser, world: dict[str, Any]) -> None:
    search = world["searches"]["running"]
    text = page(browser_as("developer"), search)
    assert f'data-live="search:{search.pk} job:{search.job_id}"' in text and "Best so far" in text
    assert 'data-testid="cancel"' in text and "Searching" in text and "deploy-best" not in text
    assert "Ends the search and the trials under way" in text
    assert "Needs the role developer" in page(browser_as("viewer"), search)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("queued", "Waits for a worker."),
        ("looking", "Nothing tried yet"),
        ("failed", "The data set has no target column."),
        ("cancelled", "Cancelled by root."),
        ("unmet", "Nothing met the goal"),
        ("same", "Keep the model as it is"),
    ],
)
def test_page_says_what_is_the_matter_when_there_is_no_recommendation(
    name: str, words: str, browser_as: Browser, world: dict[str, Any]
) -> None:
    text = page(browser_as("operator"), world["searches"][name])
    assert words in text
    assert 'data-testid="deploy-best"' not in text or name == "cancelled"


def test_smaller_one_is_offered_when_speed_was_asked_for_and_nothing_is_faster(
    browser_as: Browser, world: dict[str, Any]
) -> None:
    search, browser = world["searches"]["offer"], browser_as("viewer")
    text = page(browser, search)
    offered = browser.get(f"/api/v1/searches/{search.pk}").json()["offered"]
    assert "Keep the model as it is" in text and "50.1 % of the size at the same speed" in text
    assert offered["label"].startswith("Half") and f"artifact={offered['artifact']}" in text.split("offered")[1]
    assert 'data-testid="deploy-best"' not in text


def test_nearest_points_and_what_to_relax_are_shown_when_nothing_met_the_goal(
    browser_as: Browser, world: dict[str, Any]
) -> None:
    text = page(browser_as("viewer"), world["searches"]["unmet"])
    assert "would do with" in text and "a size of" in text and "over the size budget" in text


def test_table_follows_the_address_when_it_names_state_order_and_trial(
    browser_as: Browser, world: dict[str, Any]
) -> None:
    search, browser = world["searches"]["done"], browser_as("viewer")

    def rows(query: str) -> list[int]:
        return [int(pk) for pk in re.findall(r'data-row="trial-(\d+)"', page(browser, search, query))]

    refused = search.trials.get(state="refused")
    assert rows("?state=refused") == [refused.pk]
    sizes = [search.trials.get(pk=pk).size or 1e12 for pk in rows("?sort=size")]
    assert len(sizes) == 11 and sizes == sorted(sizes)
    assert "least active, the rest refitted, 50 % of the channels" in page(browser, search, f"?trial={refused.pk}")
    assert page(browser, search, "?trial=x&state=nonsense&sort=%00&before=9")


def test_search_starts_with_the_goal_when_the_form_is_sent(browser_as: Browser, world: dict[str, Any]) -> None:
    version = world["versions"][4]
    artifact = version.artifacts.filter(format="onnx").order_by("id").first()
    browser, address = browser_as("developer"), f"/versions/{version.pk}/search/"
    text = browser.get(address).content.decode()
    assert all(info.title in text for info in Goal.model_fields.values())
    rows = world["searches"]["done"].dataset_id
    sent = {"artifact": artifact.pk, "dataset": rows, "max_loss": "0.5", "prefer": "size", "minutes": "3", "threads": 1}
    sent |= {"batch": 1, "trials": 5, "seed": 0}
    assert browser.post(address, {**sent, "max_loss": "-1"}).status_code == 422
    answer = browser.post(address, {**sent, "calibration": rows})
    assert answer.status_code == 422 and "may not teach" in answer.content.decode()
    answer = browser.post(address, {**sent, "slices": "site, target"})
    assert answer.status_code == 422 and answer.context["form"].errors.keys() == {"slices"}
    before = Search.objects.count()
    answer = browser.post(address, sent)
    search = Search.objects.order_by("-pk")[0]
    assert answer.headers["Location"] == f"/searches/{search.pk}/" and Search.objects.count() == before + 1
    assert (search.asked.max_loss, search.asked.prefer, search.asked.trials) == (0.5, "size", 5)
    assert browser_as("viewer").post(address, sent).status_code == 422
    assert f"/searches/{search.pk}/" in browser.get(f"/versions/{version.pk}/variants/").content.decode()


def test_every_word_of_the_goal_is_translated() -> None:
    with translation.override("zh-hans"):
        fields = goal_fields()
        for name, info in Goal.model_fields.items():
            field = fields[name]
            assert str(field.label) != info.title and str(field.help_text) != info.description, name
            assert all(str(label) != word for word, label in getattr(field, "choices", [])), name


def test_everything_is_said_in_the_readers_language(browser_as: Browser, world: dict[str, Any]) -> None:
    searches, browser = world["searches"], browser_as("viewer")
    browser.cookies["django_language"] = "zh-hans"
    done = page(browser, searches["done"])
    variants = browser.get(f"/versions/{searches['done'].artifact.version_id}/variants/").content.decode()
    assert "静态 int8 量化" in variants and "Static int8" not in variants
    assert "按激活剪除通道，然后静态 int8 量化 的速度将是原来的 10.75 倍" in done
    assert "损失 4.26 个百分点（允许损失 1）" in done
    assert "延迟" in page(browser, searches["unmet"]) and "比现有模型更快" in page(browser, searches["same"])
    assert "最不活跃，其余重新拟合，50 % 的通道" in done and "4 位权重" in done
    english = re.compile(
        r"Prune channels|least active|weights in|int8 quantization|times the|It loses|of the size|would do with"
        r"|Nothing that|If its size|fewer operators|int8 with"
    )
    for name in ("done", "unmet", "same", "offer", "running", "cancelled"):
        assert not english.findall(page(browser, searches[name])), name


def test_idea_of_a_trial_is_a_text_in_the_api_and_on_the_page_when_it_was_stored_before(
    browser_as: Browser, world: dict[str, Any]
) -> None:
    search, browser = world["searches"]["done"], browser_as("viewer")
    old = search.trials.earliest("pk")
    SearchTrial.objects.filter(pk=old.pk).update(why="smallest weights, 50% of the channels")
    ideas = [trial["why"] for trial in browser.get(f"/api/v1/searches/{search.pk}/trials").json()]
    assert ideas[0] == "smallest weights, 50% of the channels"
    assert ideas[-1] == "least active, the rest refitted, 50 % of the channels"
    assert "smallest weights, 50% of the channels" in page(browser, search)


def test_optimize_takes_the_options_of_its_method_when_made_by_hand(browser_as: Browser, world: dict[str, Any]) -> None:
    browser, version = browser_as("developer"), world["versions"][4]
    address = f"/versions/{version.pk}/optimize/"
    text = browser.get(address).content.decode()
    assert all(f'data-testid="options-{name}"' in text for name, plugin in optimizers().items() if fields_of(plugin))
    artifact = version.artifacts.filter(format="onnx").order_by("id")[0].pk
    asked = {"artifact": artifact, "optimizer": "static-quantization", "static-quantization-rows": "0"}
    refused = browser.post(address, asked)
    text = refused.content.decode()
    assert refused.status_code == 422 and "The options of Static int8 quantization do not fit." in text
    field = text[text.index('name="static-quantization-rows"') :]
    assert "greater than or equal to 1" in field[: field.index("</div>\n  \n</div>")]
    assert re.search(r'data-testid="options-static-quantization"[^>]*\bopen>', text)
    for method, given, options in (
        ("static-quantization", {"rows": "64", "types": "U8U8", "excluded": "fc1, fc2", "per_channel": "on"},
         {"rows": 64, "types": "U8U8", "excluded": ["fc1", "fc2"], "per_channel": True}),
        ("codebook", {"entries": "32", "groups": "1"}, {"entries": 32}),
        ("fix-shapes", {"batch": "", "dimensions": "height = 224, width=96"},
         {"batch": None, "dimensions": {"height": 224, "width": 96}}),
        ("prune-channels", {"amount": "0.3", "exclude": ""}, {"compensate": False}),
    ):  # fmt: skip
        sent = {
            "artifact": artifact,
            "optimizer": method,
            **{f"{method}-{name}": value for name, value in given.items()},
        }
        answer = browser.post(address, sent)
        job = Job.objects.order_by("-id")[0]
        assert answer.headers["Location"] == f"/jobs/{job.pk}/" and job.params["options"] == options, method
    wrong = {"artifact": artifact, "optimizer": "fix-shapes", "fix-shapes-dimensions": "height"}
    assert "“height” is not a name = size." in browser.post(address, wrong).content.decode()


def fields_of(plugin: Any) -> Any:
    return plugin.Options.model_fields
