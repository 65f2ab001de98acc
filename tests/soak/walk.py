"""What routers do with a packet, naively, from their kernels' tables: the soak's own oracle, and what they delegate.

Shares nothing with fsctl: routes are plain lists as `ip -j route` shows them, every question walks all of them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from tests.soak.plan import BY_MAC, HOSTS, LEASED, ROUTERS, Port
from tests.soak.wire import Probe
from tests.soak.world import Routes, World

PUNTED = "100"
"""The routing protocol number of routes that the router does not delegate as `forward` or `drop`, but as `punt`."""
Flow = dict[str, Any]


@dataclass(frozen=True)
class Tables:
    """One router's kernel."""

    name: str
    routes: Routes
    own: frozenset[str]
    neighbours: dict[tuple[str, str], str]

    @classmethod
    def read(cls, world: World, router: str) -> Tables:
        return cls(router, world.routes(router), frozenset(world.addresses(router)), world.neighbours(router))

    def device(self, name: str) -> Port:
        return next(p for p in ROUTERS[self.name].ports if p.device == name)

    def lookup(self, address: str) -> dict[str, Any] | None:
        """The route that the kernel takes: longest prefix, then lowest metric."""
        ip = ipaddress.ip_address(address)
        there = [r for r in self.routes if _net(r).version == ip.version and ip in _net(r)]
        return min(there, key=lambda r: (-_net(r).prefixlen, r.get("metric", 0)), default=None)

    def next_hop(self, route: dict[str, Any], address: str) -> str | None:
        """The MAC address that a packet leaves with."""
        return self.neighbours.get((route["dev"], route.get("gateway", address)))


def _net(route: dict[str, Any]) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    dst = route["dst"]
    if dst == "default":
        return ipaddress.ip_network("::/0" if route.get("pref") else "0.0.0.0/0")
    return ipaddress.ip_network(dst)


def kind_of(route: dict[str, Any]) -> str:
    return str(route.get("type", "unicast"))


@dataclass
class Outcome:
    """`frames` are all that are on a wire on the way: (bridge, bytes). `receiver` gets the last; None: no host does.

    `routers` are the router ports that it comes to; `asked`: a router answers or takes the packet itself; `dropped`: it
    says nothing. `left`: a router on the way has not delegated what it does.
    """

    frames: list[tuple[str, bytes]] = field(default_factory=list)
    receiver: str | None = None
    routers: list[str] = field(default_factory=list)
    asked: bool = False
    dropped: bool = False
    left: bool = False


def walk(tables: dict[str, Tables], probe: Probe) -> Outcome:
    """Follow a probe; a tagged one is not followed, since no router has a VLAN."""
    at, now, outcome = HOSTS[probe.sender].bridge, probe, Outcome()
    while True:
        outcome.frames.append((at, now.frame()))
        port = BY_MAC.get(now.eth_dst)
        if port is None or port.bridge != at or port.vlan or probe.vlan is not None:
            return outcome
        if port.station in HOSTS:
            outcome.receiver = port.station
            return outcome
        outcome.routers.append(port.name)
        step = _forward(tables[port.station], now, outcome)
        if step is None:
            return outcome
        at, now = step


def _forward(router: Tables, probe: Probe, outcome: Outcome) -> tuple[str, Probe] | None:
    """The bridge and the frame that the router sends on; None if it does not."""
    is_v4 = "." in probe.dst
    if is_v4 and probe.src in router.own:
        outcome.dropped = True  # a martian source (RFC 1812, 5.3.7)
        return None
    route = None if probe.dst in router.own else router.lookup(probe.dst)
    outcome.left |= router.name == LEASED or (route is not None and str(route.get("protocol")) == PUNTED)
    if route is not None and kind_of(route) == "blackhole":
        outcome.dropped = True
        return None
    outcome.asked = True
    if route is None or kind_of(route) != "unicast" or probe.ttl <= 1:
        return None
    out, mac = router.device(route["dev"]), router.next_hop(route, probe.dst)
    if mac is None or probe.size > out.mtu:
        return None
    outcome.asked = False
    outcome.left |= not is_v4 and outcome.routers[-1] == out.name
    return out.bridge, replace(probe, eth_src=out.mac, eth_dst=mac, ttl=probe.ttl - 1)


# --- delegations ------------------------------------------------------------------------------------------


def delegations(router: Tables) -> list[Flow]:
    """What the router delegates: the same as its kernel does, in fsctl's words."""
    found: dict[tuple[str, str], Flow] = {}
    for ingress in ROUTERS[router.name].ports:
        for route in router.routes:
            for flow in _of_route(router, ingress, route):
                found[ingress.name, flow["match"].get("ipv4_dst") or flow["match"]["ipv6_dst"]] = flow
    return list(found.values())


def _of_route(router: Tables, ingress: Port, route: dict[str, Any]) -> Iterator[Flow]:
    net = _net(route)
    if net.is_link_local or net.is_multicast:
        return
    dst = str(net)
    if kind_of(route) != "unicast" or str(route.get("protocol")) == PUNTED:
        yield _flow(ingress, dst, "drop" if kind_of(route) == "blackhole" and str(route.get("protocol")) != PUNTED else "punt")
        return
    out = router.device(route["dev"])
    if "gateway" in route:
        yield _forwarding(ingress, dst, out, router.next_hop(route, ""))
        return
    yield _flow(ingress, dst, "punt")
    for (device, address), mac in router.neighbours.items():
        if device == out.device and ipaddress.ip_address(address) in net:
            yield _forwarding(ingress, f"{address}/{net.max_prefixlen}", out, mac)


def _forwarding(ingress: Port, dst: str, out: Port, mac: str | None) -> Flow:
    # Out by the interface that it came in by: for IPv6 the router sends a redirect too, which a bypass does not.
    if mac is None or (out is ingress and ":" in dst):
        return _flow(ingress, dst, "punt")
    return _flow(ingress, dst, "forward") | {"set": {"eth_dst": mac}, "out": out.device}


def _flow(ingress: Port, dst: str, action: str) -> Flow:
    return {"match": {"in": ingress.device, f"ipv{6 if ':' in dst else 4}_dst": dst}, "action": action}
