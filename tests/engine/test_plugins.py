"""Plug-ins: one class in one file, listed without running them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from engine import plugins
from engine.errors import EngineError
from engine.export import base
from engine.export.onnx_exporter import OnnxExporter

GOOD = """
from pydantic import BaseModel
class Thing:
    name = "{name}"
    label = "Thing"
    class Options(BaseModel):
        size: int = 1
    def work(self): ...
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    folder = tmp_path / "some_plugins"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.startswith("some_plugins")]:
        del sys.modules[name]


def test_plugins_are_found_when_each_has_a_file(package: Path) -> None:
    (package / "b.py").write_text(GOOD.format(name="b"))
    (package / "a.py").write_text(GOOD.format(name="a"))
    assert list(plugins.discover("some_plugins", "none", ["work"])) == ["a", "b"]


def test_error_names_both_when_a_name_is_taken(package: Path) -> None:
    (package / "one.py").write_text(GOOD.format(name="same"))
    (package / "two.py").write_text(GOOD.format(name="same"))
    with pytest.raises(plugins.PluginError, match=r"one\.Thing and some_plugins\.two\.Thing"):
        plugins.discover("some_plugins", "none", ["work"])


def test_error_says_what_is_missing_when_a_method_is_not_there(package: Path) -> None:
    (package / "one.py").write_text(GOOD.format(name="x"))
    with pytest.raises(plugins.PluginError, match="no method `fly`"):
        plugins.discover("some_plugins", "none", ["fly"])


def test_options_name_the_field_when_wrong() -> None:
    assert plugins.options_of(OnnxExporter(), {"opset": 17}).opset == 17
    with pytest.raises(EngineError) as caught:
        plugins.options_of(OnnxExporter(), {"opset": "many"})
    assert caught.value.field == "options.opset"


def test_error_names_the_class_when_an_exporter_breaks_its_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lookalike:
        name, label, Options = "x", "X", OnnxExporter.Options

    monkeypatch.setattr(plugins, "discover", lambda package, group, methods: {"x": Lookalike()})
    with pytest.raises(plugins.PluginError, match=r"Lookalike is no `engine\.export\.base\.Exporter`"):
        base.exporters.__wrapped__()
