"""The REST framework's side of the policy: signed in, and a token that may do what it is used for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from slipway.accounts.authentication import is_serving
from slipway.api.problems import Problem

if TYPE_CHECKING:  # the framework imports this module while it defines its views
    from rest_framework.views import APIView


class ProjectPermission(BasePermission):
    """Rows are limited by `policy.visible`, changes by `policy.require` in the service; this is the gate."""

    message = "This token may not do this."

    def has_permission(self, request: Request, view: APIView) -> bool:
        if not (request.user and request.user.is_authenticated):
            return False
        token = getattr(request.user, "used_token", None)
        if token is None:
            return True
        return token.scope == "write" or (token.scope == "read" and request.method in SAFE_METHODS)


class ServingPermission(BasePermission):
    """Only the inference servers."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        if not is_serving(request.headers.get("Authorization", "")):
            raise Problem("This needs the serving token.", code="not_authenticated", status=401)
        return True
