"""Forms of endpoints and rollouts. They parse; the services decide."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from deployments.models import Access, Endpoint
from registry.forms import projects_for
from registry.models import Artifact
from slipway.accounts import policy
from slipway.accounts.models import Project

STRATEGIES = {
    "careful": (_("Careful: 5, 25, 50, 100 %"), (5, 25, 50, 100)),
    "standard": (_("Standard: 10, 50, 100 %"), (10, 50, 100)),
    "quick": (_("Quick: 25, 100 %"), (25, 100)),
    "at-once": (_("At once: 100 %"), (100,)),
}


LONGEST_BODY = 4_000_000  # what one request of a page may hold, with some air


class ArtifactChoice(forms.ModelChoiceField):
    def label_from_instance(self, obj: Artifact) -> str:
        return f"{obj.version.model.name} {obj.version.number} · {obj.label} · {obj.sha256[:12]}"


class EndpointForm(forms.Form):
    """A new endpoint; with an artifact it answers as soon as the servers have loaded it."""

    project = forms.ModelChoiceField(Project.objects.none(), label=_("Project"), to_field_name="slug", empty_label=None)
    name = forms.CharField(
        label=_("Name"),
        max_length=63,
        help_text=_("Lower-case letters, digits, - and _. It becomes a part of the address."),
    )
    access = forms.ChoiceField(label=_("Who may call it"), choices=Access.choices)
    artifact = ArtifactChoice(Artifact.objects.none(), label=_("Serve"), required=False, empty_label=_("nothing yet"))

    def __init__(self, user: Any, artifacts: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["project"].queryset = projects_for(user, policy.DEPLOY)  # type: ignore[attr-defined]
        self.fields["artifact"].queryset = artifacts  # type: ignore[attr-defined]


class DeployForm(forms.Form):
    """What goes where, and how carefully."""

    endpoint = forms.ModelChoiceField(
        Endpoint.objects.none(), label=_("Endpoint"), to_field_name="name", empty_label=None
    )
    artifact = ArtifactChoice(Artifact.objects.none(), label=_("Artifact"), empty_label=None)
    strategy = forms.ChoiceField(
        label=_("Strategy"),
        choices=[(key, label) for key, (label, _weights) in STRATEGIES.items()],
        initial="standard",
        help_text=_("Used when the endpoint already answers; the first deployment takes all traffic."),
    )
    min_minutes = forms.FloatField(label=_("At least so many minutes a step"), min_value=0, max_value=10080, initial=1)
    min_requests = forms.IntegerField(
        label=_("At least so many requests a step"), min_value=0, max_value=10**9, initial=50
    )
    gate = forms.BooleanField(label=_("A person decides before each next step"), required=False)
    error_percent = forms.FloatField(
        label=_("Return at more than this error share, %"),
        min_value=0,
        max_value=99.9,
        initial=5,
        help_text=_("The guard: all traffic goes back at once."),
    )
    guard_requests = forms.IntegerField(
        label=_("The guard waits for so many requests"), min_value=1, max_value=10**6, initial=20
    )

    def __init__(self, endpoints: Any, artifacts: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["endpoint"].queryset = endpoints  # type: ignore[attr-defined]
        self.fields["artifact"].queryset = artifacts  # type: ignore[attr-defined]

    def plan(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """(steps, guard) as `rollout_start` takes them."""
        values = self.cleaned_data
        weights = STRATEGIES[values["strategy"]][1]
        seconds = values["min_minutes"] * 60
        steps = [
            {
                "mode": "full" if weight == 100 else "canary",
                "weight": weight,
                "min_seconds": seconds,
                "min_requests": values["min_requests"] if weight < 100 else 0,
                "max_seconds": max(3600.0, 10 * seconds),
                "gate": values["gate"] and weight < 100,
            }
            for weight in weights
        ]
        return steps, {"max_error_share": values["error_percent"] / 100, "min_requests": values["guard_requests"]}


class PlaygroundForm(forms.Form):
    """One V2 request."""

    body = forms.CharField(
        label=_("Request body"), max_length=LONGEST_BODY,
        widget=forms.Textarea(attrs={"rows": 10, "spellcheck": "false"}),
    )  # fmt: skip
    token = forms.CharField(
        label=_("API token"), required=False, max_length=200,
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
        help_text=_("This endpoint asks for a token. It is used for this request only."),
    )  # fmt: skip
