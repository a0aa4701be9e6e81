"""`/api/v1/endpoints`, `/rollouts`, `/targets`."""

from __future__ import annotations

from typing import Any

import django_filters
from django.db import transaction
from django.db.models import Prefetch, QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from deployments import rollouts, services, tuning
from deployments import serializers as shapes
from deployments.models import DESIRED, ROLLOUT_LIVE, Deployment, Endpoint, Rollout, Target
from registry.models import Artifact
from slipway.accounts import policy
from slipway.accounts.lookups import project_named
from slipway.api.problems import Problem
from slipway.api.views import IdempotentCreate, etag_of, idempotent, locked, require_match


def artifact_for(user: Any, pk: int) -> Artifact:
    """The artifact a request names, if its user sees it."""
    rows = policy.visible(user, Artifact.objects.select_related("version__model__project"))
    artifact = rows.filter(pk=pk).first()
    if artifact is None:
        raise Problem("There is no such artifact.", field="artifact")
    return artifact


def runtime_in(given: dict[str, Any]) -> dict[str, Any]:
    """What a request says of what runs the deployment."""
    return {"provider": given.get("provider"), "upstream": given.get("upstream")}


def endpoints_for(user: Any) -> QuerySet[Endpoint]:
    """The endpoints a user sees, with what each should serve."""
    desired = Deployment.objects.filter(state__in=DESIRED).select_related("artifact__version__model")
    return policy.visible(user, Endpoint.objects.select_related("project", "target")).prefetch_related(
        Prefetch("deployments", queryset=desired.order_by("id"), to_attr="desired_deployments")
    )


class EndpointViewSet(IdempotentCreate, mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet):
    """Stable names that answer requests."""

    queryset = Endpoint.objects.all()
    serializer_class = shapes.EndpointSerializer
    filterset_fields = ["name", "access"]
    lookup_value_regex = r"\d+"

    def get_queryset(self) -> QuerySet[Endpoint]:
        return endpoints_for(self.request.user)

    def _answer(self, pk: int, status: int = 200) -> Response:
        endpoint = self.get_queryset().get(pk=pk)
        return Response(
            shapes.EndpointSerializer(endpoint).data,
            status=status,
            headers={"ETag": etag_of(endpoint), "Location": f"/api/v1/endpoints/{pk}"},
        )

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self._answer(self.get_object().pk)

    @extend_schema(request=shapes.EndpointCreate, responses={201: shapes.EndpointSerializer})
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().create(request, *args, **kwargs)

    def perform(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        shape = shapes.EndpointCreate(data=request.data)
        shape.is_valid(raise_exception=True)
        given = shape.validated_data
        settings = tuning.EndpointChange.model_validate({"settings": request.data.get("settings", {})}).settings
        endpoint = services.endpoint_create(
            actor=request.user,
            project=project_named(request.user, given.get("project")),
            name=given["name"],
            access=given["access"],
            artifact=artifact_for(request.user, given["artifact"]) if "artifact" in given else None,
            settings=settings,
            **runtime_in(given),
        )
        return self._answer(endpoint.pk, 201)

    @extend_schema(request=shapes.EndpointChange, responses=shapes.EndpointSerializer)
    @transaction.atomic
    def partial_update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Changes the serving settings: what is absent stays, null goes back to what the servers do."""
        endpoint = locked(self.get_object())
        require_match(request, endpoint)
        change = tuning.EndpointChange.model_validate(request.data)
        services.settings_change(actor=request.user, endpoint=endpoint, settings=change.settings)
        return self._answer(endpoint.pk)

    @extend_schema(responses={204: None})
    @transaction.atomic
    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        endpoint = locked(self.get_object())
        require_match(request, endpoint)
        services.endpoint_delete(actor=request.user, endpoint=endpoint)
        return Response(status=204)

    @extend_schema(request=shapes.Place, responses={201: shapes.EndpointSerializer})
    @action(detail=True, methods=["post"])
    @idempotent
    def place(self, request: Request, pk: str) -> Response:
        """Places the first artifact, with all of the traffic."""
        endpoint = self.get_object()
        shape = shapes.Place(data=request.data)
        shape.is_valid(raise_exception=True)
        services.deployment_place(
            actor=request.user,
            endpoint=endpoint,
            artifact=artifact_for(request.user, shape.validated_data["artifact"]),
            **runtime_in(shape.validated_data),
        )
        return self._answer(endpoint.pk, 201)

    @extend_schema(request=shapes.Weights, responses=shapes.EndpointSerializer)
    @action(detail=True, methods=["put"])
    @transaction.atomic
    def weights(self, request: Request, pk: str) -> Response:
        """Sets the weights of the loaded deployments by hand (not while a rollout moves them)."""
        endpoint = locked(self.get_object())
        require_match(request, endpoint)
        shape = shapes.Weights(data=request.data)
        shape.is_valid(raise_exception=True)
        services.weights_change(actor=request.user, endpoint=endpoint, weights=shape.validated_data["weights"])
        return self._answer(endpoint.pk)


class RolloutFilter(django_filters.FilterSet):
    live = django_filters.BooleanFilter(method="filter_live")

    class Meta:
        model = Rollout
        fields = ["endpoint", "state", "live"]

    def filter_live(self, rows: QuerySet[Rollout], name: str, value: bool) -> QuerySet[Rollout]:
        return rows.filter(state__in=ROLLOUT_LIVE) if value else rows.exclude(state__in=ROLLOUT_LIVE)


class RolloutViewSet(IdempotentCreate, mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet):
    """Changes from one deployment to another. Every action wants `If-Match` with the rollout's ETag."""

    queryset = Rollout.objects.select_related("endpoint__project")
    serializer_class = shapes.RolloutSerializer
    filterset_class = RolloutFilter
    lookup_value_regex = r"\d+"

    def get_queryset(self) -> QuerySet[Rollout]:
        return policy.visible(self.request.user, super().get_queryset())

    def _answer(self, rollout: Rollout, status: int = 200) -> Response:
        row = Rollout.objects.select_related("endpoint").prefetch_related("decisions__actor").get(pk=rollout.pk)
        return Response(
            shapes.RolloutDetailSerializer(row).data,
            status=status,
            headers={"ETag": etag_of(row), "Location": f"/api/v1/rollouts/{row.pk}"},
        )

    @extend_schema(responses=shapes.RolloutDetailSerializer)
    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self._answer(self.get_object())

    @extend_schema(request=shapes.RolloutStart, responses={201: shapes.RolloutDetailSerializer})
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return super().create(request, *args, **kwargs)

    def perform(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        shape = shapes.RolloutStart(data=request.data)
        shape.is_valid(raise_exception=True)
        given = shape.validated_data
        endpoint = policy.visible(request.user, Endpoint.objects.all()).filter(pk=given["endpoint"]).first()
        if endpoint is None:
            raise Problem("There is no such endpoint.", field="endpoint")
        rollout = rollouts.rollout_start(
            actor=request.user,
            endpoint=endpoint,
            artifact=artifact_for(request.user, given["artifact"]),
            steps=given.get("steps"),
            guard=given.get("guard"),
            **runtime_in(given),
        )
        return self._answer(rollout, 201)

    def _do(self, request: Request, change: Any) -> Response:
        rollout = self.get_object()
        require_match(request, rollout)
        revision = None if request.headers["If-Match"] == "*" else rollout.revision
        return self._answer(change(actor=request.user, rollout=rollout, revision=revision))

    @extend_schema(request=None, responses=shapes.RolloutDetailSerializer)
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, pk: str) -> Response:
        """Holds the weights where they are."""
        return self._do(request, rollouts.rollout_pause)

    @extend_schema(request=None, responses=shapes.RolloutDetailSerializer)
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, pk: str) -> Response:
        """Goes on with the step it held."""
        return self._do(request, rollouts.rollout_resume)

    @extend_schema(request=None, responses=shapes.RolloutDetailSerializer)
    @action(detail=True, methods=["post"])
    def promote(self, request: Request, pk: str) -> Response:
        """Goes to the next step now."""
        return self._do(request, rollouts.rollout_promote)

    @extend_schema(request=None, responses=shapes.RolloutDetailSerializer)
    @action(detail=True, methods=["post"])
    def full(self, request: Request, pk: str) -> Response:
        """Gives the candidate all of the traffic now."""
        return self._do(request, rollouts.rollout_full)

    @extend_schema(request=None, responses=shapes.RolloutDetailSerializer)
    @action(detail=True, methods=["post"])
    def abort(self, request: Request, pk: str) -> Response:
        """Sends all traffic back to the stable version and ends the rollout."""
        return self._do(request, rollouts.rollout_abort)

    @extend_schema(request=None, responses=shapes.RolloutDetailSerializer)
    @action(detail=True, methods=["post"], url_path="roll-back")
    def roll_back(self, request: Request, pk: str) -> Response:
        """Returns to the old version, also after the promotion."""
        return self._do(request, rollouts.rollout_roll_back)


class TargetViewSet(viewsets.ReadOnlyModelViewSet):
    """Where models run."""

    queryset = Target.objects.select_related("project")
    serializer_class = shapes.TargetSerializer
    lookup_value_regex = r"\d+"

    def get_queryset(self) -> QuerySet[Target]:
        return policy.visible(self.request.user, super().get_queryset())
