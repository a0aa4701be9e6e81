"""Forms of endpoints and rollouts. They parse; the services decide."""

from __future__ import annotations

from typing import Any

from django import forms
from django.db.models import QuerySet
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from pydantic import ValidationError

from deployments.models import MOST_TIMEOUT_S, Access, Endpoint, Provider
from deployments.tuning import runtime_of
from registry.forms import projects_for
from registry.models import Artifact, Format
from slipway.accounts import policy
from slipway.accounts.models import Project

STRATEGIES = {
    "careful": (_("Careful: 5, 25, 50, 100 %"), (5, 25, 50, 100)),
    "standard": (_("Standard: 10, 50, 100 %"), (10, 50, 100)),
    "quick": (_("Quick: 25, 100 %"), (25, 100)),
    "at-once": (_("At once: 100 %"), (100,)),
}


LONGEST_BODY = 4_000_000  # what one request of a page may hold, with some air


BY_JVM = _("PMML is answered by a JVM scorer, an optional process of its own with libraries under the AGPL.")


class ArtifactChoice(forms.ModelChoiceField):
    def label_from_instance(self, obj: Artifact) -> str:
        return f"{obj.version.model.name} {obj.version.number} · {obj.title} · {obj.sha256[:12]}"

    def offer(self, rows: QuerySet[Artifact]) -> None:
        """Sets the choices; where PMML is among them the help says what that needs."""
        self.queryset = rows
        if rows.filter(format=Format.PMML).exists():
            self.help_text = BY_JVM


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
        self.fields["artifact"].offer(artifacts)  # type: ignore[attr-defined]


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

    provider = forms.ChoiceField(
        label=_("Runs on"), choices=[("", _("As until now")), *Provider.choices], required=False,
        help_text=_("The servers need the hardware and its libraries; one without them says so and takes no traffic."),
    )  # fmt: skip
    upstream_url = forms.CharField(
        label=_("Let another server answer"), max_length=300, required=False,
        widget=forms.TextInput(attrs={"placeholder": "http://host:port", "inputmode": "url"}),
        help_text=_("The address of a server that speaks the same protocol (V2). Empty: our servers run the artifact."),
    )  # fmt: skip
    upstream_model = forms.CharField(label=_("Its name of the model"), max_length=200, required=False)
    upstream_version = forms.CharField(
        label=_("Its version of the model"), max_length=200, required=False, help_text=_("Empty: the one it chooses.")
    )
    upstream_timeout_s = forms.FloatField(
        label=_("Give it up after, seconds"), min_value=0.01, max_value=MOST_TIMEOUT_S, required=False,
        help_text=_("Empty: 10."),
    )  # fmt: skip

    advanced = ("provider", "upstream_url", "upstream_model", "upstream_version", "upstream_timeout_s")

    def usual_fields(self) -> list[forms.BoundField]:
        return [field for field in self.visible_fields() if field.name not in self.advanced]

    def advanced_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in self.advanced]

    def advanced_open(self) -> bool:
        """Whether something of it is filled in or wrong."""
        return any(field.errors or field.value() for field in self.advanced_fields())

    def clean(self) -> dict[str, Any]:
        """What the service would say of provider and upstream, at the fields."""
        found: dict[str, Any] = super().clean() or {}
        if not found.get("upstream_url") and "upstream_url" not in self.errors:
            for name in self.advanced[2:]:
                if found.get(name):
                    self.add_error("upstream_url", _("Say where the other server is, or leave its other fields empty."))
                    break
            return found
        if not self.errors:
            try:
                runtime_of(**self.runtime())
            except ValidationError as error:
                for entry in error.errors():
                    name = "_".join(str(part) for part in entry["loc"]) or "provider"
                    own = entry["type"] in ("upstream_url", "provider")
                    plain = _("Letters, digits, dots, - and _; it begins with a letter or digit.")
                    self.add_error(name if name in self.fields else "upstream_url", entry["msg"] if own else plain)
        return found

    def runtime(self) -> dict[str, Any]:
        """{provider, upstream} as the services take them."""
        values = self.cleaned_data
        upstream = None
        if values.get("upstream_url"):
            upstream = {
                "url": values["upstream_url"], "model": values["upstream_model"],
                "version": values["upstream_version"] or None, "timeout_s": values["upstream_timeout_s"] or 10,
            }  # fmt: skip
        return {"provider": values.get("provider") or None, "upstream": upstream}

    def runtime_told(self) -> list[str]:
        """Sentences on what will answer, where it was chosen."""
        chosen = self.runtime()
        if chosen["upstream"]:
            return [gettext("The server at %(url)s answers.") % {"url": chosen["upstream"]["url"]}]
        if chosen["provider"]:
            return [gettext("It runs on %(name)s.") % {"name": Provider(chosen["provider"]).label}]
        return [str(BY_JVM)] if self.cleaned_data["artifact"].format == Format.PMML else []

    def __init__(self, endpoints: Any, artifacts: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["endpoint"].queryset = endpoints  # type: ignore[attr-defined]
        self.fields["artifact"].offer(artifacts)  # type: ignore[attr-defined]

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
