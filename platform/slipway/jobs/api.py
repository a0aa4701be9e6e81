"""`/api/v1/jobs`: list, read (with `?wait=`), log, cancel, retry."""

from __future__ import annotations

import time
from typing import Any

import django_filters
from django.db.models import QuerySet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from slipway.accounts import policy
from slipway.api.params import int_param
from slipway.api.views import etag_of
from slipway.jobs import services
from slipway.jobs.models import LIVE, Job, JobLog, State
from slipway.jobs.serializers import JobDetailSerializer, JobLogSerializer, JobSerializer

LONGEST_WAIT = 25.0
_POLL = 0.25


class JobFilter(django_filters.FilterSet):
    state = django_filters.MultipleChoiceFilter(choices=State.choices)
    kind = django_filters.CharFilter()
    project = django_filters.CharFilter(field_name="project__slug")

    class Meta:
        model = Job
        fields = ["state", "kind", "project", "parent"]


def accepted(job: Job) -> Response:
    """202 with the job and where to follow it."""
    return Response(JobSerializer(job).data, status=202, headers={"Location": f"/api/v1/jobs/{job.pk}"})


class JobViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet):
    """Background work."""

    queryset = Job.objects.select_related("project", "created_by")
    serializer_class = JobSerializer
    filterset_class = JobFilter
    lookup_value_regex = r"\d+"

    def get_queryset(self) -> QuerySet[Job]:
        return policy.visible(self.request.user, super().get_queryset())

    @extend_schema(
        parameters=[
            OpenApiParameter("wait", OpenApiTypes.NUMBER, description="Seconds to wait for the end, at most 25.")
        ],
        responses=JobDetailSerializer,
    )
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        wait = int_param(request, "wait", default=0, low=0, high=int(LONGEST_WAIT))
        deadline = time.monotonic() + wait
        job = self.get_object()
        while job.state in LIVE and time.monotonic() < deadline:
            time.sleep(_POLL)
            job = self.get_object()
        return Response(JobDetailSerializer(job).data, headers={"ETag": etag_of(job)})

    @extend_schema(
        parameters=[
            OpenApiParameter("after", OpenApiTypes.INT, description="Id of the last line you have."),
            OpenApiParameter("limit", OpenApiTypes.INT, description="At most 1000 lines."),
        ],
        responses=JobLogSerializer(many=True),
        filters=False,
    )
    @action(detail=True, pagination_class=None)
    def log(self, request: Request, pk: str) -> Response:
        after = int_param(request, "after", default=0, low=0, high=2**62)
        limit = int_param(request, "limit", default=1000, low=1, high=1000)
        lines = JobLog.objects.filter(job=self.get_object(), id__gt=after)[:limit]
        return Response(JobLogSerializer(lines, many=True).data)

    @extend_schema(request=None, responses=JobSerializer)
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        return Response(JobSerializer(services.job_cancel(actor=request.user, job=self.get_object())).data)

    @extend_schema(request=None, responses={202: JobSerializer})
    @action(detail=True, methods=["post"])
    def retry(self, request: Request, pk: str) -> Response:
        return accepted(services.job_retry(actor=request.user, job=self.get_object()))
