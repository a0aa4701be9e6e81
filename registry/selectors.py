"""Reads for the pages of models, versions, artifacts and datasets. Every queryset goes through the policy."""

from __future__ import annotations

from typing import Any

from django.core.paginator import InvalidPage
from django.db.models import Count, Exists, OuterRef, Prefetch, Q, QuerySet
from django.db.models.fields.json import KeyTextTransform
from django.shortcuts import get_object_or_404

from registry.models import (
    Alias,
    Artifact,
    Dataset,
    DatasetRole,
    Environment,
    EnvironmentOrigin,
    Format,
    Measurement,
    Model,
    Verdict,
    Version,
    VersionState,
)
from slipway.accounts import policy
from slipway.accounts.models import Project
from slipway.accounts.pages import Slice, newest, text_in
from slipway.audit.models import Entry
from slipway.jobs.models import Job

PAGE = 50
ONNX_FORMATS = (Format.ONNX, Format.ORT)
SORTS = {"name": "name", "newest": "-pk"}


def models_page(user: Any, project: Project | None, values: Any) -> Slice[Any]:
    """Models by name or newest first, filtered as the address says, with their aliases."""
    rows = policy.visible(user, Model.objects.select_related("project"))
    rows = rows.filter(archived_at__isnull=values.get("archived") != "1")
    if project:
        rows = rows.filter(project=project)
    if text := text_in(values, "q"):
        rows = rows.filter(Q(name__icontains=text) | Q(tags__icontains=text))
    if task := text_in(values, "task"):
        rows = rows.filter(task=task)
    mine = Model.stars.through.objects.filter(model_id=OuterRef("pk"), user_id=user.pk)
    rows = rows.annotate(starred=Exists(mine))
    if values.get("starred") == "1":
        rows = rows.filter(starred=True)
    rows = rows.prefetch_related(Prefetch("aliases", Alias.objects.select_related("version")))
    if values.get("sort") == "newest":
        return newest(rows, values.get("before"), PAGE)
    if after := text_in(values, "before", 200):
        name, _, pk = after.rpartition(".")
        if pk.isascii() and pk.isdigit():
            rows = rows.filter(Q(name__gt=name) | Q(name=name, pk__gt=int(pk)))
    found = list(rows.order_by("name", "pk")[: PAGE + 1])
    last = found[PAGE - 1] if len(found) > PAGE else None
    return Slice(found[:PAGE], f"{last.name}.{last.pk}" if last else None)


def model_get(user: Any, pk: int) -> Any:
    """One model with its project and aliases, or 404."""
    aliases = Prefetch("aliases", Alias.objects.select_related("version"))
    mine = Model.stars.through.objects.filter(model_id=OuterRef("pk"), user_id=user.pk)
    rows = Model.objects.select_related("project").prefetch_related(aliases).annotate(starred=Exists(mine))
    return get_object_or_404(policy.visible(user, rows), pk=pk)


def versions_page(model: Model, before: str | None, state: str = "") -> Slice[Version]:
    """Versions of a model, newest first."""
    rows = (
        Version.objects.filter(model=model)
        .select_related("created_by")
        .defer("signature", "params", "baseline", "card")
    )
    if state in VersionState.values:
        rows = rows.filter(state=state)
    if before and before.isascii() and before.isdigit() and len(before) < 10:
        rows = rows.filter(number__lt=int(before))
    short = Artifact.objects.only("version", "format", "recipe", "size", "verdict")
    rows = rows.prefetch_related("aliases", Prefetch("artifacts", short))
    found = list(rows.order_by("-number")[: PAGE + 1])
    return Slice(found[:PAGE], found[PAGE - 1].number if len(found) > PAGE else None)


def version_get(user: Any, pk: int) -> Version:
    """One version with its model, project, people and aliases, or 404."""
    rows = Version.objects.select_related("model__project", "approved_by", "created_by", "job")
    return get_object_or_404(policy.visible(user, rows.prefetch_related("aliases")), pk=pk)


def artifacts_of(version: Version) -> list[Artifact]:
    """Artifacts with parents, measurements (newest first) and where they are deployed."""
    rows = Artifact.objects.filter(version=version).select_related("parent", "job").order_by("id")
    measured = Prefetch("measurements", Measurement.objects.select_related("dataset").order_by("-id"))
    found = list(rows.prefetch_related(measured, "deployments__endpoint"))
    for artifact in found:
        artifact.version = version
    return found


def main_artifact(artifacts: list[Artifact]) -> Artifact | None:
    """The one that names the version: its source, or the uploaded file."""
    return next((row for row in artifacts if row.format == Format.SOURCE), artifacts[0] if artifacts else None)


def measurements_of(artifacts: list[Artifact]) -> list[dict[str, Any]]:
    """The newest measurement of each artifact on each device, with its change against the artifact it was made from on
    the same device; figures of different ones are not compared."""
    latest: dict[int, dict[tuple[Any, ...], Measurement]] = {}
    for artifact in artifacts:
        found = latest.setdefault(artifact.pk, {})
        for measured in artifact.measurements.all():
            found.setdefault(_device(measured), measured)
    rows = []
    for artifact in artifacts:
        for device, measured in latest[artifact.pk].items():
            base = latest.get(artifact.parent_id or 0, {}).get(device)
            rows.append(
                {"artifact": artifact, "measured": measured, "base": base, "change": _change(artifact, measured, base)}
            )
    return rows


def _device(measured: Measurement) -> tuple[Any, ...]:
    return tuple(measured.profile.get(name) for name in ("cpu", "cores", "threads", "machine"))


def _change(artifact: Artifact, measured: Measurement, base: Measurement | None) -> dict[str, Any]:
    """Relative size and latency, and difference of the quality metrics, against the base."""
    change: dict[str, Any] = {}
    if base is None:
        return change
    if base.latency_p50_ms:
        change["latency"] = measured.latency_p50_ms / base.latency_p50_ms - 1
    if artifact.parent and artifact.parent.size:
        change["size"] = artifact.size / artifact.parent.size - 1
    for name, value in measured.metrics.items():
        before = base.metrics.get(name)
        if isinstance(value, int | float) and isinstance(before, int | float):
            change[name] = value - before
    return change


def metric_names(rows: list[dict[str, Any]]) -> list[str]:
    """Names of the numeric quality metrics in the rows, in order."""
    names = {
        name
        for row in rows
        for name, value in row["measured"].metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return sorted(names)


def jobs_of(version: Version, artifacts: list[Artifact]) -> list[Job]:
    """The jobs that worked on a version: those named by its records and those it is the subject of."""
    ids = {version.job_id, *(row.job_id for row in artifacts)}
    ids |= {measured.job_id for row in artifacts for measured in row.measurements.all()}
    by = Q(pk__in=ids - {None}) | Q(params__version_id=version.pk)
    by |= Q(params__artifact_id__in=[row.pk for row in artifacts])
    rows = Job.objects.filter(by, project_id=version.model.project_id).select_related("created_by")
    return list(rows.order_by("-id")[:50])


def audit_of(version: Version) -> QuerySet[Entry]:
    """What happened to a version, newest first."""
    return Entry.objects.filter(object_type="version", object_id=str(version.pk)).order_by("-id")[:100]


def deployments_of(artifacts: list[Artifact]) -> list[Any]:
    """Where the artifacts of a version are, or were, placed."""
    rows = [(deployment, artifact) for artifact in artifacts for deployment in artifact.deployments.all()]
    return sorted(rows, key=lambda pair: -pair[0].pk)


def compare(user: Any, ids: list[int]) -> list[Version]:
    """The versions to compare, in the order asked for."""
    rows = policy.visible(user, Version.objects.filter(pk__in=ids).select_related("model__project"))
    artifacts = Artifact.objects.prefetch_related("measurements").order_by("id")
    found = {row.pk: row for row in rows.prefetch_related("aliases", Prefetch("artifacts", artifacts))}
    if not ids or set(ids) - set(found):
        raise InvalidPage
    return [found[pk] for pk in ids]


def evaluation_set(version: Version) -> Dataset | None:
    """The newest evaluation set of the version, or of its model."""
    own = version.datasets.filter(role=DatasetRole.EVALUATION).first()
    if own is not None:
        return own
    of_model = Dataset.objects.filter(role=DatasetRole.EVALUATION, versions__model=version.model_id)
    return of_model.order_by("-id").first()


def has_onnx(version: Version) -> bool:
    """Whether ONNX Runtime can answer for a version."""
    return version.artifacts.filter(format__in=ONNX_FORMATS).exclude(verdict=Verdict.REJECTED).exists()


def servable(user: Any, project: Project, limit: int = 100) -> QuerySet[Artifact]:
    """Newest artifacts of ready versions that the inference server can load; PMML only of those without ONNX."""
    onnx = Artifact.objects.filter(version=OuterRef("version"), format__in=ONNX_FORMATS).exclude(verdict="rejected")
    rows = Artifact.objects.filter(
        Q(format__in=ONNX_FORMATS) | Q(format=Format.PMML) & ~Exists(onnx),
        version__state=VersionState.READY,
        version__model__project=project,
    ).exclude(Q(verdict="rejected") | Q(attestation={}))
    return policy.visible(user, rows).select_related("version__model").order_by("-pk")[:limit]


def deployable(version: Version) -> QuerySet[Artifact]:
    """What of a version the inference server can run: its ONNX artifacts, of one without any its PMML."""
    rows = version.artifacts.exclude(verdict=Verdict.REJECTED)
    onnx = rows.filter(format=Format.ONNX)
    return onnx if onnx.exists() else rows.filter(format=Format.PMML)


def environments_seen(user: Any) -> QuerySet[Environment]:
    """Kits are everybody's. What was resolved for a version names its packages: only those see it who see a project
    that had it prepared, or that made an artifact with it."""
    if user.is_superuser:
        return Environment.objects.all()
    jobs = policy.visible(user, Job.objects.filter(kind="prepare"))
    made = policy.visible(user, Artifact.objects.filter(recipe__packages=EnvironmentOrigin.OWN))
    own = Q(job__in=jobs) | Q(digest__in=made.values(lock=KeyTextTransform("lock", "recipe")))
    return Environment.objects.filter(~Q(origin=EnvironmentOrigin.OWN) | own)


def datasets_page(user: Any, project: Project | None, before: str | None) -> Slice[Dataset]:
    """Datasets, newest first, with how many versions use each."""
    rows = policy.visible(user, Dataset.objects.select_related("project"))
    if project:
        rows = rows.filter(project=project)
    return newest(rows.annotate(used=Count("versions")), before, PAGE)
