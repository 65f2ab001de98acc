"""Hypothesis strategies: random networks and FIBs, and packets drawn at match boundaries.

Everything comes from small pools, so that prefixes nest, chains and loops arise, and packets hit.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TypeVar

from hypothesis import strategies as st

from fsctl.model.addresses import BITS, IPV4, IPV6, Prefix, parse_mac
from fsctl.model.delegations import DROP, PUNT, Delegation, FiveTuple, Forward, Match, Verdict
from fsctl.model.fib import Change, Fib, change_of
from fsctl.model.ip_protocols import ICMPV6, NO_PROTO, TCP, UDP
from fsctl.model.martians import LOCAL_DESTINATIONS
from fsctl.model.network import Address, Bridge, Interface, Network, Router
from fsctl.model.packet import Packet
from fsctl.specification.walk import Learned

T = TypeVar("T")

HOST_MACS = tuple(parse_mac(f"02:00:00:00:0a:{n:02x}") for n in range(1, 5))
ROUTER_MACS = tuple(parse_mac(f"02:00:00:00:01:{n:02x}") for n in range(1, 25))
MULTICAST_MAC = 0x0100_5E00_0001
ICMP = 1
HOST_PORTS = (50, 51)
FIRST_LINK_PORT = 100

PREFIXES: Mapping[int, tuple[Prefix, ...]] = {
    IPV4: tuple(
        Prefix.parse(text)
        for text in (
            "10.0.0.0/8", "0.0.0.0/0", "10.1.0.0/16", "10.1.1.0/24", "10.1.1.128/25", "10.1.1.254/32", "10.1.1.255/32",
            "10.1.0.0/24", "10.0.0.0/9", "10.128.0.0/9", "0.0.0.0/1", "128.0.0.0/1", "224.0.0.0/3", "169.254.1.0/24",
        )
    ),
    IPV6: tuple(
        Prefix.parse(text)
        for text in (
            "fd00::/16", "::/0", "fd00:0:0:1::/64", "fd00:0:0:1::1/128", "fd00::/48", "::/1", "8000::/1",
            "fd00:0:0:1::/127", "fe80::/9", "fe80::/64",
        )
    ),
}  # fmt: skip
ADDRESSES = tuple(
    Address.parse(text)
    for text in (
        "10.1.1.254/24", "10.1.1.1/25", "10.1.0.1/31", "10.1.0.9/32", "10.200.0.1/8", "203.0.113.1/30",
        "fd00:0:0:1::1/64", "fd00::9/128", "2001:db8::2/127",
    )
)  # fmt: skip
OWN_SOURCES = tuple(value for a in ADDRESSES if a.version == IPV4 for value in a.own())
WIDE = tuple(Prefix.parse(text) for text in ("10.0.0.0/8", "0.0.0.0/0", "fd00::/16", "::/0"))
SOURCES: Mapping[int, tuple[int, ...]] = {
    IPV4: tuple(Prefix.parse(t).value for t in ("10.1.1.7", "10.1.0.9", "192.0.2.1")),
    IPV6: tuple(Prefix.parse(t).value for t in ("fd00:0:0:1::7", "fd00::9", "2001:db8::1")),
}
LOCAL_SOURCE = {IPV4: Prefix.parse("127.0.0.1").value, IPV6: Prefix.parse("fe80::1").value}
HOSTS: Mapping[int, tuple[int, ...]] = {
    IPV4: tuple(Prefix.parse(t).value for t in ("10.1.1.7", "10.1.1.254", "10.128.0.1")),
    IPV6: tuple(Prefix.parse(t).value for t in ("fd00:0:0:1::7", "fd00:0:0:1::1", "8000::1")),
}
LOCAL_HOST = {IPV4: Prefix.parse("224.0.0.5").value, IPV6: Prefix.parse("ff02::5").value}
PORTS = (1000, 2000)
RARE_PROTOCOLS = (NO_PROTO, 2, 50, 89, 132, 253)
"""Two of them are bypassed."""
MTUS = (1500, 1500, 1500, 1400, 1280, 9000)


Draw = Callable[[int], int]
"""Where choices come from: draw(n) is one of 0..n-1."""


@cache
def _below(n: int) -> st.SearchStrategy[int]:
    return st.integers(0, n - 1)


def of_hypothesis(draw: st.DrawFn) -> Draw:
    """Choices that Hypothesis can shrink."""
    return lambda n: draw(_below(n))


def of_seed(seed: int) -> Draw:
    """Choices that are cheap and independent of each other: many networks in little time."""
    return random.Random(seed).randrange


def pick(draw: Draw, options: Sequence[T]) -> T:
    """One of them; shrinks to the first."""
    return options[draw(len(options))]


def once_in(draw: Draw, n: int) -> bool:
    """True once in n times; shrinks to False."""
    return draw(n) == n - 1


def several(draw: Draw, options: Sequence[T], most: int) -> list[T]:
    """Up to `most` different ones."""
    return list(dict.fromkeys(pick(draw, options) for _ in range(draw(most + 1))))


def a_bridge(draw: Draw, name: str, names: Sequence[str], missing: Sequence[tuple[str, str]]) -> Bridge:
    """A bridge with patch ports to all others, but those `missing` (from, to)."""
    links = {peer: FIRST_LINK_PORT + n for n, peer in enumerate(names) if peer != name and (name, peer) not in missing}
    exempt = {HOST_PORTS[1]: "has a VLAN configuration"} if once_in(draw, 10) else {}
    learning = [port for port in (*HOST_PORTS, *range(1, 9)) if not once_in(draw, 6)]
    pinned = {HOST_MACS[0]: pick(draw, HOST_PORTS)} if once_in(draw, 4) else {}
    return Bridge(name, links, pick(draw, MTUS), exempt, dict.fromkeys(learning, 256), pinned)


def some_bridges(draw: Draw) -> dict[str, Bridge]:
    """One to five bridges; a patch port or two may be missing."""
    names = [f"br{n}" for n in range(1 + draw(5))]
    pairs = [(a, b) for a in names for b in names if a != b]
    missing = several(draw, pairs, 2) if pairs and once_in(draw, 10) else []
    return {name: a_bridge(draw, name, names, missing) for name in names}


def an_interface(draw: Draw, router: str, name: str, bridge: str, taken: set[int]) -> Interface:
    """One interface on `bridge`, where MACs in `taken` are in use; now and then it is down."""
    mac = pick(draw, [m for m in ROUTER_MACS[: len(taken) + 4] if m not in taken])
    taken.add(mac)
    up = not once_in(draw, 12)
    ofport = len(taken) if up or once_in(draw, 2) else None
    addresses = tuple(several(draw, ADDRESSES, 2))
    why_down = "" if up else "no link"
    return Interface(router, name, bridge, f"{router}-{name}", mac, pick(draw, MTUS), addresses, ofport, up, why_down)


def some_routers(draw: Draw, names: Sequence[str], in_line: bool) -> dict[str, Router]:
    """Up to five routers of one to four interfaces; MACs are unique on each bridge, not across bridges.

    `in_line`: each has its eth1 on the bridge where the next one has its eth0.
    """
    taken: dict[str, set[int]] = {name: set() for name in names}
    result = {}
    for n in range(pick(draw, (1, 2, 3, 3, 4, 5)) if in_line else draw(6)):
        places = [names[n % len(names)], names[(n + 1) % len(names)]] if in_line else [pick(draw, names)]
        places += [pick(draw, names) for _ in range(draw(5 - len(places)))]
        router = f"r{n}"
        own = {f"eth{k}": an_interface(draw, router, f"eth{k}", place, taken[place]) for k, place in enumerate(places)}
        result[router] = Router(router, own)
    return result


def a_source(draw: Draw, version: int) -> int:
    """A source address; now and then one that no router forwards, or that may be a router's own."""
    if once_in(draw, 15):
        return LOCAL_SOURCE[version]
    if version == IPV4 and once_in(draw, 12):
        return pick(draw, OWN_SOURCES)
    return pick(draw, SOURCES[version])


def a_connection(draw: Draw, version: int) -> FiveTuple:
    """An exact connection between hosts of the pools."""
    src = a_source(draw, version)
    dst = LOCAL_HOST[version] if once_in(draw, 15) else pick(draw, HOSTS[version])
    return FiveTuple(version, src, dst, pick(draw, (TCP, UDP)), pick(draw, PORTS), pick(draw, PORTS))


def macs_on(routers: Mapping[str, Router], bridge: str) -> list[int]:
    """The router MACs on a bridge."""
    return [i.mac for r in routers.values() for i in r.interfaces.values() if i.bridge == bridge]


def a_match(draw: Draw, router: Router, routers: Mapping[str, Router]) -> Match:
    """A match at one of the router's interfaces; eth_src, if any, is a host's or a router's that lives there."""
    in_port = pick(draw, sorted(router.interfaces))
    version = pick(draw, (IPV4, IPV4, IPV6))
    neighbours = (*HOST_MACS[:2], *macs_on(routers, router.interfaces[in_port].bridge))
    eth_src = pick(draw, neighbours) if once_in(draw, 4) else None
    if once_in(draw, 6):
        connection = a_connection(draw, version)
        return Match(in_port, Prefix.host(version, connection.dst), eth_src, connection)
    return Match(in_port, pick(draw, PREFIXES[version][: 4 if once_in(draw, 2) else None]), eth_src)


def a_verdict(draw: Draw, router: Router, routers: Mapping[str, Router]) -> Verdict:
    """Mostly forward, mostly to another router."""
    if once_in(draw, 3):
        return PUNT if once_in(draw, 2) else DROP
    out = pick(draw, sorted(router.interfaces))
    there = macs_on(routers, router.interfaces[out].bridge)
    return Forward(out, pick(draw, (HOST_MACS[0], HOST_MACS[1], *there, *there, *there)))


def a_delegation(draw: Draw, router: Router, routers: Mapping[str, Router]) -> Delegation:
    """Any delegation that the router may make."""
    return Delegation(a_match(draw, router, routers), a_verdict(draw, router, routers))


def a_line(draw: Draw, routers: Mapping[str, Router]) -> dict[str, list[Delegation]]:
    """Delegations that make one chain of all routers; the last hands over to a host, or to the first (a loop).

    Some know the router before them as a sender, some a connection.
    """
    wide = [pick(draw, WIDE), *several(draw, WIDE, 2)]
    firsts = [router.interfaces["eth0"] for router in routers.values()]
    result = {}
    for n, (name, router) in enumerate(routers.items()):
        then = firsts[(n + 1) % len(firsts)]
        is_last = n == len(firsts) - 1
        loops = then.bridge == router.interfaces["eth1"].bridge and once_in(draw, 3) if is_last else True
        mac = then.mac if loops else HOST_MACS[0]
        result[name] = [Delegation(Match("eth0", prefix), Forward("eth1", mac)) for prefix in wide]
        if once_in(draw, 4):
            before = routers[f"r{(n or len(routers)) - 1}"].interfaces["eth1"].mac
            result[name].append(Delegation(Match("eth0", wide[0], before), a_verdict(draw, router, routers)))
        if once_in(draw, 4):
            connection = a_connection(draw, wide[0].version)
            match = Match("eth0", Prefix.host(connection.version, connection.dst), None, connection)
            result[name].append(Delegation(match, a_verdict(draw, router, routers)))
    return result


def a_network(draw: Draw, max_delegations: int = 7) -> Network:
    """A network of routers with FIBs: no order at all, or a chain with anything on top of it."""
    bridges = some_bridges(draw)
    in_line = not once_in(draw, 3)
    routers = some_routers(draw, sorted(bridges), in_line)
    base = a_line(draw, routers) if in_line else {}
    fibs = {}
    for name, router in routers.items():
        count = draw(pick(draw, (3, max_delegations)) + 1)
        extra = [a_delegation(draw, router, routers) for _ in range(count)]
        fibs[name] = Fib(base.get(name, []) + extra)
    return Network(bridges, routers, fibs, pick(draw, (32, 32, 32, 32, 32, 3, 2, 1)))


def some_changes(draw: Draw, network: Network) -> list[tuple[str, Change]]:
    """(router, delegation set or removed), of one router or several; some are there before, some are not."""
    result: list[tuple[str, Change]] = []
    for _ in range(1 + draw(6) if network.routers else 0):
        router = network.routers[pick(draw, sorted(network.routers))]
        known = sorted((d.match for d in network.fibs[router.name]), key=str)
        match = pick(draw, known) if once_in(draw, 2) and known else a_match(draw, router, network.routers)
        verdict = None if once_in(draw, 3) else a_verdict(draw, router, network.routers)
        result.append((router.name, change_of(match, verdict)))
    return result


def edges(version: int, prefixes: Iterable[Prefix]) -> set[int]:
    """First and last address of every prefix, one below, one above; and of all there are."""
    found = {0, (1 << BITS[version]) - 1}
    for prefix in prefixes:
        if prefix.version == version:
            found |= {prefix.value - 1, prefix.value, prefix.last, prefix.last + 1}
    return {e for e in found if 0 <= e < 1 << BITS[version]}


def boundaries(network: Network, version: int) -> list[int]:
    """Destinations where something may change because of what routers delegated, or of their addresses."""
    own = {Prefix.host(*address) for addresses in network.own_addresses.values() for address in addresses}
    return sorted(edges(version, own | {d.match.dst for fib in network.fibs.values() for d in fib}))


def is_known(network: Network, interface: Interface, version: int, dst: int) -> bool:
    """Whether a router has delegated something about a destination at its interface."""
    if any(p.covers(version, dst) for p in LOCAL_DESTINATIONS):
        return False
    return any(d.match.in_port == interface.name and d.match.dst.covers(version, dst) for d in network.fibs[interface.router])


def known_connections(network: Network) -> list[FiveTuple]:
    """All connections that any router delegated."""
    found = {d.match.connection for fib in network.fibs.values() for d in fib}
    return sorted(c for c in found if c is not None)


def a_packet(draw: Draw, network: Network) -> Packet:
    """A packet at a boundary of what the network's routers delegated."""
    packet = a_frame(draw, network)
    if once_in(draw, 25):
        return replace(packet, version=None)
    target = network.by_mac.get((packet.bridge, packet.eth_dst))
    spoken = {d.match.dst.version for d in network.fibs[target.router]} if target else ()
    version = pick(draw, sorted(spoken) or (IPV4, IPV6))
    known = [c for c in known_connections(network) if c.version == version]
    if once_in(draw, 3) and known:
        c = pick(draw, known)
        exact = replace(packet, version=version, src=c.src, dst=c.dst, ip_proto=c.ip_proto, sport=c.sport, dport=c.dport)
        return near(draw, exact)
    places = boundaries(network, version)
    inner = places if target is None or once_in(draw, 4) else [e for e in places if is_known(network, target, version, e)]
    packet = replace(packet, version=version, src=a_source(draw, version), dst=pick(draw, inner or places))
    if version == IPV6 and once_in(draw, 8):
        return replace(packet, ip_proto=ICMPV6, icmpv6_type=pick(draw, (128, 132, 133, 134, 135, 136, 137, 138)))
    if once_in(draw, 10):
        return replace(packet, ip_proto=ICMP)
    proto, sport, dport = pick(draw, (TCP, UDP)), pick(draw, PORTS), pick(draw, PORTS)
    return near(draw, replace(packet, ip_proto=proto, sport=sport, dport=dport))


def a_frame(draw: Draw, network: Network) -> Packet:
    """All of a packet but its addresses and payload, mostly towards an interface that has delegations."""
    busy = [i for i in network.interfaces() if any(d.match.in_port == i.name for d in network.fibs[i.router])]
    target = pick(draw, busy[: 1 if once_in(draw, 3) else None]) if busy else None
    bridge = target.bridge if target else pick(draw, sorted(network.bridges))
    eth_dst = target.mac if target else HOST_MACS[0]
    if once_in(draw, 15):
        eth_dst = pick(draw, (*HOST_MACS, *ROUTER_MACS[:4], MULTICAST_MAC))
    in_port, eth_src = a_sender(draw, network, bridge)
    ttl = pick(draw, (64, 0, 1, 2, 3, 4, 5, 6, 255)) if once_in(draw, 2) else 64
    lengths = sorted({i.mtu + k for i in network.interfaces() for k in (0, 1)})
    lengths = [n for n in lengths if n <= network.bridges[bridge].max_mtu]
    length = pick(draw, lengths) if once_in(draw, 3) and lengths else 84
    return Packet(bridge, in_port, eth_src, eth_dst, ttl=ttl, length=length, vlan=once_in(draw, 30))


def a_sender(draw: Draw, network: Network, bridge: str) -> tuple[int, int]:
    """(in_port, eth_src): a host, a router from its own port, or somebody who says to be one."""
    eth_src, in_port = pick(draw, HOST_MACS), pick(draw, HOST_PORTS)
    owners = [i for i in network.interfaces() if i.bridge == bridge]
    if once_in(draw, 3) and owners:
        owner = pick(draw, owners)
        eth_src, in_port = owner.mac, owner.ofport or in_port
        if once_in(draw, 5):
            in_port = pick(draw, (*HOST_PORTS, *(i.ofport for i in owners if i.ofport is not None)))
    elif once_in(draw, 12):
        eth_src = pick(draw, (*ROUTER_MACS[:4], MULTICAST_MAC))
    return in_port, eth_src


def some_senders(draw: Draw, network: Network) -> list[Learned]:
    """Senders that the bridges have learned, some of them long gone from there, and one MAC at one place a bridge."""
    found = {}
    for bridge in sorted(network.bridges):
        exempt = network.bridges[bridge].exempt_ports
        ports = sorted(network.bridges[bridge].sender_ports)
        for mac in several(draw, (*HOST_MACS, *ROUTER_MACS[:3]), 3) if ports else ():
            port = pick(draw, ports)
            found[bridge, mac] = Learned(bridge, mac, None if port in exempt else port)
    return list(found.values())


def near(draw: Draw, packet: Packet) -> Packet:
    """The packet itself, mostly; or with another port; a later or the first fragment of it; or of a rare protocol."""
    kind = draw(13)
    if kind == 12:
        return replace(packet, ip_proto=pick(draw, RARE_PROTOCOLS))
    if kind == 11:
        return replace(packet, fragment=True)
    if kind == 10:
        return replace(packet, fragment=True, sport=0, dport=0)
    return replace(packet, dport=packet.dport + 1) if kind == 9 else packet


def a_case(draw: Draw, count: int = 12) -> tuple[Network, list[Packet]]:
    """A network and packets for it."""
    network = a_network(draw)
    return network, [a_packet(draw, network) for _ in range(1 + draw(count))]


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """`a_network`, for Hypothesis."""
    return a_network(of_hypothesis(draw))


@st.composite
def changes(draw: st.DrawFn, network: Network) -> list[tuple[str, Change]]:
    """`some_changes`, for Hypothesis."""
    return some_changes(of_hypothesis(draw), network)


@st.composite
def cases(draw: st.DrawFn, count: int = 12) -> tuple[Network, list[Packet]]:
    """`a_case`, for Hypothesis."""
    return a_case(of_hypothesis(draw), count)
