"""Network addresses that nothing of ours may be told to ask, by the control plane and by the servers alike."""

from __future__ import annotations

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Others than the link-local ones on which clouds hand out the machine's own credentials.
_METADATA = (ipaddress.ip_network("fd00:ec2::/32"), ipaddress.ip_network("100.100.100.200/32"))
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def forbidden(address: Address) -> bool:
    """Whether an address is link-local, where clouds keep their credentials, or the like; also in the forms in
    which IPv6 carries an IPv4 address."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return forbidden(inner)
    known = any(address in network for network in _METADATA if network.version == address.version)
    return known or address.is_link_local or address.is_multicast or address.is_unspecified
