"""Who is where in the soak: hosts, routers, listeners, their ports, MACs and addresses. Values only.

    A, C, T - b0 - r1 - b1 - r2 - b2 - B, D, U        r3 between b0 and b2, r4 between b0 and b1
                         |                            b9: a bridge that fsctl does not know, with the listener X
                       E, M

T's port is an access port of VLAN 10, U's a trunk of VLAN 20 alone. Subnet n is 10.0.n.0/24 and fd00:0:0:n::/64.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

MANAGED = ("b0", "b1", "b2")
FOREIGN = "b9"
BRIDGES = (*MANAGED, FOREIGN)
SUBNET = {"b0": 1, "b1": 2, "b2": 3, "b9": 9}
NARROW_MTU = 1400


def net_of(version: int, bridge: str) -> IPv4Network | IPv6Network:
    """The subnet on a bridge."""
    n = SUBNET[bridge]
    return IPv4Network(f"10.0.{n}.0/24") if version == 4 else IPv6Network(f"fd00:0:0:{n}::/64")


@dataclass(frozen=True, slots=True)
class Port:
    """A station's interface. `name` is its port on the bridge, `device` its name inside the station."""

    station: str
    name: str
    device: str
    bridge: str
    mac: str
    number: int
    mtu: int = 1500
    vlan: tuple[str, ...] = ()
    """The port's VLAN columns in OVSDB (tag=10)."""

    def address(self, version: int) -> str:
        return str(net_of(version, self.bridge)[self.number])


def _host(name: str, bridge: str, number: int, *vlan: str) -> Port:
    return Port(name, f"v{name}", f"h{name}", bridge, f"02:00:00:00:00:{number:02x}", number, vlan=vlan)


HOSTS = {
    p.station: p
    for p in (
        _host("a", "b0", 10), _host("c", "b0", 12), _host("e", "b1", 14), _host("b", "b2", 11), _host("d", "b2", 13),
        _host("t", "b0", 20, "tag=10"), _host("u", "b2", 21, "trunks=20", "vlan_mode=trunk"), _host("x", FOREIGN, 22),
        _host("m", "b1", 23),
    )
}  # fmt: skip

SINK = "m"
"""Where mirrors send their copies: nobody sends anything else there."""


@dataclass(frozen=True, slots=True)
class RouterPlan:
    name: str
    ports: tuple[Port, ...]
    routes: tuple[tuple[str, str, str], ...] = field(default=())
    """(bridge whose subnet, next router, bridge of that next hop)."""


def _router(name: str, bridges: tuple[str, str], *routes: tuple[str, str, str], mtu: int = 1500) -> RouterPlan:
    n = int(name[1:])
    ports = tuple(
        Port(name, f"{name}.{i}", f"eth{i}", bridge, f"02:00:00:00:0{n}:0{i + 1}", n, mtu if i else 1500)
        for i, bridge in enumerate(bridges)
    )
    return RouterPlan(name, ports, routes)


ROUTERS = {
    r.name: r
    for r in (
        _router("r1", ("b0", "b1"), ("b2", "r2", "b1")),
        _router("r2", ("b1", "b2"), ("b0", "r1", "b1"), mtu=NARROW_MTU),
        _router("r3", ("b0", "b2"), ("b1", "r1", "b0")),
        _router("r4", ("b0", "b1"), ("b2", "r2", "b1")),
    )
}
LEASED = "r4"
"""The router whose delegations always belong to a session with a short lease."""

PORTS = {p.name: p for p in (*HOSTS.values(), *(p for r in ROUTERS.values() for p in r.ports))}
BY_MAC = {p.mac: p for p in PORTS.values()}


def port_on(station: str, bridge: str) -> Port:
    """A station's port on a bridge."""
    return next(p for p in PORTS.values() if p.station == station and p.bridge == bridge)


def neighbours(bridge: str) -> list[Port]:
    """The stations on a bridge that have an untagged port there: all that a router there can name as next hop."""
    return [p for p in PORTS.values() if p.bridge == bridge and not p.vlan and p.station != SINK]
