"""One packet, as a walk sees it."""

from __future__ import annotations

from dataclasses import dataclass

from fsctl.model.addresses import IPV4
from fsctl.model.ip_protocols import UDP


@dataclass(frozen=True, slots=True)
class Packet:
    """An Ethernet frame as it arrives on a bridge, as far as a walk looks at it.

    `version` is None for what is not IP (ARP, ...); `length` is the IP packet's length in bytes;
    `fragment` is true for any fragment; those after the first have no ports (0) and no icmpv6_type. `vlan`: it is
    tagged, with a VLAN ID that is neither 0 nor reserved.
    """

    bridge: str
    in_port: int
    eth_src: int
    eth_dst: int
    version: int | None = IPV4
    src: int = 0
    dst: int = 0
    ttl: int = 64
    length: int = 84
    ip_proto: int = UDP
    sport: int = 0
    dport: int = 0
    icmpv6_type: int | None = None
    fragment: bool = False
    vlan: bool = False
