"""Where the packages come from that a version is loaded and exported with: the worker's own, a kit, or a lock that is
resolved for the version from what it asks for."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from django.db import transaction
from packaging.requirements import Requirement

from engine.errors import EngineError
from engine.export import bill, environments, requirements
from engine.export.base import exporters
from engine.export.sources.base import sources
from engine.sentence import say
from registry.models import Environment, EnvironmentOrigin, EnvironmentState, Resolution, Version
from slipway import paths
from slipway.accounts import policy
from slipway.accounts.models import User
from slipway.api.problems import Problem
from slipway.audit.services import record
from slipway.jobs.models import Job

OWN_LIST = "%(refused)s Give the version a list of packages of its own instead."
OWN = "base"  # the kit that is the worker's own packages


@dataclass(frozen=True)
class Plan:
    """name: of the kit. lock: all pins, None where they are still to be resolved from `requirements`, a list whose key
    is `wanted`. unmet: what the version asks for and the kit does not have."""

    origin: str
    name: str
    lock: str | None
    requirements: tuple[str, ...] = ()
    wanted: str = ""
    unmet: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Key of the environment; "" while there is none to speak of."""
        return "" if self.lock is None else environments.digest_of_text(self.lock)


def lock_of(name: str) -> Path:
    """The lock of a kit. Problem 404 for a name that none has."""
    known = {one.environment(kind) for one in exporters().values() for kind in sources()} - {None}
    if name != OWN and name not in known:
        raise Problem(f"There is no environment “{name[:60]}”.", code="not_found", status=404)
    return paths.REPOSITORY / "locks" / f"{name}.txt"


def kit_plan(name: str) -> Plan:
    """A kit as it is, for work on files that need nothing of a version's own packages."""
    return Plan(EnvironmentOrigin.KIT, name, environments.text_of(lock_of(name)))


def plan_for(version: Version, name: str | None) -> Plan:
    """What a version gets where an exporter asks for the kit `name` (None: the worker's own packages).

    EngineError(code="requirements") where the version asks for more than named packages.
    """
    name = name or OWN
    kit = lock_of(name)
    asked = asked_by(version)
    unmet = requirements.unmet(asked, requirements.installed if name == OWN else _pins(kit).get)
    if not unmet:
        origin = EnvironmentOrigin.WORKER if name == OWN else EnvironmentOrigin.KIT
        return Plan(origin, name, environments.text_of(kit))
    wanted = requirements.merged(asked, _ours(kit))
    key = _key(name, wanted)
    row = Resolution.objects.filter(wanted=key).first()
    return Plan(EnvironmentOrigin.OWN, name, (row and row.lock) or None, tuple(wanted), key, tuple(unmet))


def asked_by(version: Version) -> list[Requirement]:
    """The packages that count for a version: its own list, else what was recorded where it was trained. None of them
    for a format that is complete in itself (ONNX, PMML): there only what reads it matters."""
    if version.packages:
        return requirements.needed(requirements.parsed(version.packages, "The version's own list"))
    if needs_nothing(version):
        return []
    refused = version.params.get("requirements_refused") or []
    if refused:
        raise EngineError(
            say(OWN_LIST, refused=requirements.sentence_of(refused[0])),
            field="requirements",
            code="requirements",
        )
    return requirements.needed(requirements.parsed(version.params.get("requirements") or [], "Recorded requirements"))


def needs_nothing(version: Version) -> bool:
    """Whether what was recorded counts for nothing: the format is complete in itself, or unknown."""
    kind = sources().get(version.framework)
    return kind is None or getattr(kind, "complete", False)


@transaction.atomic
def packages_set(*, actor: User, version: Version, lines: list[str]) -> Version:
    """Gives a version its own list of packages in place of the recorded one; an empty list takes it away again."""
    policy.require(actor, policy.WRITE, version.model.project_id)
    requirements.parsed(lines, "The list")
    row = Version.objects.select_for_update(no_key=True).select_related("model__project").get(pk=version.pk)
    if row.packages != lines:
        row.packages = lines
        row.save(update_fields=["packages"])
        record(actor=actor, action="version.packages", target=row, project_id=row.model.project_id, packages=lines[:50])
    return row


def lock_resolved(*, plan: Plan, lock: str, job: Job | None) -> Plan:
    """Keeps what the packages of a plan were resolved to; the first answer stays when two jobs asked."""
    with transaction.atomic():
        row, _ = Resolution.objects.select_for_update().get_or_create(wanted=plan.wanted, defaults=_facts(plan))
        if not row.lock:
            row.lock, row.reason = lock, ""
            row.save(update_fields=["lock", "reason"])
        found = Plan(plan.origin, plan.name, row.lock, plan.requirements, plan.wanted, plan.unmet)
        Environment.objects.get_or_create(
            digest=found.digest,
            defaults={"name": plan.name, "origin": plan.origin, "state": EnvironmentState.PREPARING, "job": job},
        )
    return found


def lock_unresolved(*, plan: Plan, reason: str) -> None:
    """Says why there is no lock."""
    values = {"reason": reason[:500]}
    Resolution.objects.update_or_create(wanted=plan.wanted, defaults=values, create_defaults={**_facts(plan), **values})


def resolution_of(plan: Plan) -> Resolution:
    """The row of a plan that is still to be resolved, locked until the transaction ends."""
    row, _ = Resolution.objects.select_for_update(of=("self",)).get_or_create(wanted=plan.wanted, defaults=_facts(plan))
    return row


def python_words(version: Version) -> str:
    """A sentence where the model was logged on another Python than ours; "" where it was not."""
    recorded = str(version.params.get("python") or "")
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    if not recorded or recorded.split(".")[:2] == ours.split("."):
        return ""
    return f"The version was logged on Python {recorded}; environments here have {ours}."


def _facts(plan: Plan) -> dict[str, object]:
    return {"name": plan.name, "requirements": list(plan.requirements)}


def _key(name: str, wanted: list[str]) -> str:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return hashlib.sha256(json.dumps([name, wanted, python]).encode()).hexdigest()


def _pins(kit: Path) -> dict[str, str]:
    """Versions by name in a kit, for this platform."""
    pins = [
        Requirement(f"{each.name}=={each.version}" + (f"; {each.marker}" if each.marker else ""))
        for each in bill.packages_of(environments.text_of(kit))
    ]
    return {each.name: next(iter(each.specifier)).version for each in requirements.needed(pins)}


def _ours(kit: Path) -> list[Requirement]:
    """What our own code needs of a kit: as it is asked for, and what pip is to find (the builds of torch)."""
    source = kit.with_name("own.in") if kit.stem == OWN else kit.with_suffix(".in")
    lines = source.read_text().splitlines()
    by_pip = kit.with_suffix(".pip")
    if by_pip.exists():
        lines += [f"{each.name}=={each.version}" for each in bill.packages_of(by_pip.read_text())]
    return requirements.parsed(lines, source.name)
