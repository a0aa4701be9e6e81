"""`/api/v1/servers`: the inference server processes."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from deployments import serializers as shapes
from deployments import servers
from deployments.models import Server


class ServerViewSet(viewsets.GenericViewSet):
    """Inference server processes heard of in the last hour, with those deployments on them that you may see."""

    queryset = Server.objects.all()
    serializer_class = shapes.ServerSerializer
    filterset_fields = ["process"]

    def get_queryset(self) -> QuerySet[Server]:
        return servers.servers_recent()

    @extend_schema(responses=shapes.ServerSerializer(many=True))
    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        rows = servers.servers_described(request.user, page or [])
        return self.get_paginated_response(shapes.ServerSerializer(rows, many=True).data)
