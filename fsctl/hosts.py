"""Hosts that nothing makes speak: their bridge may forget where they are. Pure."""

from __future__ import annotations

from fsctl.model import Network, format_mac


def unheard_next_hops(network: Network, router: str) -> list[str]:
    """MAC addresses to which a router forwards, and which are neither another router's nor known to OVSDB (attached-mac).

    Routed, the router's own ARP makes such a host speak, so that its bridge knows where it is; fsctl-agent does the same.
    """
    interfaces, fib = network.routers[router].interfaces, network.fibs[router]
    used = {number for part in fib.parts.values() for number in {*part.prefixes.values(), *part.connections.values()}}
    found = set()
    for number in used & fib.nexthops.keys():
        hop = fib.nexthops[number]
        bridge = interfaces[hop.out].bridge
        if (bridge, hop.eth_dst) not in network.by_mac and hop.eth_dst not in network.bridges[bridge].pinned:
            found.add(hop.eth_dst)
    return [format_mac(mac) for mac in sorted(found)]
