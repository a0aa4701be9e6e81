"""Which addresses may be connected to in a deployment's name."""

from __future__ import annotations

import ipaddress

from engine.formats.addresses import forbidden


class UpstreamError(Exception):
    """The upstream cannot be used; the text is for the person who deployed it."""


def checked(address: str) -> str:
    """An address as it may be connected to. Raises UpstreamError for one that must never be asked."""
    plain = address.partition("%")[0]
    if forbidden(ipaddress.ip_address(plain)):
        raise UpstreamError(f"the upstream's address {plain} must not be asked")
    return address
