"""Forms of the registry's pages. They parse; the services decide."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from engine.export import requirements
from engine.export.base import exporter
from engine.optimize.base import optimizers
from registry.environments import Way
from registry.models import Format, Task
from registry.option_forms import OptionsForm
from slipway.accounts import policy
from slipway.accounts.models import Project


def projects_for(user: Any, action: str) -> Any:
    """The projects in which a person may do something."""
    rows = policy.projects_of(user)
    allowed = [project.pk for project in rows if policy.allows(user, action, project)]
    return Project.objects.filter(pk__in=allowed)


class ModelForm(forms.Form):
    """A new model without versions."""

    project = forms.ModelChoiceField(Project.objects.none(), label=_("Project"), to_field_name="slug", empty_label=None)
    name = forms.CharField(label=_("Name"), max_length=128)
    task = forms.ChoiceField(label=_("Task"), choices=Task.choices)
    description = forms.CharField(
        label=_("Description"), required=False, widget=forms.Textarea(attrs={"rows": 3, "class": "prose"})
    )

    def __init__(self, user: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["project"].queryset = projects_for(user, policy.WRITE)  # type: ignore[attr-defined]


class UploadForm(forms.Form):
    """Where an uploaded file belongs. A module sends the file itself as a stream."""

    project = forms.ModelChoiceField(Project.objects.none(), label=_("Project"), to_field_name="slug", empty_label=None)
    model = forms.CharField(
        label=_("Model"),
        max_length=128,
        help_text=_("An existing name adds a version to that model, a new one makes the model."),
    )
    task = forms.ChoiceField(label=_("Task"), choices=Task.choices)

    def __init__(self, user: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["project"].queryset = projects_for(user, policy.WRITE)  # type: ignore[attr-defined]


class ModelChangeForm(forms.Form):
    """Task, description and tags of a model."""

    task = forms.ChoiceField(label=_("Task"), choices=Task.choices)
    description = forms.CharField(
        label=_("Description"), required=False, widget=forms.Textarea(attrs={"rows": 3, "class": "prose"})
    )
    tags = forms.CharField(label=_("Tags"), required=False, help_text=_("Separated by commas."))

    def clean_tags(self) -> list[str]:
        return list(dict.fromkeys(part.strip()[:60] for part in self.cleaned_data["tags"].split(",") if part.strip()))


class ExportForm(forms.Form):
    """Which formats to export to, of those that are possible, and the options of each."""

    exporters = forms.MultipleChoiceField(label=_("Formats"), widget=forms.CheckboxSelectMultiple)

    def __init__(self, ways: list[Way], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        able = [way for way in ways if not way.why_not]
        self.fields["exporters"].choices = [(way.exporter, way.label) for way in able]  # type: ignore[attr-defined]
        data = self.data if self.is_bound else None
        self.options = {way.exporter: OptionsForm(exporter(way.exporter), data) for way in able}

    def clean(self) -> dict[str, Any]:
        """Adds `options` of what was chosen; a wrong one is said beside its field too."""
        chosen = {name: self.options[name] for name in self.cleaned_data.get("exporters", [])}
        for form in chosen.values():
            if not form.is_valid():
                said = _("The options of %(format)s do not fit.") % {"format": form.title}
                self.add_error(None, said)
        self.cleaned_data["options"] = {name: form.chosen for name, form in chosen.items() if form.is_valid()}
        return self.cleaned_data


class PackagesForm(forms.Form):
    """A version's own list of packages; what is wrong with a line is said of every line at once."""

    requirements = forms.CharField(
        label=_("Packages"),
        required=False,
        max_length=requirements.MOST * (requirements.LONGEST + 2),
        widget=forms.Textarea(attrs={"rows": 10, "spellcheck": "false", "placeholder": "scikit-learn==1.7.2"}),
        help_text=_(
            "One a line, a name with its versions, as in requirements.txt. With an empty list, "
            "what was recorded where the version was trained counts again."
        ),
    )

    def clean_requirements(self) -> list[str]:
        lines: list[str] = self.cleaned_data["requirements"].splitlines()
        wrong = [
            gettext("Line %(number)d: %(reason)s")
            % {"number": fault.line, "reason": gettext(fault.reason) % {"text": fault.text}}
            for fault in requirements.faults(lines)
        ]
        if wrong:
            raise forms.ValidationError(wrong)
        return [line.strip() for line in lines if line.strip()]


class OptimizeForm(forms.Form):
    """Which ONNX artifact to make a variant of, how, and the options of each method."""

    artifact = forms.ChoiceField(label=_("Artifact"))
    optimizer = forms.ChoiceField(label=_("Method"))

    def __init__(self, artifacts: list[Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = [(str(row.pk), f"{row.title} {row.sha256[:12]}") for row in artifacts if row.format == Format.ONNX]
        self.fields["artifact"].choices = choices  # type: ignore[attr-defined]
        data = self.data if self.is_bound else None
        self.options = {name: OptionsForm(plugin, data) for name, plugin in optimizers().items()}
        self.fields["optimizer"].choices = [(name, form.title) for name, form in self.options.items()]  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        """Adds `options` of the method; a wrong one is said beside its field too."""
        form = self.options.get(self.cleaned_data.get("optimizer", ""))
        if form is not None and not form.is_valid():
            self.add_error(None, _("The options of %(format)s do not fit.") % {"format": form.title})
        self.cleaned_data["options"] = form.chosen if form is not None and form.is_valid() else {}
        return self.cleaned_data


class AliasForm(forms.Form):
    """A movable name for a version."""

    name = forms.CharField(label=_("Alias"), max_length=32, help_text=_("champion, challenger or a name of your own"))
