"""Shorthand for kernel events: a router with three interfaces, of which fsctl knows eth0 and eth1."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from fsctl.agent.decide import Policy
from fsctl.agent.events import LOCAL, MAIN, Addr, Event, Host, Leg, Link, Neigh, Route
from fsctl.agent.fib import Fold
from fsctl.agent.safety import Judgement
from fsctl.model.addresses import Prefix, format_mac, parse_mac
from fsctl.model.delegations import Delegation, Forward
from fsctl.model.prefix_keys import key_of

ETH0, ETH1, ETH2 = 2, 3, 4
MACS = {ETH0: parse_mac("02:00:00:00:01:00"), ETH1: parse_mac("02:00:00:00:01:01"), ETH2: parse_mac("02:00:00:00:01:02")}
KNOWN = {MACS[ETH0]: "eth0", MACS[ETH1]: "eth1"}
NAMES = {ETH0: "eth0", ETH1: "eth1"}
B, C = "02:00:00:00:00:0b", "02:00:00:00:00:0c"


def host(text: str) -> Host:
    ip = ipaddress.ip_address(text)
    return Host(ip.version, int(ip))


def link(index: int, **changes: object) -> Link:
    return Link(index, f"ens{index}", MACS[index], **changes)  # type: ignore[arg-type]


def leg(index: int, via: str | None = None, **flags: bool) -> Leg:
    return Leg(index, host(via) if via else None, **flags)


def route(dst: str, *legs: Leg, **attrs: object) -> Route:
    prefix = Prefix.parse(dst)
    return Route(prefix.version, key_of(prefix), legs=legs, **attrs)  # type: ignore[arg-type]


def local(address: str, kind: str = "local") -> Route:
    return route(address, Leg(1), table=LOCAL, kind=kind)


def neigh(index: int, address: str, mac: str | None = B, state: str = "reachable") -> Neigh:
    version, value = host(address)
    return Neigh(index, version, value, parse_mac(mac) if mac else None, state)


def addr(index: int, text: str) -> Addr:
    interface = ipaddress.ip_interface(text)
    return Addr(index, interface.version, int(interface), interface.network.prefixlen)


def addressed(index: int, text: str) -> list[Event]:
    """What the kernel says when an interface gets an address: address, local, broadcast and connected routes."""
    interface = ipaddress.ip_interface(text)
    events = [Event(addr(index, text)), Event(local(str(interface.ip))), Event(route(str(interface.network), leg(index)))]
    if interface.version == 4:
        events.append(Event(local(str(interface.network.broadcast_address), "broadcast")))
    return events


def base() -> list[Event]:
    """Three links up; 10.0.0.0/24 on eth0, 10.0.1.0/24 and fd01::/64 on eth1, 10.0.2.0/24 on what fsctl does not know."""
    return [
        *(Event(link(i)) for i in MACS),
        *addressed(ETH0, "10.0.0.1/24"),
        *addressed(ETH1, "10.0.1.1/24"),
        *addressed(ETH1, "fd01::1/64"),
        *addressed(ETH2, "10.0.2.1/24"),
    ]


def folded(events: Iterable[Event], policy: Policy | None = None) -> Fold:
    fold = Fold(KNOWN, policy)
    for event in events:
        fold.apply(event)
    fold.settle()
    return fold


def texts(delegations: Iterable[Delegation], ingress: str = "eth0") -> dict[str, str]:
    """Destination -> "eth1 02:00:00:00:00:0b" or "Punt", for packets that come in by `ingress`."""
    found = {}
    for d in delegations:
        if d.match.in_port == ingress:
            v = d.verdict
            found[str(d.match.dst)] = f"{v.out} {format_mac(v.eth_dst)}" if isinstance(v, Forward) else type(v).__name__
    return found


def table(*events: Event, ingress: str = "eth0", policy: Policy | None = None) -> dict[str, str]:
    """The FIB of the base router after these events."""
    return texts(folded([*base(), *events], policy).delegations(), ingress)


def names(judgement: Judgement) -> set[tuple[str, int, str, str]]:
    """(name, IP version, interface, direction), without the IPv6 redirects that no sysctl turns off."""
    return {(r.name, r.version, r.interface, r.direction) for r in judgement.refused if r.name != "redirects"}


__all__ = ["LOCAL", "MAIN"]
