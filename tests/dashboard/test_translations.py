"""Simplified Chinese is complete, compiled, and keeps every placeholder."""

from __future__ import annotations

import ast
import gettext
import re
import subprocess
from pathlib import Path

import pytest

from engine.export import requirements
from engine.export.base import exporters
from engine.export.sources.base import sources
from engine.optimize import lab
from engine.optimize.base import optimizers
from engine.optimize.lab.goal import Goal
from engine.optimize.lab.plan import next_recipes
from engine.optimize.lab.trial import Survey, Trial
from engine.sentence import Sentence
from registry import packages
from tests.engine.test_lab import NET, world

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


def test_every_sentence_of_the_lab_is_in_the_catalogue() -> None:
    known, said = entries(), set()
    for file in Path(lab.__path__[0]).glob("*.py"):
        for call in (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)):
            words = [word for word in call.args if isinstance(word, ast.Constant) and isinstance(word.value, str)]
            if words and any(isinstance(name, ast.Name) and name.id == "say" for name in (call.func, *call.args)):
                said.add(words[0].value)
    assert len(said) > 20 and said <= known.keys(), said - known.keys()


@pytest.mark.parametrize(
    "survey",
    [NET, NET.model_copy(update={"training": False}), NET.model_copy(update={"blocks": 4})],
    ids=["tuned", "refitted", "residual"],
)
@pytest.mark.parametrize("bears", [0.0, 0.4])
def test_every_idea_of_the_plan_is_in_the_catalogue(survey: Survey, bears: float) -> None:
    trials: list[Trial] = []
    while ideas := next_recipes(Goal(trials=80), survey, trials, 1000):
        for idea in ideas:
            assert texts(idea.why) <= entries().keys()
        # Where nothing may go, quantizing with ranges loses too much as well: then there are other ideas.
        trials += [world(one.recipe, bears) if bears else spoiled(world(one.recipe, 0)) for one in ideas]


def spoiled(trial: Trial) -> Trial:
    return trial.model_copy(update={"state": "refused", "measured": None, "judged": None})


def texts(sentence: Sentence) -> set[str]:
    parts = [part for part in sentence.figures.values() if isinstance(part, Sentence)]
    return {sentence.text}.union(*(texts(part) for part in parts))


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
