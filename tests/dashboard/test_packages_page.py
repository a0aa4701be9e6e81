"""A version's own packages, and the environments prepared for it, by page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.test import Client

from registry.models import Version
from slipway.jobs.models import Job

Browser = Callable[[str], Client]


def test_own_packages_are_kept_or_every_wrong_line_is_said_beside_the_field(
    browser_as: Browser, world: dict[str, Any]
) -> None:
    browser, version = browser_as("developer"), world["versions"][4]
    address = f"/versions/{version.pk}/packages/"
    wrong = "numpy>=2\n\n-r other.txt\n# why\nx @ file:///x\nscikit learn"
    refused = browser.post(address, {"requirements": wrong})
    page = refused.content.decode()
    assert refused.status_code == 422 and page.count('class="wrong"') == 3
    assert "Line 3: “-r other.txt” is an option" in page and "Line 5: “x @ file:///x” names an address" in page
    assert "Line 6: “scikit learn” is not a package with versions" in page and "numpy&gt;=2" in page
    chinese = browser.post(address, {"requirements": wrong}, headers={"accept-language": "zh-hans"}).content.decode()
    assert "第 3 行：“-r other.txt”是安装程序的选项" in chinese
    assert Version.objects.get(pk=version.pk).packages == []
    saved = browser.post(address, {"requirements": "numpy>=2\r\n scikit-learn==1.7.2 \r\n"}, follow=True)
    assert "own list of 2 packages counts" in saved.content.decode()
    assert Version.objects.get(pk=version.pk).packages == ["numpy>=2", "scikit-learn==1.7.2"]
    assert "scikit-learn==1.7.2" in browser.get(address).content.decode()
    browser.post(address, {"requirements": ""})
    assert Version.objects.get(pk=version.pk).packages == []
    denied = browser_as("viewer").post(address, {"requirements": "numpy"})
    assert denied.status_code == 422 and "does not allow" in denied.content.decode()


def test_environment_is_prepared_by_a_button_when_a_format_needs_one(
    browser_as: Browser, world: dict[str, Any]
) -> None:
    browser, version = browser_as("developer"), world["versions"][4]
    browser.post(f"/versions/{version.pk}/packages/", {"requirements": "scikit-learn==1.7.2"})
    assert 'name="name" value="base"' in browser.get(f"/versions/{version.pk}/export/").content.decode()
    made = browser.post(f"/versions/{version.pk}/prepare", {"name": "base"})
    job = Job.objects.get(kind="prepare")
    assert made.status_code == 302 and made.url == f"/jobs/{job.pk}/"
    assert 'form="prepare"' not in browser_as("viewer").get(f"/versions/{version.pk}/export/").content.decode()
