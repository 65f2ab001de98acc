"""Hosts and next hops that a router's delegations may get wrong: what is allowed, and hardly meant. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from fsctl.model.addresses import BITS, format_mac
from fsctl.model.delegations import Forward
from fsctl.model.fib import Change
from fsctl.model.network import Network, Router
from fsctl.model.prefix_keys import Key, prefix_of

MAX_NAMED = 5
"""Delegations, or next hops, that a warning names."""
_UNHEARD = "no agent: one-way traffic to a host that never sends is flooded once its bridge has forgotten it (docs/limits.md)"
_NO_ADDRESSES = (
    "fsctl knows no address of this router: packets to the router itself are bypassed where a delegation covers them "
    "(addresses: in the configuration, or PATCH .../interfaces/{i})"
)


def warnings_of(network: Network, router: str, *, has_agent: bool) -> list[str]:
    """What a router's delegations may get wrong; an agent makes its next hops speak."""
    unheard = [] if has_agent else unheard_next_hops(network, router)
    warnings = [f"{_UNHEARD}: {', '.join(unheard[:MAX_NAMED])}"] if unheard else []
    return warnings + ([_NO_ADDRESSES] if without_addresses(network, router) else [])


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


def on_their_own_link(router: Router, changes: Iterable[Change]) -> list[str]:
    """A warning about forwards that send a part of the egress interface's own subnet, more than one host, to one MAC address.

    Each host of a connected subnet has a MAC address of its own. (A route over a gateway may lie within it, so it is allowed.)
    """
    subnets: dict[tuple[str, int], list[tuple[int, int, int]]] = {}
    for interface in router.interfaces.values():
        for a in interface.addresses:
            rest = (1 << (BITS[a.version] - a.length)) - 1
            subnets.setdefault((interface.name, a.version), []).append((a.value & ~rest, a.value | rest, a.length))
    found: list[str] = []
    for (_, version, _), key, verdict in changes:
        if not isinstance(verdict, Forward) or not isinstance(key, Key) or key & 0xFF == BITS[version]:
            continue
        for first, last, length in subnets.get((verdict.out, version), ()):
            if first <= key >> 8 <= last and key & 0xFF >= length:
                found.append(f"{prefix_of(version, key)} out of {verdict.out}")
    if not found:
        return []
    more = f" and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else ""
    return [
        f"in the subnet of its own egress interface, and sent to one MAC address: {', '.join(found[:MAX_NAMED])}{more}; the "
        "other hosts there would be cut off: delegate hosts (/32, /128)"
    ]


def without_addresses(network: Network, router: str) -> bool:
    """Whether a router delegates although fsctl knows none of its addresses: packets to these would pass it by."""
    return len(network.fibs[router]) > 0 and not network.own_addresses[router]
