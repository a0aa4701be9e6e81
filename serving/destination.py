"""Which addresses may be connected to in a deployment's name."""

from __future__ import annotations

import ipaddress

# Others than the link-local ones on which clouds hand out the machine's own credentials.
_METADATA = (ipaddress.ip_network("fd00:ec2::/32"), ipaddress.ip_network("100.100.100.200/32"))
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class UpstreamError(Exception):
    """The upstream cannot be used; the text is for the person who deployed it."""


def checked(address: str) -> str:
    """An address as it may be connected to. Raises UpstreamError for one that must never be asked: link-local and
    the like, where clouds keep their credentials."""
    plain = address.partition("%")[0]
    found = ipaddress.ip_address(plain)
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None or found.sixtofour is not None:
            found = found.ipv4_mapped or found.sixtofour or found
        elif found in _NAT64:
            found = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
    forbidden = found.is_link_local or found.is_multicast or found.is_unspecified
    if forbidden or any(found in network for network in _METADATA if network.version == found.version):
        raise UpstreamError(f"the upstream's address {plain} must not be asked")
    return address
