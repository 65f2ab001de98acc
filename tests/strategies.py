"""Hypothesis strategies: random networks and FIBs, and packets drawn at match boundaries.

Everything comes from small pools, so that prefixes nest, chains and loops arise, and packets hit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypothesis import strategies as st

from fsctl.fib import Change, Fib, change_of
from fsctl.model import (
    BITS,
    DROP,
    ICMPV6,
    IPV4,
    IPV6,
    PUNT,
    TCP,
    UDP,
    Address,
    Bridge,
    Delegation,
    FiveTuple,
    Forward,
    Interface,
    Match,
    Network,
    Packet,
    Prefix,
    Router,
    Verdict,
    parse_mac,
)

HOST_MACS = tuple(parse_mac(f"02:00:00:00:0a:{n:02x}") for n in range(1, 5))
ROUTER_MACS = tuple(parse_mac(f"02:00:00:00:01:{n:02x}") for n in range(1, 25))
MULTICAST_MAC = 0x0100_5E00_0001
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
SOURCES: Mapping[int, tuple[int, ...]] = {
    IPV4: tuple(Prefix.parse(t).value for t in ("10.1.1.7", "10.1.0.9", "192.0.2.1", "127.0.0.1")),
    IPV6: tuple(Prefix.parse(t).value for t in ("fd00:0:0:1::7", "fd00::9", "2001:db8::1", "fe80::1")),
}
HOSTS: Mapping[int, tuple[int, ...]] = {
    IPV4: tuple(Prefix.parse(t).value for t in ("10.1.1.7", "10.1.1.254", "10.128.0.1", "224.0.0.5")),
    IPV6: tuple(Prefix.parse(t).value for t in ("fd00:0:0:1::7", "fd00:0:0:1::1", "8000::1", "ff02::5")),
}
PORTS = (1000, 2000)
MTUS = (1500, 1500, 1500, 1400, 1280, 9000)


def rarely(n: int) -> st.SearchStrategy[bool]:
    """True once in n times; shrinks to False."""
    return st.integers(1, n).map(lambda k: k == n)


@st.composite
def bridges(draw: st.DrawFn) -> dict[str, Bridge]:
    """One to five bridges, joined by patch ports each with each; a port or two may be missing."""
    names = [f"br{n}" for n in range(draw(st.integers(1, 5)))]
    missing = draw(st.sets(st.tuples(st.sampled_from(names), st.sampled_from(names)), max_size=2)) if draw(rarely(8)) else ()
    result = {}
    for name in names:
        links = {
            peer: FIRST_LINK_PORT + n for n, peer in enumerate(names) if peer != name and (name, peer) not in missing
        }
        tagged = (HOST_PORTS[1],) if draw(rarely(6)) else ()
        result[name] = Bridge(name, links, draw(st.sampled_from(MTUS)), tagged)
    return result


@st.composite
def interfaces(draw: st.DrawFn, router: str, name: str, bridge: str, taken: set[int]) -> Interface:
    """One interface on `bridge`, where MACs in `taken` are in use; now and then it is down."""
    mac = draw(st.sampled_from([m for m in ROUTER_MACS[: len(taken) + 4] if m not in taken]))
    ofport: int | None = len(taken) + 1
    up = not draw(rarely(12))
    if not up and draw(st.booleans()):
        ofport = None
    return Interface(
        router,
        name,
        bridge,
        f"{router}-{name}",
        mac,
        draw(st.sampled_from(MTUS)),
        tuple(draw(st.lists(st.sampled_from(ADDRESSES), max_size=2, unique=True))),
        ofport,
        up,
        "" if up else "no link",
    )


@st.composite
def routers(draw: st.DrawFn, bridge_names: Sequence[str]) -> dict[str, Router]:
    """Up to five routers of one to four interfaces; MACs are unique on each bridge, not across bridges."""
    taken: dict[str, set[int]] = {name: set() for name in bridge_names}
    result = {}
    for n in range(draw(st.integers(0, 5))):
        own = {}
        for k in range(draw(st.integers(1, 4))):
            bridge = draw(st.sampled_from(bridge_names))
            own[f"eth{k}"] = interface = draw(interfaces(f"r{n}", f"eth{k}", bridge, taken[bridge]))
            taken[bridge].add(interface.mac)
        result[f"r{n}"] = Router(f"r{n}", own)
    return result


@st.composite
def connections(draw: st.DrawFn, version: int) -> FiveTuple:
    src, dst = draw(st.sampled_from(SOURCES[version])), draw(st.sampled_from(HOSTS[version]))
    proto, sport, dport = draw(st.sampled_from((TCP, UDP))), draw(st.sampled_from(PORTS)), draw(st.sampled_from(PORTS))
    return FiveTuple(version, src, dst, proto, sport, dport)


@st.composite
def matches(draw: st.DrawFn, router: Router, macs: Sequence[int]) -> Match:
    """A match at one of the router's interfaces; `macs` are what eth_src may be."""
    in_port = draw(st.sampled_from(sorted(router.interfaces)))
    version = draw(st.sampled_from((IPV4, IPV4, IPV6)))
    eth_src = draw(st.sampled_from(macs)) if draw(rarely(4)) else None
    if draw(rarely(6)):
        connection = draw(connections(version))
        return Match(in_port, Prefix.host(version, connection.dst), eth_src, connection)
    return Match(in_port, draw(st.sampled_from(PREFIXES[version])), eth_src)


@st.composite
def verdicts(draw: st.DrawFn, router: Router, macs_on: Mapping[str, Sequence[int]]) -> Verdict:
    """Mostly forward, mostly to another router."""
    if draw(rarely(5)):
        return draw(st.sampled_from((PUNT, DROP)))
    out = draw(st.sampled_from(sorted(router.interfaces)))
    there = macs_on[router.interfaces[out].bridge]
    return Forward(out, draw(st.sampled_from((HOST_MACS[0], HOST_MACS[1], *there, *there, *there))))


def macs_by_bridge(routers_: Mapping[str, Router]) -> dict[str, list[int]]:
    """The router MACs on each bridge."""
    result: dict[str, list[int]] = {}
    for router in routers_.values():
        for interface in router.interfaces.values():
            result.setdefault(interface.bridge, []).append(interface.mac)
    return result


@st.composite
def delegations(draw: st.DrawFn, router: Router, macs_on: Mapping[str, Sequence[int]]) -> Delegation:
    senders = sorted({mac for macs in macs_on.values() for mac in macs} | set(HOST_MACS[:2]), reverse=True)
    return Delegation(draw(matches(router, senders)), draw(verdicts(router, macs_on)))


@st.composite
def networks(draw: st.DrawFn, max_delegations: int = 10) -> Network:
    """A network of routers with FIBs."""
    bridges_ = draw(bridges())
    routers_ = draw(routers(sorted(bridges_)))
    macs_on = macs_by_bridge(routers_)
    fibs = {
        name: Fib(draw(st.lists(delegations(router, macs_on), max_size=max_delegations)))
        for name, router in routers_.items()
    }
    return Network(bridges_, routers_, fibs, draw(st.sampled_from((32, 32, 3, 1, 2))))


@st.composite
def changes(draw: st.DrawFn, network: Network) -> dict[str, list[Change]]:
    """Delegations set and removed, of one router or several; some are there, some are not."""
    if not network.routers:
        return {}
    macs_on = macs_by_bridge(network.routers)
    result: dict[str, list[Change]] = {}
    for name in draw(st.lists(st.sampled_from(sorted(network.routers)), min_size=1, max_size=5)):
        known = [d.match for d in network.fibs[name]]
        if known and draw(st.booleans()):
            change = change_of(draw(st.sampled_from(known)), draw(st.none() | verdicts(network.routers[name], macs_on)))
        else:
            new = draw(delegations(network.routers[name], macs_on))
            change = change_of(new.match, new.verdict)
        result.setdefault(name, []).append(change)
    return result


def boundaries(network: Network, version: int) -> list[int]:
    """Destinations where something may change: first and last of every prefix, one below, one above."""
    edges = {0, (1 << BITS[version]) - 1}
    prefixes = {d.match.dst for fib in network.fibs.values() for d in fib if d.match.dst.version == version}
    own = {value for pairs in network.own_addresses.values() for v, value in pairs if v == version}
    for prefix in prefixes | {Prefix.host(version, value) for value in own}:
        edges |= {prefix.value - 1, prefix.value, prefix.last, prefix.last + 1}
    return sorted(e for e in edges if 0 <= e < 1 << BITS[version])


def known_connections(network: Network) -> list[FiveTuple]:
    """All connections that any router delegated."""
    found = {d.match.connection for fib in network.fibs.values() for d in fib}
    return sorted(c for c in found if c is not None)


@st.composite
def packets(draw: st.DrawFn, network: Network) -> Packet:
    """A packet at a boundary of what the network's routers delegated."""
    here = sorted(network.by_mac)
    bridge, eth_dst = draw(st.sampled_from(here)) if here else ("br0", HOST_MACS[0])
    if draw(rarely(12)):
        eth_dst = draw(st.sampled_from((*HOST_MACS, *ROUTER_MACS[:4], MULTICAST_MAC)))
    in_port, eth_src = draw(senders(network, bridge))
    version = draw(st.sampled_from((IPV4, IPV4, IPV6)))
    lengths = {84} | {i.mtu + k for i in network.interfaces() for k in (0, 1)}
    common = {
        "bridge": bridge, "in_port": in_port, "eth_src": eth_src, "eth_dst": eth_dst,
        "ttl": draw(st.sampled_from((64, 64, 64, 255, 0, 1, 2, 3, 4, 5, 6))),
        "length": draw(st.sampled_from(sorted(n for n in lengths if n <= network.bridges[bridge].max_mtu))),
        "vlan": draw(rarely(20)),
    }  # fmt: skip
    if draw(rarely(25)):
        return Packet(version=None, **common)
    known = [c for c in known_connections(network) if c.version == version]
    if known and draw(rarely(3)):
        c = draw(st.sampled_from(known))
        return draw(near(Packet(version=version, src=c.src, dst=c.dst, ip_proto=c.ip_proto, sport=c.sport, dport=c.dport, **common)))
    return draw(ip_packets(version, boundaries(network, version), common))


@st.composite
def senders(draw: st.DrawFn, network: Network, bridge: str) -> tuple[int, int]:
    """(in_port, eth_src): a host, a router from its own port, or somebody who says to be one."""
    eth_src = draw(st.sampled_from(HOST_MACS))
    in_port = draw(st.sampled_from(HOST_PORTS))
    owners = [i for i in network.interfaces() if i.bridge == bridge]
    if owners and draw(rarely(3)):
        owner = draw(st.sampled_from(owners))
        eth_src = owner.mac
        in_port = owner.ofport or in_port
        if draw(rarely(4)):
            in_port = draw(st.sampled_from((*HOST_PORTS, *(i.ofport for i in owners if i.ofport))))
    elif draw(rarely(8)):
        eth_src = draw(st.sampled_from((*ROUTER_MACS[:4], MULTICAST_MAC)))
    return in_port, eth_src


@st.composite
def ip_packets(draw: st.DrawFn, version: int, destinations: Sequence[int], common: Mapping[str, object]) -> Packet:
    """TCP, UDP, or ICMPv6 towards one of `destinations`."""
    dst = draw(st.sampled_from(destinations))
    src = draw(st.sampled_from(SOURCES[version]))
    if version == IPV6 and draw(rarely(4)):
        kind = draw(st.sampled_from((128, 132, 133, 134, 135, 136, 137, 138)))
        return Packet(version=version, src=src, dst=dst, ip_proto=ICMPV6, icmpv6_type=kind, **common)  # type: ignore[arg-type]
    proto, sport, dport = draw(st.sampled_from((TCP, UDP))), draw(st.sampled_from(PORTS)), draw(st.sampled_from(PORTS))
    packet = Packet(version=version, src=src, dst=dst, ip_proto=proto, sport=sport, dport=dport, **common)  # type: ignore[arg-type]
    return draw(near(packet))


@st.composite
def near(draw: st.DrawFn, packet: Packet) -> Packet:
    """The packet itself, mostly; or a fragment of it; or with one port changed."""
    from dataclasses import replace

    kind = draw(st.integers(0, 7))
    if kind == 7:
        return replace(packet, fragment=True)
    if kind == 6:
        return replace(packet, fragment=True, sport=0, dport=0)
    if kind == 5:
        return replace(packet, dport=packet.dport + 1)
    return packet


@st.composite
def cases(draw: st.DrawFn, count: int = 12) -> tuple[Network, list[Packet]]:
    """A network and packets for it."""
    network = draw(networks())
    return network, draw(st.lists(packets(network), min_size=1, max_size=count))
