"""`/api/v1/policies`, `/alerts`, `/hooks/…`, endpoint statistics, and the servers' reports."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import mixins, viewsets
from rest_framework.decorators import action
from rest_framework.parsers import BaseParser
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from deployments.models import Endpoint
from monitoring import serializers as shapes
from monitoring import services, stats
from monitoring.models import Alert, Policy
from monitoring.telemetry import Report, report_accept
from registry.models import Model
from slipway.accounts import policy as access
from slipway.accounts.permissions import ServingPermission
from slipway.api.params import int_param
from slipway.api.parsers import JSONParser
from slipway.api.problems import Problem
from slipway.api.views import IdempotentCreate, etag_of, idempotent, locked, require_match

HOOK_BODY_LIMIT = 64 * 1024


class ServingReport(APIView):
    """What an inference server process says about itself, once or twice a second."""

    authentication_classes: list[Any] = []
    permission_classes = [ServingPermission]
    parser_classes = [JSONParser]

    @extend_schema(operation_id="serving_report", request=OpenApiTypes.OBJECT, responses=shapes.Accepted)
    def post(self, request: Request) -> Response:
        return Response({"accepted": report_accept(report=Report.model_validate(request.data))})


class AnyBody(BaseParser):
    """The raw bytes: a signature covers them as they came."""

    media_type = "*/*"

    def parse(self, stream: Any, media_type: Any = None, parser_context: Any = None) -> bytes:
        body: bytes = stream.read(HOOK_BODY_LIMIT + 1)
        return body


class RetrainHook(APIView):
    """A signed call (Standard Webhooks) that fires a retraining policy."""

    authentication_classes: list[Any] = []
    permission_classes = [AllowAny]
    parser_classes = [AnyBody]

    @extend_schema(
        operation_id="hook_receive",
        request=OpenApiTypes.OBJECT,
        responses={202: shapes.FiringSerializer},
        parameters=[
            OpenApiParameter(name, OpenApiTypes.STR, OpenApiParameter.HEADER, required=True)
            for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
        ],
    )
    def post(self, request: Request, pk: int) -> Response:
        body = request.data if isinstance(request.data, bytes) else b""
        if len(body) > HOOK_BODY_LIMIT:
            raise Problem("A hook's body has at most 64 kB.", status=413, code="too_large")
        row = get_object_or_404(Policy.objects.select_related("model__project"), pk=pk)
        firing = services.hook_receive(
            policy=row, body=body, headers={name.lower(): value for name, value in request.headers.items()}
        )
        return Response(
            shapes.FiringSerializer(firing).data,
            status=202,
            headers={"Location": f"/api/v1/jobs/{firing.job_id}"},
        )


class PolicyViewSet(IdempotentCreate, mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet):
    """When models are retrained."""

    queryset = Policy.objects.select_related("model__project")
    serializer_class = shapes.PolicySerializer
    filterset_fields = ["model", "enabled"]
    lookup_value_regex = r"\d+"

    def get_queryset(self) -> QuerySet[Policy]:
        return access.visible(self.request.user, super().get_queryset())

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        row = self.get_object()
        return Response(shapes.PolicySerializer(row).data, headers={"ETag": etag_of(row)})

    @extend_schema(request=shapes.PolicyCreate, responses={201: shapes.PolicySerializer})
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().create(request, *args, **kwargs)

    def perform(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        shape = shapes.PolicyCreate(data=request.data)
        shape.is_valid(raise_exception=True)
        given = dict(shape.validated_data)
        model = access.visible(request.user, Model.objects.all()).filter(pk=given.pop("model")).first()
        if model is None:
            raise Problem("There is no such model.", field="model")
        row = services.policy_create(actor=request.user, model=model, **given)
        return Response(
            shapes.PolicySerializer(row).data,
            status=201,
            headers={"Location": f"/api/v1/policies/{row.pk}", "ETag": etag_of(row)},
        )

    @extend_schema(request=shapes.PolicyChange, responses=shapes.PolicySerializer)
    @transaction.atomic
    def partial_update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        row = locked(self.get_object())
        require_match(request, row)
        shape = shapes.PolicyChange(data=request.data)
        shape.is_valid(raise_exception=True)
        row = services.policy_update(actor=request.user, policy=row, **shape.validated_data)
        return Response(shapes.PolicySerializer(row).data, headers={"ETag": etag_of(row)})

    @extend_schema(request=None, responses={202: shapes.FiringSerializer})
    @action(detail=True, methods=["post"])
    @idempotent
    def fire(self, request: Request, pk: str) -> Response:
        """Retrains now."""
        firing = services.policy_fire(actor=request.user, policy=self.get_object())
        return Response(
            shapes.FiringSerializer(firing).data,
            status=202,
            headers={"Location": f"/api/v1/jobs/{firing.job_id}"},
        )

    @extend_schema(request=None, responses=shapes.Secret)
    @action(detail=True, methods=["post"])
    def secret(self, request: Request, pk: str) -> Response:
        """The secret that signs calls of the hook."""
        return Response({"secret": services.policy_secret(actor=request.user, policy=self.get_object())})

    @extend_schema(request=None, responses=shapes.Secret)
    @action(detail=True, methods=["post"])
    def rotate(self, request: Request, pk: str) -> Response:
        """A new secret; the old one ends."""
        return Response({"secret": services.policy_rotate(actor=request.user, policy=self.get_object())})


class AlertViewSet(viewsets.ReadOnlyModelViewSet):
    """What a person should look at."""

    queryset = Alert.objects.all()
    serializer_class = shapes.AlertSerializer
    filterset_fields = ["state"]
    lookup_value_regex = r"\d+"

    def get_queryset(self) -> QuerySet[Alert]:
        return access.visible(self.request.user, super().get_queryset())

    @extend_schema(request=None, responses=shapes.AlertSerializer)
    @action(detail=True, methods=["post"])
    def acknowledge(self, request: Request, pk: str) -> Response:
        """Says that somebody looks after it."""
        alert = self.get_object()
        services.alert_acknowledge(actor=request.user, alert=alert)
        alert.refresh_from_db()
        return Response(shapes.AlertSerializer(alert).data)


class EndpointStats(APIView):
    """Requests, errors, latency, where the time went, batches, cache, and predicted classes per deployment."""

    @extend_schema(
        operation_id="endpoint_stats",
        parameters=[OpenApiParameter("minutes", OpenApiTypes.INT, description="1 to 1440, 15 without.")],
        responses=shapes.DeploymentStats(many=True),
    )
    def get(self, request: Request, pk: int) -> Response:
        endpoint = get_object_or_404(access.visible(request.user, Endpoint.objects.all()), pk=pk)
        minutes = int_param(request, "minutes", default=15, low=1, high=1440)
        since = timezone.now() - dt.timedelta(minutes=minutes)
        return Response(stats.endpoint_stats(endpoint=endpoint, since=since))
