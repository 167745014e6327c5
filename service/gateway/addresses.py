"""Where a connection comes from: whom an address stands for, and whom a proxy forwards."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

_V6_PREFIX = 64
"""Bits of an IPv6 address that say whose it is; the rest everyone chooses freely."""
MAX_HOPS = 20


@lru_cache(4096)
def place(address: str) -> str:
    """What stands for everyone at this address: itself, or the /64 network of an IPv6 address."""
    try:
        known = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(known, ipaddress.IPv6Address):
        if known.ipv4_mapped is not None:
            return str(known.ipv4_mapped)
        return str(ipaddress.ip_network((known, _V6_PREFIX), strict=False).network_address)
    return address


class Proxies:
    """The proxies that are believed when they say whom they forward."""

    def __init__(self, networks: Sequence[str]) -> None:
        """Of addresses or networks such as 10.0.0.0/8. Raises ValueError."""
        self._networks = [ipaddress.ip_network(network, strict=False) for network in networks]

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, address: str) -> bool:
        try:
            known = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(known, ipaddress.IPv6Address) and known.ipv4_mapped is not None:
            known = known.ipv4_mapped
        return any(known in network for network in self._networks)

    def forwarded(self, peer: str, header: str) -> str:
        """Who asks, when `peer` is one of the proxies and sent this `X-Forwarded-For`: the last address in it that is
        no proxy. Everything further left was written by that one, and may be invented."""
        found = peer
        for said in reversed(header.split(",")[-MAX_HOPS:]):
            try:
                found = str(ipaddress.ip_address(said.strip()))
            except ValueError:
                break
            if found not in self:
                break
        return found
