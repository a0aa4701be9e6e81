"""`/api/v1/searches`. A search begins at the artifact that it is about."""

from __future__ import annotations

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, viewsets
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from registry.search_models import Search
from registry.search_selectors import searches_visible, standing_of
from registry.search_serializers import SearchSerializer, StandingSerializer, TrialSerializer


class SearchViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet):
    """Searches for the best variant of an artifact. Cancel one by its job."""

    queryset = Search.objects.all()
    serializer_class = SearchSerializer
    filterset_fields = ["artifact", "dataset"]
    lookup_value_regex = r"\d+"

    def get_queryset(self) -> QuerySet[Search]:
        return searches_visible(self.request.user)

    @extend_schema(responses=StandingSerializer)
    def retrieve(self, request: Request, pk: str) -> Response:
        return Response(StandingSerializer(standing_of(self.get_object())).data)

    @extend_schema(responses=TrialSerializer(many=True))
    @action(detail=True, pagination_class=None, filterset_fields=None)
    def trials(self, request: Request, pk: str) -> Response:
        """Every variant that was tried, in the order of trying."""
        return Response(TrialSerializer(standing_of(self.get_object()).trials, many=True).data)
