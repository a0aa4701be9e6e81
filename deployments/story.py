"""A rollout as its page tells it: steps, evidence, the next moves and their effects in sentences."""

from __future__ import annotations

from typing import Any

from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from deployments.models import DeploymentState, Rollout, RolloutState
from deployments.rollouts import is_at_gate
from slipway.accounts import policy

KNOWN_GUARDS = {"error-burst": gettext_lazy("Error share")}
VERDICTS = {
    "promote": ("promote", gettext_lazy("promote")),
    "abort": ("abort", gettext_lazy("abort")),
    "too-few": ("quiet", gettext_lazy("too few requests")),
    "nearly": ("wait", gettext_lazy("nearly")),
    "wait": ("wait", gettext_lazy("collecting")),
}
_TONES = {"promote": "good", "abort": "bad", "too-few": "", "nearly": "run", "wait": "run"}


def _minutes(seconds: float) -> str:
    if seconds < 120:
        return _("%(n)d s") % {"n": seconds}
    return _("%(n)d min") % {"n": seconds // 60}


def steps(rollout: Rollout) -> list[dict[str, Any]]:
    """[{title, state, lines}]: what each step waited, waits or will wait for."""
    begun = rollout.step_started_at is not None
    counted = (rollout.evidence.get("candidate") or {}).get("requests", 0)
    told = []
    for index, step in enumerate(rollout.steps):
        title = _("Shadow") if step.get("mode") == "shadow" else f"{step['weight']} %"
        if index < rollout.step or rollout.state == RolloutState.PROMOTED:
            told.append({"title": title, "state": "done", "lines": [_("done")]})
        elif index == rollout.step and begun:
            told.append({"title": title, "state": _now(rollout), "lines": _progress(rollout, step, counted)})
        else:
            told.append({"title": title, "state": "", "lines": _plan(step)})
    return told


def _now(rollout: Rollout) -> str:
    return "now" if rollout.is_live else "bad"


def _plan(step: dict[str, Any]) -> list[str]:
    lines = ["≥ " + _minutes(step.get("min_seconds", 0))]
    if step.get("min_requests"):
        lines.append(_("≥ %(n)s requests") % {"n": f"{step['min_requests']:,}"})
    if step.get("gate"):
        lines.append(_("a person decides"))
    return lines


def _progress(rollout: Rollout, step: dict[str, Any], counted: int) -> list[str]:
    if not rollout.is_live or rollout.step_started_at is None:
        return [str(rollout.get_state_display())]
    seconds = (timezone.now() - rollout.step_started_at).total_seconds()
    lines = [_("%(now)s of ≥ %(least)s") % {"now": _minutes(seconds), "least": _minutes(step.get("min_seconds", 0))}]
    if least := step.get("min_requests"):
        lines.append(_("%(n)s of ≥ %(least)s requests") % {"n": f"{counted:,}", "least": f"{least:,}"})
    if step.get("gate"):
        lines.append(_("then a person decides"))
    return lines


def _value(name: str, value: Any) -> str:
    if not isinstance(value, int | float):
        return "–"
    if "latency" in name or name.startswith("p9"):
        return f"{value:.1f} ms"
    return f"{100 * value:.2f} %"


def guards(rollout: Rollout) -> list[dict[str, Any]]:
    """The evidence table: figures with units, position and verdict of each guard."""
    rows = []
    for guard in rollout.evidence.get("guards") or []:
        name, verdict = guard.get("name", ""), guard.get("verdict", "wait")
        pill, word = VERDICTS.get(verdict, ("wait", verdict))
        rows.append(
            {
                "label": KNOWN_GUARDS.get(name, guard.get("label", name)),
                "limit": _value(name, guard.get("limit")),
                "stable": _value(name, guard.get("stable")),
                "candidate": _value(name, guard.get("candidate")),
                "position": guard.get("position", 0.5),
                "verdict": pill,
                "tone": _TONES.get(verdict, "run"),
                "word": word,
            }
        )
    return rows


def split(rollout: Rollout) -> dict[str, Any]:
    """Desired and observed shares of the candidate and the stable version, in percent."""
    desired = [rollout.candidate.weight, rollout.stable.weight]
    observed = rollout.evidence.get("observed") or {}
    counts = [observed.get(str(rollout.candidate_id), 0), observed.get(str(rollout.stable_id), 0)]
    total = sum(counts)
    shares = [100 * count / total for count in counts] if total else None
    return {"desired": desired, "observed": shares, "total": total}


def headline(rollout: Rollout) -> str:
    """The state in words: "Canary, step 2 of 4"."""
    if rollout.state != RolloutState.PROGRESSING:
        return str(rollout.get_state_display())
    if rollout.step_started_at is None:
        return _("Waiting for the servers")
    return _("Canary, step %(n)d of %(all)d") % {"n": rollout.step + 1, "all": len(rollout.steps)}


def moves(rollout: Rollout) -> list[dict[str, Any]]:
    """The buttons that apply now: [{key, label, effect, kind, url}]."""
    old, new = rollout.stable.artifact.version.number, rollout.candidate.artifact.version.number
    words = {"endpoint": rollout.endpoint.name, "old": old, "new": new}
    found = []

    def add(key: str, label: str, effect: str, kind: str = "") -> None:
        url = reverse("rollout-act", args=[rollout.pk, key])
        needs = policy.APPROVE if key in ("promote", "full") and is_at_gate(rollout) else policy.DEPLOY
        found.append({"key": key, "label": label, "effect": effect, "kind": kind, "url": url, "needs": needs})

    if rollout.state == RolloutState.PROGRESSING:
        add("pause", _("Pause"), _("Holds the traffic of %(endpoint)s as it is until somebody resumes.") % words)
    if rollout.state == RolloutState.PAUSED:
        add("resume", _("Resume"), _("Goes on with this step; its clock starts again.") % words)
    if rollout.state in (RolloutState.PROGRESSING, RolloutState.PAUSED, RolloutState.BAKING):
        effect = _("Sends all traffic of %(endpoint)s back to version %(old)d and ends the rollout.") % words
        add("abort", _("Back to version %(old)d") % words, effect, "danger")
    if rollout.state == RolloutState.PROMOTED and rollout.stable.state != DeploymentState.RETIRED:
        effect = _("Sends all traffic of %(endpoint)s back to version %(old)d at once.") % words
        add("roll-back", _("Back to version %(old)d") % words, effect, "danger")
    if rollout.state in (RolloutState.PROGRESSING, RolloutState.PAUSED):
        _forward(rollout, words, add)
    return found


def _forward(rollout: Rollout, words: dict[str, Any], add: Any) -> None:
    """Promote to the next step, or everything at once."""
    index = rollout.step + 1 if rollout.step_started_at else 0
    full = _("Send all traffic of %(endpoint)s to version %(new)d; version %(old)d stays loaded for a return.") % words
    weight = rollout.steps[index]["weight"] if index < len(rollout.steps) else 100
    if weight < 100:
        add("full", _("Send everything"), full)
        words = words | {"weight": weight, "rest": 100 - weight}
        effect = _(
            "Send %(weight)d %% of the traffic of %(endpoint)s to version %(new)d; version %(old)d keeps %(rest)d %%."
        )
        add("promote", _("Promote to %(weight)d %%") % words, effect % words, "primary")
    else:
        add("full", _("Promote to %(weight)d %%") % (words | {"weight": 100}), full, "primary")


def plan_effect(endpoint: str, old: int, new: int, plan: list[dict[str, Any]]) -> str:
    """What starting a rollout does first, in a sentence."""
    weight = plan[0]["weight"]
    words = {"endpoint": endpoint, "old": old, "new": new, "weight": weight, "rest": 100 - weight}
    if weight >= 100:
        return (
            _("Send all traffic of %(endpoint)s to version %(new)d; version %(old)d stays loaded for a return.") % words
        )
    first = _(
        "Send %(weight)d %% of the traffic of %(endpoint)s to version %(new)d; version %(old)d keeps %(rest)d %%."
    )
    later = ngettext(
        "One more step follows when the evidence allows it.",
        "%(n)d more steps follow when the evidence allows it.",
        len(plan) - 1,
    ) % {"n": len(plan) - 1}
    return f"{first % words} {later}"
