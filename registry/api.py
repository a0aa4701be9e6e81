"""`/api/v1/models`, `/versions`, `/artifacts`, `/datasets`."""

from __future__ import annotations

from typing import Any

import django_filters
from django.db import transaction
from django.db.models import QuerySet
from django.http import FileResponse, HttpResponse
from django.urls import reverse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, viewsets
from rest_framework.decorators import action
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response

from registry import environments, intake, searches, selectors, services, storage, upload
from registry import serializers as shapes
from registry.measurements import measurement_import
from registry.models import Artifact, Dataset, Environment, Model, Version
from registry.search_serializers import SearchRequest
from slipway.accounts import policy
from slipway.accounts.lookups import project_named
from slipway.api.problems import Problem
from slipway.api.views import IdempotentCreate, RowList, etag_of, idempotent, locked, require_match
from slipway.jobs.serializers import JobSerializer

LATEST = 5


class RawBody(BaseParser):
    """Leaves the body as a stream."""

    media_type = "application/octet-stream"

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> Any:
        return stream


class ModelFilter(django_filters.FilterSet):
    project = django_filters.CharFilter(field_name="project__slug")
    name = django_filters.CharFilter()
    archived = django_filters.BooleanFilter(field_name="archived_at", lookup_expr="isnull", exclude=True)

    class Meta:
        model = Model
        fields = ["project", "name", "task", "archived"]


class ModelViewSet(
    IdempotentCreate,
    mixins.ListModelMixin,
    mixins.RetrieveModelMixin,
    viewsets.GenericViewSet,
):
    """Named lines of versions."""

    queryset = Model.objects.select_related("project").prefetch_related("aliases__version")
    serializer_class = shapes.ModelSerializer
    filterset_class = ModelFilter
    lookup_value_regex = r"\d+"

    def get_queryset(self) -> QuerySet[Model]:
        rows = policy.visible(self.request.user, super().get_queryset())
        return rows.prefetch_related(None) if self.action == "versions" else rows

    @extend_schema(responses=shapes.ModelDetailSerializer)
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        model = self.get_object()
        model.latest_versions = Version.objects.filter(model=model).order_by("-number")[:LATEST]
        return Response(shapes.ModelDetailSerializer(model).data, headers={"ETag": etag_of(model)})

    @extend_schema(request=shapes.ModelSerializer, responses={201: shapes.ModelSerializer})
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().create(request, *args, **kwargs)

    def perform(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        shape = shapes.ModelSerializer(data=request.data, context=self.get_serializer_context())
        shape.fields["project"].queryset = policy.projects_of(request.user)
        shape.is_valid(raise_exception=True)
        model = services.model_create(
            actor=request.user,
            **{key: shape.validated_data[key] for key in ("project", "name")},
            task=shape.validated_data.get("task", "other"),
            description=shape.validated_data.get("description", ""),
            tags=shape.validated_data.get("tags"),
        )
        return Response(
            shapes.ModelSerializer(model).data,
            status=201,
            headers={"Location": f"/api/v1/models/{model.pk}", "ETag": etag_of(model)},
        )

    @extend_schema(request=shapes.ModelChange, responses=shapes.ModelSerializer)
    @transaction.atomic
    def partial_update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        model = locked(self.get_object())
        require_match(request, model)
        shape = shapes.ModelChange(data=request.data)
        shape.is_valid(raise_exception=True)
        model = services.model_update(actor=request.user, model=model, **shape.validated_data)
        return Response(shapes.ModelSerializer(model).data, headers={"ETag": etag_of(model)})

    @extend_schema(request=shapes.VersionRegister, responses={201: shapes.VersionSerializer})
    @action(detail=True, methods=["post"])
    @idempotent
    def versions(self, request: Request, pk: str) -> Response:
        """Registers a new version of bytes that the project already holds."""
        shape = shapes.VersionRegister(data=request.data)
        shape.is_valid(raise_exception=True)
        version = intake.version_copy(
            actor=request.user, model=self.get_object(), sha256=shape.validated_data["artifact"]
        )
        return Response(
            shapes.version_row(version),
            status=201,
            headers={"Location": f"/api/v1/versions/{version.pk}"},
        )

    @extend_schema(
        request=shapes.AliasWrite,
        responses={200: shapes.AliasSerializer, 204: None},
        parameters=[OpenApiParameter("alias", OpenApiTypes.STR, OpenApiParameter.PATH)],
    )
    @action(detail=True, methods=["put", "delete"], url_path=r"aliases/(?P<alias>[a-z][a-z0-9_-]{0,31})")
    def aliases(self, request: Request, pk: str, alias: str) -> Response:
        """Points an alias at a version, or removes it."""
        model = self.get_object()
        if request.method == "DELETE":
            services.alias_remove(actor=request.user, model=model, name=alias)
            return Response(status=204)
        shape = shapes.AliasWrite(data=request.data)
        shape.is_valid(raise_exception=True)
        version = Version.objects.filter(model=model, number=shape.validated_data["version"]).first()
        if version is None:
            raise Problem("This model has no such version.", field="version")
        row = services.alias_set(actor=request.user, model=model, name=alias, version=version)
        return Response(shapes.AliasSerializer(row).data)


class VersionFilter(django_filters.FilterSet):
    project = django_filters.CharFilter(field_name="model__project__slug")
    alias = django_filters.CharFilter(field_name="aliases__name")

    class Meta:
        model = Version
        fields = ["model", "number", "state", "origin", "approval", "project", "alias"]


class VersionViewSet(RowList, mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet):
    """Immutable versions."""

    queryset = Version.objects.all()
    serializer_class = shapes.VersionSerializer
    filterset_class = VersionFilter
    lookup_value_regex = r"\d+"

    def get_queryset(self) -> QuerySet[Version]:
        rows = policy.visible(self.request.user, super().get_queryset())
        return rows if self.action == "list" else rows.select_related("model__project")

    @extend_schema(responses=shapes.VersionDetailSerializer)
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        version = self.get_object()
        return Response(shapes.VersionDetailSerializer(version).data, headers={"ETag": etag_of(version)})

    @extend_schema(
        request={"application/octet-stream": OpenApiTypes.BINARY},
        responses={201: shapes.Uploaded},
        parameters=[
            OpenApiParameter("model", OpenApiTypes.STR, required=True, description="Name; made when it is new."),
            OpenApiParameter("project", OpenApiTypes.STR, description="Slug; your first project without it."),
            OpenApiParameter("task", OpenApiTypes.STR),
            OpenApiParameter("file_name", OpenApiTypes.STR, description="Plain name ending in .onnx or .pmml."),
        ],
        filters=False,
    )
    @action(detail=False, methods=["post"], parser_classes=[RawBody], pagination_class=None)
    def upload(self, request: Request) -> Response:
        """Uploads an ONNX or PMML file as the raw body: checked in the sandbox, then registered."""
        query = request.query_params
        declared = upload.declared_size(request.META)
        version, sha256 = upload.version_upload(
            actor=request.user,
            project=project_named(request.user, query.get("project")),
            model_name=query.get("model", ""),
            task=query.get("task", ""),
            file_name=query.get("file_name", "model.onnx"),
            stream=request.stream if request.stream is not None else request._request,
            declared=declared,
        )
        answer = {
            "id": version.pk,
            "model": version.model_id,
            "number": version.number,
            "sha256": sha256,
            "url": reverse("version", args=[version.pk]),
        }
        return Response(answer, status=201, headers={"Location": f"/api/v1/versions/{version.pk}"})

    @extend_schema(request=shapes.Decision, responses=shapes.VersionSerializer)
    @action(detail=True, methods=["post"])
    def decide(self, request: Request, pk: str) -> Response:
        """Approves or declines."""
        shape = shapes.Decision(data=request.data)
        shape.is_valid(raise_exception=True)
        version = services.version_decide(actor=request.user, version=self.get_object(), **shape.validated_data)
        return Response(shapes.VersionSerializer(version).data)

    @extend_schema(request=shapes.ExportRequest, responses={202: JobSerializer(many=True)})
    @action(detail=True, methods=["post"], pagination_class=None)
    @idempotent
    def export(self, request: Request, pk: str) -> Response:
        """Starts one export job per format."""
        shape = shapes.ExportRequest(data=request.data)
        shape.is_valid(raise_exception=True)
        jobs = services.export_request(actor=request.user, version=self.get_object(), **shape.validated_data)
        return Response(
            JobSerializer(jobs, many=True).data,
            status=202,
            headers={"Location": f"/api/v1/jobs/{jobs[0].pk}"},
        )

    @extend_schema(responses=shapes.Way(many=True))
    @action(detail=True, pagination_class=None, filterset_class=None)
    def formats(self, request: Request, pk: str) -> Response:
        """Every format there is: possible for this version, or why not."""
        return Response(shapes.Way(environments.ways_of(self.get_object()), many=True).data)

    @extend_schema(request=shapes.PrepareRequest, responses={202: JobSerializer})
    @action(detail=True, methods=["post"])
    @idempotent
    def prepare(self, request: Request, pk: str) -> Response:
        """Starts a job that installs an environment and proves it with this version."""
        shape = shapes.PrepareRequest(data=request.data)
        shape.is_valid(raise_exception=True)
        job = environments.environment_request(
            actor=request.user,
            version=self.get_object(),
            name=shape.validated_data["name"],
            requirements=shape.validated_data.get("requirements"),
        )
        return Response(JobSerializer(job).data, status=202, headers={"Location": f"/api/v1/jobs/{job.pk}"})

    @extend_schema(
        responses={(200, "text/plain"): OpenApiTypes.STR},
        parameters=[OpenApiParameter("file", enum=list(environments.FILES), location="path")],
    )
    @action(detail=True, url_path="environment/(?P<file>[A-Za-z.]+)", pagination_class=None, filterset_class=None)
    def environment(self, request: Request, pk: str, file: str) -> HttpResponse:
        """A file that builds the version's environment elsewhere."""
        version = self.get_object()
        if file not in environments.FILES:
            raise Problem(f"There is no file “{file[:60]}”.", code="not_found", status=404)
        return HttpResponse(environments.file_of(version, file), content_type="text/plain; charset=utf-8")


class EnvironmentViewSet(
    mixins.ListModelMixin, mixins.RetrieveModelMixin, mixins.DestroyModelMixin, viewsets.GenericViewSet
):
    """Prepared environments of this installation; those with a version's own packages are its project's to see."""

    queryset = Environment.objects.all()
    serializer_class = shapes.EnvironmentSerializer
    filterset_fields = ["name", "state"]
    lookup_value_regex = r"\d+"

    def get_queryset(self) -> QuerySet[Environment]:
        return selectors.environments_seen(self.request.user)

    def perform_destroy(self, instance: Environment) -> None:
        """Takes it off the disk; its row stays."""
        environments.environment_evict(actor=self.request.user, row=instance)


class ArtifactFilter(django_filters.FilterSet):
    class Meta:
        model = Artifact
        fields = ["version", "format", "sha256"]


class ArtifactViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet):
    """Stored forms of versions."""

    queryset = Artifact.objects.select_related("version__model__project").prefetch_related("measurements")
    serializer_class = shapes.ArtifactSerializer
    filterset_class = ArtifactFilter
    lookup_value_regex = r"\d+"

    def get_queryset(self) -> QuerySet[Artifact]:
        return policy.visible(self.request.user, super().get_queryset())

    @extend_schema(responses={(200, "application/octet-stream"): OpenApiTypes.BINARY})
    @action(detail=True)
    def content(self, request: Request, pk: str) -> FileResponse:
        """The bytes, verified against the digest."""
        artifact = self.get_object()
        if artifact.manifest:
            raise Problem("A source folder is downloaded from MLflow.", code="folder", status=409)
        path = storage.fetch_file(artifact.uri, sha256=artifact.sha256, size_limit=artifact.size)
        return FileResponse(path.open("rb"), as_attachment=True, filename=artifact.file_name)

    @extend_schema(request=shapes.OptimizeRequest, responses={202: JobSerializer})
    @action(detail=True, methods=["post"])
    @idempotent
    def optimize(self, request: Request, pk: str) -> Response:
        """Starts a job that makes a variant and measures both."""
        shape = shapes.OptimizeRequest(data=request.data)
        shape.is_valid(raise_exception=True)
        job = services.optimize_request(actor=request.user, artifact=self.get_object(), **shape.validated_data)
        return Response(JobSerializer(job).data, status=202, headers={"Location": f"/api/v1/jobs/{job.pk}"})

    @extend_schema(request=SearchRequest, responses={202: JobSerializer})
    @action(detail=True, methods=["post"])
    @idempotent
    def searches(self, request: Request, pk: str) -> Response:
        """Starts a search for the best variant under a goal; its id is in the job's parameters."""
        artifact = self.get_object()
        shape = SearchRequest(data=request.data, context={"request": request, "artifact": artifact})
        shape.is_valid(raise_exception=True)
        job = searches.search_request(actor=request.user, artifact=artifact, **shape.validated_data).job
        return Response(JobSerializer(job).data, status=202, headers={"Location": f"/api/v1/jobs/{job.pk}"})

    @extend_schema(request=shapes.MeasurementImport, responses={201: shapes.MeasurementSerializer})
    @action(detail=True, methods=["post"])
    @idempotent
    def measurements(self, request: Request, pk: str) -> Response:
        """Adds a measurement that was made on a device without a worker."""
        artifact = self.get_object()
        shape = shapes.MeasurementImport(data=request.data, context={"request": request, "artifact": artifact})
        shape.is_valid(raise_exception=True)
        row = measurement_import(actor=request.user, artifact=artifact, **shape.validated_data)
        return Response(shapes.MeasurementSerializer(row).data, status=201)


class DatasetViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet):
    """Rows for evaluation, calibration, baseline or retraining."""

    queryset = Dataset.objects.select_related("project")
    serializer_class = shapes.DatasetSerializer
    filterset_fields = ["role", "sha256"]
    lookup_value_regex = r"\d+"

    def get_queryset(self) -> QuerySet[Dataset]:
        return policy.visible(self.request.user, super().get_queryset())
