"""OpenAPI: every operation declares the problems it can answer."""

from __future__ import annotations

from typing import Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework import serializers

from slipway.api.problems import TITLES
from slipway.api.views import IdempotentCreate


class ProblemError(serializers.Serializer):
    field = serializers.CharField()
    message = serializers.CharField()
    code = serializers.CharField()


class ProblemDocument(serializers.Serializer):
    """RFC 9457 problem details."""

    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    code = serializers.CharField()
    detail = serializers.CharField()
    errors = ProblemError(many=True)
    request_id = serializers.CharField()


class ProblemSchema(AutoSchema):
    """Adds the common problems, `Idempotency-Key` on POST and `If-Match` on changes."""

    def _problems(self) -> list[int]:
        codes = [400, 401, 403, 404, 405, 406, 415, 422, 429, 500, 503]
        if self.method == "POST":
            codes += [409, 413]
        if self.method in {"PUT", "PATCH", "DELETE"}:
            codes += [409, 412, 428]
        if self._matches():
            codes += [412, 428]
        if getattr(self.view, "action", "") == "upload":
            codes += [411, 507]
        return codes

    def _matches(self) -> bool:
        """What people do to a rollout is a POST that wants `If-Match` too."""
        return self.method == "POST" and "/rollouts/{" in self.path

    def _get_response_bodies(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        bodies = super()._get_response_bodies(*args, **kwargs)
        for code in self._problems():
            bodies.setdefault(
                str(code),
                self._get_response_for_code(
                    OpenApiResponse(ProblemDocument, description=TITLES[code]),
                    str(code),
                    media_types=["application/problem+json"],
                ),
            )
        return bodies

    def _honours_keys(self) -> bool:
        action = getattr(self.view, "action", None)
        create = action == "create" and isinstance(self.view, IdempotentCreate)
        return create or hasattr(getattr(self.view, action or "post", None), "idempotent")

    def get_override_parameters(self) -> list[OpenApiParameter]:
        extra = []
        if self.method == "POST" and self._honours_keys():
            extra.append(OpenApiParameter("Idempotency-Key", str, OpenApiParameter.HEADER))
        if self.method in {"PUT", "PATCH", "DELETE"} or self._matches():
            extra.append(OpenApiParameter("If-Match", str, OpenApiParameter.HEADER))
        return [*super().get_override_parameters(), *extra]
