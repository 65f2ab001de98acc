"""The values everything else speaks of: addresses, interfaces, routers, delegations, packets.

All are frozen, slotted, and valid once built: constructors raise `InvalidError` naming the field.
MAC addresses and IP addresses are plain integers inside fsctl; `schema` is the only place that
reads and writes their texts for the outside, with the helpers below.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from fsctl.errors import InvalidError

if TYPE_CHECKING:
    from fsctl.fib import Fib

IPV4, IPV6 = 4, 6
BITS = {IPV4: 32, IPV6: 128}
TCP, UDP, ICMPV6 = 6, 17, 58
NO_PROTO = 0
"""OVS does not decrement the TTL of IP protocol 0 (odp-util.c, commit_set_nw_action; seen on 3.1)."""
_CARRIERS = (4, TCP, UDP, 33, 41, 47, 50, 51, 115, 132, 136)
"""IPv4 and IPv6 in IP, TCP, UDP, DCCP, GRE, ESP, AH, L2TP, SCTP, UDP-Lite (IANA, Protocol Numbers)."""
BYPASSED_PROTOCOLS = {IPV4: (1, *_CARRIERS), IPV6: (*_CARRIERS, ICMPV6)}
"""The IP protocols that are bypassed: each that a sender uses costs a cached flow for each TTL (decision 20)."""
MULTICAST_BIT = 1 << 40
RESERVED_VID = 4095
"""The reserved VLAN ID (IEEE 802.1Q), the tag of fsctl's patch ports. Frames that carry it are dropped at every port."""
MIN_MTU, MAX_MTU = 68, 65535
_MAC = re.compile(r"(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}\Z")


def parse_mac(text: str, field_name: str = "mac") -> int:
    """A unicast MAC address `xx:xx:xx:xx:xx:xx` as an integer; raises InvalidError."""
    if not isinstance(text, str) or not _MAC.match(text):
        raise InvalidError("expected a MAC address like 02:00:00:00:00:01", field=field_name, value=text)
    mac = int(text.replace(":", ""), 16)
    if mac & MULTICAST_BIT or mac == 0:
        raise InvalidError("expected a unicast MAC address", field=field_name, value=text)
    return mac


def format_mac(mac: int) -> str:
    """`xx:xx:xx:xx:xx:xx`, lower case."""
    return mac.to_bytes(6, "big").hex(":")


def format_ip(version: int, value: int) -> str:
    """The usual text of an address given as an integer."""
    return str(ipaddress.IPv4Address(value) if version == IPV4 else ipaddress.IPv6Address(value))


@dataclass(frozen=True, slots=True, order=True)
class Prefix:
    """A destination: `value` is the network address as an integer, `length` the prefix length."""

    version: int
    value: int
    length: int

    def __post_init__(self) -> None:
        bits = BITS[self.version]
        if not 0 <= self.length <= bits or not 0 <= self.value < 1 << bits or self.value & self.host_mask:
            raise InvalidError("expected a network prefix without host bits", field="prefix", value=(self.value, self.length))

    @classmethod
    def parse(cls, text: str, version: int | None = None, field_name: str = "prefix") -> Prefix:
        """A host or CIDR prefix; host bits must be zero. Raises InvalidError."""
        try:
            if not isinstance(text, str):
                raise ValueError(text)
            net = ipaddress.ip_network(text)
        except ValueError as e:
            raise InvalidError("expected an address or a CIDR prefix without host bits", field=field_name, value=text) from e
        if version is not None and net.version != version:
            raise InvalidError(f"expected an IPv{version} prefix", field=field_name, value=text)
        return cls(net.version, int(net.network_address), net.prefixlen)

    @classmethod
    def host(cls, version: int, value: int) -> Prefix:
        """The prefix that holds one address."""
        return cls(version, value, BITS[version])

    @property
    def host_mask(self) -> int:
        return (1 << (BITS[self.version] - self.length)) - 1

    @property
    def last(self) -> int:
        """The last address inside."""
        return self.value | self.host_mask

    def covers(self, version: int, address: int) -> bool:
        return self.version == version and self.value <= address <= self.last

    def __str__(self) -> str:
        return f"{format_ip(self.version, self.value)}/{self.length}"


@dataclass(frozen=True, slots=True, order=True)
class FiveTuple:
    """An exact connection: source and destination host, ip_proto (6 or 17) and both ports."""

    version: int
    src: int
    dst: int
    ip_proto: int
    sport: int
    dport: int

    @property
    def fragments(self) -> Fragments:
        """What all fragments of its packets match."""
        return Fragments(self.version, self.src, self.dst, self.ip_proto)


@dataclass(frozen=True, slots=True, order=True)
class Fragments:
    """All fragments of one ip_proto from one host to another; only the first fragment of a datagram has ports."""

    version: int
    src: int
    dst: int
    ip_proto: int


@dataclass(frozen=True, slots=True)
class Match:
    """What a delegation is about, at the owner's ingress interface `in_port` (its name).

    `dst` is the destination; with `connection` it is that connection's destination host.
    """

    in_port: str
    dst: Prefix
    eth_src: int | None = None
    connection: FiveTuple | None = None


@dataclass(frozen=True, slots=True)
class Forward:
    """Rewrite eth_src to the MAC of the owner's interface `out`, eth_dst to `eth_dst`, leave by `out`."""

    out: str
    eth_dst: int


@dataclass(frozen=True, slots=True)
class Punt:
    """To the router: shadows a shorter prefix."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Gone."""


Verdict = Forward | Punt | Drop
PUNT, DROP = Punt(), Drop()


@dataclass(frozen=True, slots=True)
class Delegation:
    """One entry of the flow table, owned by one router (paper, section 3)."""

    match: Match
    verdict: Verdict


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


def _prefixes(*texts: str) -> tuple[Prefix, ...]:
    return tuple(Prefix.parse(t) for t in texts)


#: Destinations no router forwards, or that mean the link itself (RFC 1812 5.3.7 and 4.2.2.11, RFC 3927, RFC 4291).
LOCAL_DESTINATIONS = _prefixes(
    "0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32", "::/127", "fe80::/10", "ff00::/8"
)
#: Sources whose packets no router forwards (RFC 1812 5.3.7, RFC 4291 2.5.2, 2.5.3, 2.5.6, 2.7).
LOCAL_SOURCES = _prefixes("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32", "::/127", "fe80::/10", "ff00::/8")
#: ICMPv6 types of neighbour discovery (RFC 4861): RS, RA, NS, NA, Redirect.
ND_TYPES = (133, 134, 135, 136, 137)
