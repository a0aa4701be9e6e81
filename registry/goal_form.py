"""The form of a search's goal, made from the fields of `Goal`, with the rows it is to work with."""

from __future__ import annotations

import types
from typing import Any, Literal, Union, get_args, get_origin

from django import forms
from django.utils.translation import gettext as translate
from django.utils.translation import gettext_lazy as _
from pydantic.fields import FieldInfo

from engine.optimize.lab.goal import Goal
from registry.models import Artifact, Dataset, DatasetRole, Format
from registry.search_selectors import teaching_sets

USUAL = ("artifact", "dataset", "max_loss", "prefer", "minutes")
BUDGETS = ("latency_ms", "size_mb", "memory_mb")


class GoalForm(forms.Form):
    """Which artifact, which rows, and what is promised."""

    artifact = forms.ChoiceField(label=_("Artifact"))
    dataset = forms.ModelChoiceField(
        Dataset.objects.none(), label=_("Judged on"), empty_label=None,
        help_text=_("Evaluation rows with the truth. They never teach."),
    )  # fmt: skip
    calibration = forms.ModelChoiceField(
        Dataset.objects.none(), label=_("Calibrated with"), required=False,
        empty_label=_("30 % of the evaluation rows"),
        help_text=_("Rows that show what inputs look like. What is taken from the evaluation set is not judged on."),
    )  # fmt: skip
    training = forms.ModelChoiceField(
        Dataset.objects.none(), label=_("Trained with"), required=False, empty_label=_("nothing"),
        help_text=_("With training rows pruned models can be tuned, and far more can be cut away."),
    )  # fmt: skip

    def __init__(self, user: Any, artifacts: list[Artifact], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        onnx = [row for row in artifacts if row.format == Format.ONNX]
        self.fields["artifact"].choices = [(str(row.pk), f"{row.label} {row.sha256[:12]}") for row in onnx]  # type: ignore[attr-defined]
        rows = teaching_sets(user, onnx[0]) if onnx else Dataset.objects.none()
        self.fields["dataset"].queryset = rows.filter(role=DatasetRole.EVALUATION)  # type: ignore[attr-defined]
        for name in ("calibration", "training"):
            self.fields[name].queryset = rows  # type: ignore[attr-defined]
        for name, info in Goal.model_fields.items():
            self.fields[name] = field_of(info)

    def usual(self) -> list[forms.BoundField]:
        return [self[name] for name in USUAL]

    def budgets(self) -> list[forms.BoundField]:
        return [self[name] for name in BUDGETS]

    def more(self) -> list[forms.BoundField]:
        return [self[name] for name in self.fields if name not in (*USUAL, *BUDGETS)]

    @property
    def more_open(self) -> bool:
        """Something that is wrong is not folded away."""
        return any(field.errors for field in self.more())

    def asked(self) -> dict[str, Any]:
        """What `search_request` takes, but for who asks and the artifact."""
        found = self.cleaned_data
        goal = {name: found[name] for name in Goal.model_fields if found[name] not in (None, "")}
        return {"goal": goal, **{name: found[name] for name in ("dataset", "calibration", "training")}}


def field_of(info: FieldInfo) -> forms.Field:
    """A form field with the limits, the words and the default of a pydantic field."""
    kind, optional = _kind(info.annotation)
    told: dict[str, Any] = {
        "label": translate(info.title or ""),
        "help_text": translate(info.description or ""),
        "required": not optional and kind is not bool,
        "initial": info.default,
    }
    if get_origin(kind) is Literal:
        return forms.ChoiceField(choices=[(word, translate(word)) for word in get_args(kind)], **told)
    if kind is bool:
        return forms.BooleanField(**told)
    limits = {
        name: value
        for rule in info.metadata
        for name, value in (("min_value", getattr(rule, "ge", None)), ("max_value", getattr(rule, "le", None)))
        if value is not None
    }
    number = forms.IntegerField if kind is int else forms.FloatField
    return number(**told, **limits)


def _kind(annotation: Any) -> tuple[Any, bool]:
    """(the type, whether it may be left out)."""
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [part for part in get_args(annotation) if part is not type(None)]
        return parts[0], True
    return annotation, False
