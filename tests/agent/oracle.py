"""What a kernel would do with a packet, written naively from ip-route(8) and fib_rules: the fold's counterpart.

Shares no code with the fold: routes are a plain list, every question walks all of it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field

from fsctl.agent.events import Addr, Leg, Link, Neigh, Nexthop, Route
from fsctl.model.delegations import Delegation, Forward

Answer = tuple[str, int] | None
"""(fsctl's name of the egress interface, MAC address); None: only the router itself can tell."""


def network_of(version: int, key: int) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return (ipaddress.IPv4Network if version == 4 else ipaddress.IPv6Network)((key >> 8, key & 0xFF))


@dataclass
class Kernel:
    known: dict[int, str]
    links: dict[int, Link] = field(default_factory=dict)
    addrs: set[Addr] = field(default_factory=set)
    routes: list[Route] = field(default_factory=list)
    nexthops: dict[int, Nexthop] = field(default_factory=dict)
    neighs: dict[tuple[int, int, int], Neigh] = field(default_factory=dict)

    def answer(self, version: int, value: int) -> Answer:
        """Where a packet to this address goes."""
        address = (ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address)(value)
        if any((a.version, a.value) == (version, value) for a in self.addrs):
            return None
        there = [(network_of(r.version, r.key), r) for r in self.routes if r.version == version]
        there = [(net, r) for net, r in there if address in net]
        if not there or any(r.table == 255 for _, r in there):
            return None
        longest = max(net.prefixlen for net, _ in there)
        routes = [r for net, r in there if net.prefixlen == longest]
        if any(r.tos or r.special for r in routes):
            return None
        lowest = min(r.metric for r in routes)
        ways = [r for r in routes if r.metric == lowest]
        if version == 6 and any(len(r.legs) > 1 for r in ways):
            return None  # a dump tells the metrics of one leg only
        answers = {a for r in ways for a in self._ways(r, version, value)}
        on_link = {leg.gateway is None for r in ways for leg in (self._object(r.nhid) if r.nhid else r.legs) if leg}
        if len(on_link) > 1 and longest < address.max_prefixlen:
            return None  # via a gateway or directly: the same next hop for that one destination only
        return answers.pop() if len(answers) == 1 else None

    def _ways(self, route: Route, version: int, value: int) -> Iterable[Answer]:
        if route.kind != "unicast":
            return [None]
        legs = self._object(route.nhid) if route.nhid else list(route.legs)
        return [self._leg(leg, route, version, value) for leg in legs] or [None]

    def _object(self, number: int) -> list[Leg | None]:
        nexthop = self.nexthops.get(number)
        if nexthop is None or nexthop.blackhole:
            return [None]
        if nexthop.leg:
            return [nexthop.leg]
        return [leg for member in nexthop.group for leg in self._object(member)]

    def _leg(self, leg: Leg | None, route: Route, version: int, value: int) -> Answer:
        if leg is None or leg.encap or leg.dead:
            return None
        link = self.links.get(leg.index)
        if link is None or not link.up or link.master or link.mac not in self.known:
            return None
        if route.mtu not in (0, link.mtu):
            return None
        neigh = self.neighs.get((leg.index, *(leg.gateway or (version, value))))
        if neigh is None or neigh.mac is None or neigh.state in ("failed", "incomplete", "none", "noarp"):
            return None
        return self.known[link.mac], neigh.mac


def lookup(delegations: Iterable[Delegation], ingress: str, version: int, value: int) -> Answer:
    """The longest delegation that covers the address; no match and punt are both the router's business."""
    best: Delegation | None = None
    for d in delegations:
        covers = d.match.in_port == ingress and d.match.dst.covers(version, value)
        if covers and (best is None or d.match.dst.length > best.match.dst.length):
            best = d
    return (best.verdict.out, best.verdict.eth_dst) if best and isinstance(best.verdict, Forward) else None
