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
        described = plugin.Options.model_json_schema().get("properties", {})
        self.defaults = {name: each.get("default") for name, each in described.items()}
        # Where nothing is a value of its own, an empty field does not mean the default.
        self.may_be_nothing = {name for name, each in described.items() if {"type": "null"} in each.get("anyOf", [])}
        for name, each in described.items():
            self.fields[name] = field_of(each, label=_(name.replace("_", " ").capitalize()))

    @property
    def title(self) -> str:
        """What the plug-in is called, in the reader's language."""
        return _(self.plugin.label)

    @property
    def chosen(self) -> dict[str, Any]:
        return {
            name: value
            for name, value in self.cleaned_data.items()
            if value != self.defaults[name] and (value not in (None, "") or name in self.may_be_nothing)
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
        choices = [(each, word(str(each))) for each in kind["enum"]]
        return forms.TypedChoiceField(choices=choices, coerce=type(kind["enum"][0]), **common)
    if kind.get("type") == "boolean":
        return forms.BooleanField(**common)
    bounds = {"min_value": kind.get("minimum"), "max_value": kind.get("maximum")}
    if kind.get("type") == "integer":
        return forms.IntegerField(**bounds, **common)
    if kind.get("type") == "number":
        return forms.FloatField(**bounds, **common)
    if kind.get("type") == "array":
        return WordsField(**common | {"help_text": f"{common['help_text']} {_('Separated by commas.')}"})
    if kind.get("type") == "object":
        return SizesField(**common | {"help_text": f"{common['help_text']} {_('Name = size, separated by commas.')}"})
    return forms.CharField(max_length=kind.get("maxLength", 200), **common)


class WordsField(forms.CharField):
    """Some words, separated by commas."""

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        return [part.strip() for part in super().to_python(value).split(",") if part.strip()]


class SizesField(forms.CharField):
    """Whole numbers by their names, as `height = 224, width = 224`."""

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(f"{name} = {size}" for name, size in value.items()) if isinstance(value, dict) else value

    def to_python(self, value: Any) -> Any:
        found = {}
        for part in (part.strip() for part in super().to_python(value).split(",")):
            name, _equals, size = part.rpartition("=")
            if part and not (name.strip() and size.strip().isascii() and size.strip().isdigit()):
                raise forms.ValidationError(_("“%(part)s” is not a name = size.") % {"part": part[:60]})
            if part:
                found[name.strip()] = int(size[:20])
        return found
