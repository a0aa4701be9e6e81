"""Simplified Chinese is complete, compiled, and keeps every placeholder."""

from __future__ import annotations

import gettext
import re
import subprocess
from pathlib import Path

import pytest

from engine.export import requirements
from engine.export.base import exporters
from engine.export.sources.base import sources
from engine.optimize.base import optimizers
from registry import packages

PO = Path(__file__).resolve().parents[2] / "locale/zh_Hans/LC_MESSAGES/django.po"
PLACEHOLDER = re.compile(r"%\(\w+\)[sd]")


def entries() -> dict[str, str]:
    """{msgid: msgstr} as compiled; msgfmt drops what is fuzzy or not translated."""
    with PO.with_suffix(".mo").open("rb") as file:
        catalog = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
    return {key if isinstance(key, str) else key[0]: value for key, value in catalog.items() if key}


def test_nothing_is_missing_or_fuzzy() -> None:
    text = PO.read_text()
    assert "#, fuzzy" not in text
    assert not re.search(r'msgstr(\[0\])? ""\n(?!")', text.split("\n\n", 1)[1])


def test_placeholders_are_kept() -> None:
    for source, target in entries().items():
        source = source.split("\x04")[-1]
        if "more steps" not in source and "One more" not in source:  # a plural may say its number as a word
            assert set(PLACEHOLDER.findall(source)) == set(PLACEHOLDER.findall(target)), source


def test_compiled_file_is_current(tmp_path: Path) -> None:
    fresh = tmp_path / "django.mo"
    try:
        subprocess.run(["msgfmt", "-o", str(fresh), str(PO)], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("gettext is not installed here")
    with fresh.open("rb") as file:
        catalog = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]
    assert {key if isinstance(key, str) else key[0]: value for key, value in catalog.items() if key} == entries()


def test_every_text_of_the_templates_is_in_the_catalogue() -> None:
    known = {key.split("\x04")[-1] for key in entries()}
    root = PO.parents[3] / "templates"
    literal = re.compile(r"""(?:\{% translate |_\()(?:"([^"]*)"|'([^']*)')""")
    for file in root.rglob("*.html"):
        for match in literal.finditer(file.read_text()):
            text = (match[1] or match[2]).replace("%", "%%")
            assert text in known, (file.name, text)


def test_every_option_of_an_exporter_or_optimizer_is_in_the_catalogue() -> None:
    known = entries()
    assert {plugin.label for plugin in optimizers().values()} <= known.keys()
    for plugin in [*exporters().values(), *optimizers().values()]:
        for name, each in plugin.Options.model_fields.items():
            assert name.replace("_", " ").capitalize() in known, name
            assert each.description in known, each.description


def test_every_reason_against_a_line_of_packages_is_in_the_catalogue() -> None:
    assert set(requirements.REASONS.values()) <= entries().keys()


def test_every_reason_against_a_format_is_in_the_catalogue() -> None:
    frameworks = [*sources(), "paddle"]
    reasons = [plugin.why_not(framework) for plugin in exporters().values() for framework in frameworks]
    assert {reason.text for reason in reasons if reason is not None} <= entries().keys()
    assert {requirements.PLACE, packages.OWN_LIST} <= entries().keys()


def test_stored_refusal_of_a_package_is_said_in_chinese() -> None:
    known = entries()
    for reason in requirements.REASONS.values():
        told = f"requirements.txt, line 2: {reason % {'text': '--no-index'}}"
        assert str(requirements.sentence_of(told)) == told
        said = requirements.sentence_of(told).said(lambda text: known.get(text, text))
        assert said.startswith("requirements.txt 第 2 行：") and "--no-index" in said and "only named" not in said
    assert str(requirements.sentence_of("100 % odd")) == "100 % odd"
