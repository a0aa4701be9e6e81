"""Bearer tokens: for the API, for MLflow clients behind `/mlflow/` and for the inference server."""

from __future__ import annotations

import datetime as dt
import hmac
from typing import Any

from django.utils import timezone
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from slipway.accounts.models import Token, token_digest
from slipway.environment import environment

_TOUCH_AFTER = dt.timedelta(minutes=1)


def token_of(text: str) -> Token | None:
    """The valid token with this text, its last use noted (at most once a minute), or None."""
    token = Token.objects.select_related("user").filter(digest=token_digest(text)).first()
    now = timezone.now()
    if token is None or not token.user.is_active or (token.expires_at and token.expires_at <= now):
        return None
    if token.last_used_at is None or now - token.last_used_at > _TOUCH_AFTER:
        Token.objects.filter(pk=token.pk).update(last_used_at=now)
    return token


def bearer(header: bytes | str) -> str | None:
    """The token text of an `Authorization: Bearer …` header."""
    text = header.decode("latin-1") if isinstance(header, bytes) else header
    scheme, _, value = text.partition(" ")
    return value.strip() if scheme.lower() == "bearer" and value.strip() else None


class TokenAuthentication(BaseAuthentication):
    def authenticate(self, request: Request) -> tuple[Any, Token] | None:
        text = bearer(get_authorization_header(request))
        if text is None:
            return None
        token = token_of(text)
        if token is None:
            raise AuthenticationFailed("This token is unknown, expired or revoked.")
        token.user.used_token = token  # type: ignore[attr-defined]
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="slipway"'


def is_serving(header: bytes | str) -> bool:
    """Whether the bearer token is the one that the inference servers carry."""
    given, expected = bearer(header), environment.serving_token
    return bool(given and expected) and hmac.compare_digest(given.encode(), expected.encode())  # type: ignore[union-attr]
