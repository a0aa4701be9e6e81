"""The form of a search's goal, made from the fields of `Goal`, with the rows it is to work with."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext as translate
from django.utils.translation import gettext_lazy as _

from engine.optimize.lab.goal import Goal
from registry.models import Artifact, Dataset, DatasetRole, Format
from registry.option_forms import field_of
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
        self.fields["artifact"].choices = [(str(row.pk), f"{row.title} {row.sha256[:12]}") for row in onnx]  # type: ignore[attr-defined]
        rows = teaching_sets(user, onnx[0]) if onnx else Dataset.objects.none()
        self.fields["dataset"].queryset = rows.filter(role=DatasetRole.EVALUATION)  # type: ignore[attr-defined]
        for name in ("calibration", "training"):
            self.fields[name].queryset = rows  # type: ignore[attr-defined]
        self.fields.update(goal_fields())

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


def goal_fields() -> dict[str, forms.Field]:
    """A field for each part of a goal. What has a default other than nothing must be filled in, but for switches and
    lists."""
    return {
        name: field_of(
            described,
            label=translate(described["title"]),
            required="anyOf" not in described and described["type"] not in ("boolean", "array"),
            word=translate,
        )
        for name, described in Goal.model_json_schema()["properties"].items()
    }
