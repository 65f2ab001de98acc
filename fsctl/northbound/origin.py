"""Who it is that connects, as far as limits are concerned."""

from __future__ import annotations

import ipaddress
from typing import Any


def origin_of(address: Any) -> str:
    """Who it is that connects; "" for this host."""
    try:
        found = ipaddress.ip_address(address[0].partition("%")[0])
    except (ValueError, IndexError, TypeError, AttributeError):
        return str(address) if address and address[0] != "" else ""
    found = getattr(found, "ipv4_mapped", None) or found
    if found.is_loopback:
        return ""
    is_one = found.version == 4 or found.is_link_local  # all guests of a bridge share fe80::/64
    return str(found) if is_one else str(ipaddress.ip_network((found, 64), strict=False))
