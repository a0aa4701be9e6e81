"""Forms made from the pydantic `Options` of plug-ins: one field for each option, judged by the plug-in itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django import forms
from django.utils.translation import gettext as _

from engine.errors import EngineError
from engine.plugins import options_of


class OptionsForm(forms.Form):
    """The options of one plug-in; `chosen` are those that differ from the default.

    plugin: anything with `name` and `Options`. Its name is the prefix of the fields."""

    def __init__(self, plugin: Any, data: Any = None) -> None:
        super().__init__(data, prefix=plugin.name)
        self.plugin = plugin
        schema = plugin.Options.model_json_schema()
        self.defaults = {name: each.get("default") for name, each in schema.get("properties", {}).items()}
        for name, each in schema.get("properties", {}).items():
            self.fields[name] = field_of(each, label=_(name.replace("_", " ").capitalize()))

    @property
    def chosen(self) -> dict[str, Any]:
        return {
            name: value
            for name, value in self.cleaned_data.items()
            if value not in (None, "") and value != self.defaults[name]
        }

    def clean(self) -> dict[str, Any]:
        if not self.errors:
            try:
                options_of(self.plugin, self.chosen)
            except EngineError as error:
                name = error.field.rpartition(".")[2]
                self.add_error(name if name in self.fields else None, error.message.removeprefix(f"{name}: "))
        return self.cleaned_data


def field_of(
    described: dict[str, Any], *, label: str, required: bool = False, word: Callable[[str], str] = str
) -> forms.Field:
    """A field for one property of a JSON Schema, with its limits and default; what has no field of its own is a text
    that the model behind the schema judges. word: what a choice is called."""
    # `int | None` is anyOf: an integer, or nothing.
    kinds = [each for each in described.get("anyOf", [described]) if each.get("type") != "null"]
    kind = kinds[0]
    common = {
        "label": label,
        "help_text": _(described["description"]) if described.get("description") else "",
        "initial": described.get("default"),
        "required": required,
    }
    if "enum" in kind:
        return forms.ChoiceField(choices=[(each, word(each)) for each in kind["enum"]], **common)
    if kind.get("type") == "boolean":
        return forms.BooleanField(**common)
    bounds = {"min_value": kind.get("minimum"), "max_value": kind.get("maximum")}
    if kind.get("type") == "integer":
        return forms.IntegerField(**bounds, **common)
    if kind.get("type") == "number":
        return forms.FloatField(**bounds, **common)
    return forms.CharField(max_length=kind.get("maxLength", 200), **common)
