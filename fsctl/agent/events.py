"""What the kernel tells, as values: links, addresses, routes, next-hop objects, neighbours, rules.

An `Event` says that a value is there (`gone` false) or no longer there. Addresses are integers next to
their IP version; a route's destination is a `fsctl.model.prefix_keys.Key`. Sources: rtnetlink(7), linux/rtnetlink.h,
linux/neighbour.h, linux/nexthop.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from fsctl.model.prefix_keys import Key

MAIN, LOCAL = 254, 255
"""Routing tables that the kernel's default rules look at, and that matter (RT_TABLE_MAIN, RT_TABLE_LOCAL).

Table 253 (default) is asked only where main has no answer; nothing is ever delegated from it.
"""

UNICAST, LOCAL_KINDS = "unicast", frozenset({"local", "broadcast", "anycast", "multicast"})


class Host(NamedTuple):
    """An address: IP version and value."""

    version: int
    value: int


class NeighKey(NamedTuple):
    """What identifies a neighbour: the interface and the address behind it."""

    link: int
    version: int
    value: int


@dataclass(frozen=True, slots=True)
class Link:
    """A network device. `up`: administratively up and with carrier; `master`: the device it is enslaved to.

    `kind` is the kernel's word for virtual devices ("vlan", "bridge", "veth", ...), empty for real ones.
    """

    index: int
    name: str
    mac: int | None = None
    up: bool = True
    mtu: int = 1500
    master: int = 0
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Addr:
    """An address of the router itself, with the length of its subnet."""

    index: int
    version: int
    value: int
    length: int


@dataclass(frozen=True, slots=True)
class Leg:
    """One way a route can take. `dead`: the kernel does not use it now; `encap`: it would be encapsulated."""

    index: int
    gateway: Host | None = None
    dead: bool = False
    encap: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """A route. With `nhid` its legs are those of that next-hop object, and `legs` is empty.

    `special`: why this route depends on more than the destination ("from", "realm"), or "".
    `mtu` is the route's own MTU metric in bytes, 0 without one. `expiring`: the kernel may stop to use it at any moment.
    `rest` stands for all else that IPv4 keeps routes of one slot apart by, however alike they lead; nothing is decided by it.
    """

    version: int
    key: Key
    table: int = MAIN
    tos: int = 0
    metric: int = 0
    kind: str = UNICAST
    legs: tuple[Leg, ...] = ()
    nhid: int = 0
    mtu: int = 0
    special: str = ""
    expiring: bool = False
    rest: int = 0

    @property
    def slot(self) -> tuple[int, int, int]:
        """Within one prefix: what the kernel keeps routes apart by (fib_find_alias; fib6_add_rt2node)."""
        return self.table, self.tos, self.metric

    @property
    def path(self) -> tuple[str, int, frozenset[tuple[int, Host | None]], int]:
        """Where it leads, and the rest that tells it from others; apart from states that come and go."""
        return self.kind, self.nhid, frozenset((leg.index, leg.gateway) for leg in self.legs), self.rest


@dataclass(frozen=True, slots=True)
class Nexthop:
    """A next-hop object (ip-nexthop(8)): one leg, or a group of other objects, or a blackhole."""

    id: int
    leg: Leg | None = None
    group: tuple[int, ...] = ()
    blackhole: bool = False


@dataclass(frozen=True, slots=True)
class Neigh:
    """A neighbour. `state` is the kernel's word: "reachable", "stale", "failed", ... (NUD_*)."""

    index: int
    version: int
    value: int
    mac: int | None = None
    state: str = "reachable"
    managed: bool = False

    @property
    def key(self) -> NeighKey:
        return NeighKey(self.index, self.version, self.value)


@dataclass(frozen=True, slots=True)
class Rule:
    """A routing policy rule. `plain`: it selects every packet and does nothing but look up `table`. Not followed, but dumped."""

    version: int
    priority: int
    table: int
    plain: bool = True


Value = Link | Addr | Route | Nexthop | Neigh


class Event(NamedTuple):
    """`replace`: the kernel put this route in the place of the first one of the same slot (NLM_F_REPLACE)."""

    value: Value
    gone: bool = False
    replace: bool = False
