"""`/api/v1/tokens`: one's own API tokens."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from slipway.accounts import services
from slipway.accounts.models import LEAST_RATE, MOST_RATE, Scope, Token
from slipway.api.views import etag_of, locked, require_match


class TokenSerializer(serializers.ModelSerializer):
    class Meta:
        model = Token
        fields = [
            "id", "name", "scope", "prefix", "created_at", "expires_at", "last_used_at", "rate", "burst",
            "revision",
        ]  # fmt: skip
        read_only_fields = fields


class TokenMade(TokenSerializer):
    token = serializers.CharField(read_only=True, help_text="The text, on this answer only")

    class Meta(TokenSerializer.Meta):
        fields = [*TokenSerializer.Meta.fields, "token"]
        read_only_fields = fields


class TokenQuota(serializers.Serializer):
    rate = serializers.FloatField(
        required=False, allow_null=True, min_value=LEAST_RATE, max_value=MOST_RATE,
        help_text="Inference requests a second on average, over all processes of a server",
    )  # fmt: skip
    burst = serializers.IntegerField(
        required=False, allow_null=True, min_value=1, max_value=MOST_RATE,
        help_text="Requests at once; null: those of one second",
    )  # fmt: skip


class TokenCreate(TokenQuota):
    name = serializers.CharField(max_length=100)
    scope = serializers.ChoiceField(choices=Scope.choices, default=Scope.WRITE)
    expires_at = serializers.DateTimeField(required=False, allow_null=True)

    def validate_expires_at(self, value: Any) -> Any:
        if value is not None and value <= timezone.now():
            raise serializers.ValidationError(_("This moment is over already."))
        return value


class TokenViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, mixins.DestroyModelMixin, viewsets.GenericViewSet):
    """One's own tokens. Their text is shown when they are made and kept nowhere, so a repetition makes another."""

    queryset = Token.objects.all()
    serializer_class = TokenSerializer
    filterset_fields = ["scope", "name"]
    lookup_value_regex = r"\d+"

    def get_queryset(self) -> QuerySet[Token]:
        return Token.objects.filter(user_id=self.request.user.pk)

    @extend_schema(request=TokenCreate, responses={201: TokenMade})
    def create(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Makes a token. One that is made with a token can do no more than that token."""
        shape = TokenCreate(data=request.data)
        shape.is_valid(raise_exception=True)
        user: Any = request.user
        row, text = services.token_create(user=user, **shape.validated_data)
        data = {**TokenSerializer(row).data, "token": text}
        return Response(data, status=201, headers={"Cache-Control": "no-store"})

    def _answer(self, row: Token) -> Response:
        return Response(TokenSerializer(row).data, headers={"ETag": etag_of(row)})

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        return self._answer(self.get_object())

    @extend_schema(request=TokenQuota, responses=TokenSerializer)
    @transaction.atomic
    def partial_update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Changes the quota: what is absent stays; a rate of null takes it away. Calls with the token go on."""
        row = locked(self.get_object())
        require_match(request, row)
        shape = TokenQuota(data=request.data)
        shape.is_valid(raise_exception=True)
        given = shape.validated_data
        rate = given.get("rate", row.rate)
        kept = row.burst if rate is not None else None
        user: Any = request.user
        changed = services.token_quota_change(user=user, token=row, rate=rate, burst=given.get("burst", kept))
        return self._answer(changed)

    def perform_destroy(self, instance: Token) -> None:
        services.token_revoke(user=instance.user, token_id=instance.pk)
