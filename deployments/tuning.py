"""How an endpoint is served and what runs a deployment: the checked values, as the servers take them.

`EndpointSettings` and `Upstream` have the shape of the desired document and of the API; the columns of
`Endpoint` hold the same values, with the same bounds as database constraints.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from django.utils.translation import gettext as _
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from deployments.models import (
    MOST_BATCH,
    MOST_BUDGET_MS,
    MOST_CACHE_MB,
    MOST_CACHE_S,
    MOST_CALLS,
    MOST_TIMEOUT_S,
    Deployment,
    Endpoint,
    Provider,
)
from engine.formats.addresses import Address, forbidden

HEADER = r"^[a-z0-9][a-z0-9-]{0,63}$"
MODEL_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$"
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252})?")
# What clouds answer on these names hands out the machine's own credentials.
_METADATA_NAMES = frozenset({"metadata", "metadata.google.internal", "instance-data", "instance-data.ec2.internal"})

Calls = Annotated[int, Field(strict=True, le=MOST_CALLS)]


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Limits(Shape):
    """Of each deployment, in each server process: more is refused with 503."""

    concurrency: Annotated[Calls, Field(ge=1, description="Requests that run at once")]
    queue: Annotated[Calls, Field(ge=0, description="Requests that may wait")]


class Cache(Shape):
    """Equal requests are answered from memory."""

    mb: int = Field(strict=True, ge=1, le=MOST_CACHE_MB)
    ttl_s: int = Field(strict=True, ge=1, le=MOST_CACHE_S, description="Seconds that an answer is kept")


class Batching(Shape):
    """Requests already waiting may share a model run."""

    mode: Literal["auto", "off"]
    max: int | None = Field(default=None, strict=True, ge=2, le=MOST_BATCH, description="Largest run")
    budget_ms: float | None = Field(
        default=None, strict=True, ge=0.01, le=MOST_BUDGET_MS, allow_inf_nan=False, description="Longest shared run"
    )

    @model_validator(mode="after")
    def _whole(self) -> Batching:
        if self.mode == "off" and (self.max is not None or self.budget_ms is not None):
            text = _("While batching is off there is nothing to bound.")
            raise PydanticCustomError("batching_off", text)  # type: ignore[arg-type]
        return self


class EndpointSettings(Shape):
    """How an endpoint is served. What is absent stays as it is; null goes back to what the servers do by themselves."""

    sticky_header: str | None = Field(
        default=None, pattern=HEADER, description="Requests with one value of it go to one version"
    )
    limits: Limits | None = None
    cache: Cache | None = None
    batching: Batching | None = None


class EndpointChange(Shape):
    settings: EndpointSettings


def columns_of(settings: EndpointSettings) -> dict[str, Any]:
    """The columns of `Endpoint` that the given settings set."""
    columns: dict[str, Any] = {}
    given = settings.model_fields_set
    if "sticky_header" in given:
        columns["sticky_header"] = settings.sticky_header or ""
    if "limits" in given:
        limits = settings.limits
        columns["limit_concurrency"] = limits and limits.concurrency
        columns["limit_queue"] = limits and limits.queue
    if "cache" in given:
        columns["cache_mb"] = settings.cache and settings.cache.mb
        columns["cache_ttl_s"] = settings.cache and settings.cache.ttl_s
    if "batching" in given:
        batching = settings.batching
        columns["batching_mode"] = batching.mode if batching else ""
        columns["batching_max"] = batching and batching.max
        columns["batching_budget_ms"] = batching and batching.budget_ms
    return columns


def settings_of(endpoint: Endpoint) -> dict[str, Any]:
    """The settings of an endpoint as the API and the desired document have them; only what is set."""
    found: dict[str, Any] = {}
    if endpoint.sticky_header:
        found["sticky_header"] = endpoint.sticky_header
    if endpoint.limit_concurrency is not None:
        found["limits"] = {"concurrency": endpoint.limit_concurrency, "queue": endpoint.limit_queue}
    if endpoint.cache_mb is not None:
        found["cache"] = {"mb": endpoint.cache_mb, "ttl_s": endpoint.cache_ttl_s}
    if endpoint.batching_mode:
        bounds = {"max": endpoint.batching_max, "budget_ms": endpoint.batching_budget_ms}
        found["batching"] = {"mode": endpoint.batching_mode, **{k: v for k, v in bounds.items() if v is not None}}
    return found


def _address(host: str) -> Address | None:
    """The address a host is, also in the forms that only the system's resolver knows (0xA9FEA9FE, 2852039166)."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def upstream_url(url: str) -> str:
    """The address of another server as http(s)://host[:port]; PydanticCustomError says what is wrong with it.

    Names are not resolved here: the servers may see another network. They check what they connect to.
    """

    def wrong(text: str) -> PydanticCustomError:
        return PydanticCustomError("upstream_url", text)  # type: ignore[arg-type]

    if not url.isascii() or not url.isprintable() or "\\" in url or " " in url:
        raise wrong(_("An address has only plain letters, digits and signs."))
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise wrong(_("This is no address. It looks like http://host:port.")) from None
    if parts.scheme not in ("http", "https"):
        raise wrong(_("The address begins with http:// or https://."))
    if "@" in parts.netloc:
        raise wrong(_("The address must not hold a user or a password."))
    if parts.path not in ("", "/") or parts.query or parts.fragment or "?" in url or "#" in url:
        raise wrong(_("The address ends after the port: http://host:port."))
    name = (host or "").rstrip(".")
    address = _address(name)
    if not name or port == 0 or (address is None and not _HOST.fullmatch(name)):
        raise wrong(_("This is no address. It looks like http://host:port."))
    if name.lower() in _METADATA_NAMES or (address is not None and forbidden(address)):
        raise wrong(_("This address is not one of a model server: link-local and metadata addresses are refused."))
    shown = f"[{address}]" if isinstance(address, ipaddress.IPv6Address) else str(address or name.lower())
    return f"{parts.scheme}://{shown}" + (f":{port}" if port else "")


class Upstream(Shape):
    """Another server of the Open Inference Protocol that answers in the artifact's place."""

    url: Annotated[str, AfterValidator(upstream_url)] = Field(max_length=300, examples=["http://triton:8000"])
    model: str = Field(pattern=MODEL_NAME, description="What it calls the model")
    version: str | None = Field(default=None, pattern=MODEL_NAME)
    timeout_s: float = Field(default=10, strict=True, ge=0.01, le=MOST_TIMEOUT_S, allow_inf_nan=False)


class Runtime(Shape):
    """What runs a deployment. It is chosen when the deployment is placed and stays; another is a new deployment."""

    provider: Provider | None = None
    upstream: Upstream | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Runtime:
        if self.upstream is not None and self.provider not in (None, Provider.CPU):
            text = _("The other server chooses its own hardware: leave the provider out.")
            raise PydanticCustomError("provider", text)  # type: ignore[arg-type]
        return self


def runtime_of(provider: Any = None, upstream: Any = None, like: Deployment | None = None) -> dict[str, Any]:
    """{provider, upstream} as `Deployment` stores them. Without a provider it is that of `like`, the deployment
    to be replaced, unless that one is forwarded; `upstream` is {} for a deployment that the servers run."""
    chosen = Runtime.model_validate({"provider": provider or None, "upstream": upstream or None})
    if chosen.upstream is not None:
        return {"provider": str(Provider.CPU), "upstream": chosen.upstream.model_dump()}
    default = like.provider if like is not None and not like.upstream else Provider.CPU
    return {"provider": str(chosen.provider or default), "upstream": {}}


def told(deployment: Deployment) -> dict[str, Any]:
    """What the desired document and the audit log say of it: only what is not the default."""
    found: dict[str, Any] = {}
    if deployment.provider != Provider.CPU:
        found["provider"] = deployment.provider
    if deployment.upstream:
        found["upstream"] = deployment.upstream
    return found
