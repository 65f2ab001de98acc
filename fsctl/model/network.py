"""Interfaces, routers and bridges, and the network that they form."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from fsctl.errors import InvalidError
from fsctl.model.addresses import BITS, IPV4, format_ip
from fsctl.model.fib import Fib


@dataclass(frozen=True, slots=True)
class Address:
    """An interface address with the length of its subnet (10.0.1.254/24)."""

    version: int
    value: int
    length: int

    @classmethod
    def parse(cls, text: str, field_name: str = "addresses") -> Address:
        """`address/length`; raises InvalidError."""
        try:
            if not isinstance(text, str) or "/" not in text:
                raise ValueError(text)
            iface = ipaddress.ip_interface(text)
        except ValueError as e:
            raise InvalidError("expected address/length, like 10.0.1.254/24", field=field_name, value=text) from e
        return cls(iface.version, int(iface), iface.network.prefixlen)

    def own(self) -> Iterator[int]:
        """The destinations that a router treats as its own because of this address.

        The address itself; for IPv4 the subnet's broadcast and network addresses (RFC 1812, 4.2.3.1);
        for IPv6 the subnet-router anycast address (RFC 4291, 2.6.1).
        """
        yield self.value
        host_mask = (1 << (BITS[self.version] - self.length)) - 1
        if host_mask > 1:
            yield self.value & ~host_mask
            if self.version == IPV4:
                yield self.value | host_mask

    def __str__(self) -> str:
        return f"{format_ip(self.version, self.value)}/{self.length}"


@dataclass(frozen=True, slots=True)
class Interface:
    """A router's interface: where it is plugged in, and whether packets can pass there now.

    `ofport` is the OpenFlow number of its port on `bridge`, None while the port is missing;
    `up` is false while the port is missing, administratively down or without link, or may not be
    used (`why_down` says what is wrong). `mtu` is the largest IP packet in bytes.
    """

    router: str
    name: str
    bridge: str
    port: str
    mac: int
    mtu: int = 1500
    addresses: tuple[Address, ...] = ()
    ofport: int | None = None
    up: bool = True
    why_down: str = ""


@dataclass(frozen=True, slots=True)
class Router:
    """A router guest. `max_flows` bounds its FIB, `max_rules` what it costs on a bridge (`quota`, `cuts`)."""

    name: str
    interfaces: Mapping[str, Interface]
    max_flows: int = 200_000
    max_rules: int = 400_000


@dataclass(frozen=True, slots=True)
class Bridge:
    """An OVS bridge: one L2 segment.

    `links` maps a peer bridge to the OpenFlow number of the patch port towards it. `max_mtu` is the
    MTU of the widest port: no longer IP packet can arrive. `exempt_ports` are the OpenFlow numbers
    of ports where nothing that arrives is bypassed, with the reason (a VLAN configuration, an inactive
    bond member, a protected port). `sender_ports` are those at which senders are learned, with the most
    MAC addresses that fsctl learns there; `mac_age_s` is how long it remembers them after their last packet
    (the bridge's mac-aging-time). Of an exempt port among them it only remembers that NORMAL delivers there. `port_ids`
    tells ports apart that have one OpenFlow number one after the other. `pinned` says where a MAC address is that
    OVSDB knows (attached-mac).

    What the switch has confirmed: `arrivals` are the patch ports from which it lets frames in, `delivers` the
    (MAC, port) of the router interfaces as whose it delivers them. None: all that is wanted counts as confirmed.
    """

    name: str
    links: Mapping[str, int] = field(default_factory=dict)
    max_mtu: int = 1500
    exempt_ports: Mapping[int, str] = field(default_factory=dict)
    sender_ports: Mapping[int, int] = field(default_factory=dict)
    pinned: Mapping[int, int] = field(default_factory=dict)
    mac_age_s: int = 300
    port_ids: Mapping[int, int] = field(default_factory=dict)
    arrivals: frozenset[int] | None = None
    delivers: frozenset[tuple[int, int]] | None = None

    def takes(self, peer: str, mac: int, ofport: int | None) -> bool:
        """Whether a frame that bridge `peer` sends with this router interface's MAC is delivered here."""
        link = self.links.get(peer)
        return (
            link is not None
            and (self.arrivals is None or link in self.arrivals)
            and (self.delivers is None or (mac, ofport) in self.delivers)
        )


@dataclass(frozen=True)
class Network:
    """Everything that a walk depends on. `fibs` has an entry for every router.

    `cuts`: the (router, ingress interface, IP version) whose delegations for prefixes lead no walk into another router. They
    change with the FIBs (see `cuts`).
    """

    bridges: Mapping[str, Bridge]
    routers: Mapping[str, Router]
    fibs: Mapping[str, Fib]
    max_hops: int = 32
    cuts: set[tuple[str, str, int]] = field(default_factory=set, compare=False)

    def interfaces(self) -> Iterator[Interface]:
        for router in self.routers.values():
            yield from router.interfaces.values()

    @cached_property
    def by_mac(self) -> Mapping[tuple[str, int], Interface]:
        """(bridge, MAC) -> the router interface that owns it there."""
        return {(i.bridge, i.mac): i for i in self.interfaces()}

    @cached_property
    def own_addresses(self) -> Mapping[str, frozenset[tuple[int, int]]]:
        """Router -> the (version, address) pairs that are its own."""
        return {
            name: frozenset((a.version, value) for i in router.interfaces.values() for a in i.addresses for value in a.own())
            for name, router in self.routers.items()
        }

    @cached_property
    def least_max_rules(self) -> int:
        """The smallest `max_rules` of all routers."""
        return min((router.max_rules for router in self.routers.values()), default=0)

    @cached_property
    def joined(self) -> Mapping[str, frozenset[str]]:
        """Bridge -> all bridges that can be reached from it through routers, itself included."""
        sets = {name: {name} for name in self.bridges}
        for router in self.routers.values():
            places = [sets[i.bridge] for i in router.interfaces.values()]
            union = set().union(*places)
            sets.update(dict.fromkeys(union, union))
        frozen = {id(joined): frozenset(joined) for joined in sets.values()}
        return {name: frozen[id(joined)] for name, joined in sets.items()}

    @cached_property
    def own_sources(self) -> Mapping[str, frozenset[int]]:
        """Bridge -> the own IPv4 addresses of all routers that a packet can reach from there.

        A router drops a packet to be forwarded if its source is an address of the router (RFC 1812, 5.3.7: martian).
        Linux does not do so for IPv6.
        """
        of_joined: dict[frozenset[str], set[int]] = {joined: set() for joined in self.joined.values()}
        for name, router in self.routers.items():
            own = {value for version, value in self.own_addresses[name] if version == IPV4}
            for interface in router.interfaces.values():
                of_joined[self.joined[interface.bridge]] |= own
        return {name: frozenset(of_joined[joined]) for name, joined in self.joined.items()}
