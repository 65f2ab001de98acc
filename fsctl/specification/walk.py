"""The executable specification: which path a packet takes when routers have delegated flows.

Written from the paper's flowchart (Taguchi, Kobayashi, Hirotsu: look up, rewrite, move on, look up again)
and docs/architecture.md. It is the compiler's oracle and shares no code with it: a linear scan of one FIB per
hop, no index, no collapse. `lookup` interprets OpenFlow rules, so that both can be compared packet by packet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from fsctl.errors import NotFoundError
from fsctl.model.addresses import IPV4, MULTICAST_BIT, format_ip, format_mac
from fsctl.model.delegations import Delegation, Drop, FiveTuple, Forward, Match, Punt
from fsctl.model.ip_protocols import BYPASSED_PROTOCOLS, ICMPV6
from fsctl.model.martians import LOCAL_DESTINATIONS, LOCAL_SOURCES, ND_TYPES
from fsctl.model.network import Interface, Network
from fsctl.model.packet import Packet
from fsctl.specification.interpreter import Delivery, Flowterp, Hit, Learned, Outcome, lookup

__all__ = [
    "BRIDGED", "DROPPED", "SLOW_PATH",
    "Delivery", "Flowterp", "Hit", "Hop", "Learned", "Outcome", "Walk", "decide", "delivered", "lookup", "walk",
]  # fmt: skip

BRIDGED, DROPPED, SLOW_PATH = "bridged", "dropped", "slow_path"


@dataclass(frozen=True, slots=True)
class Hop:
    """The interface that the packet came to, and the delegation that decided there (None: no match)."""

    interface: Interface
    delegation: Delegation | None


@dataclass(frozen=True, slots=True)
class Walk:
    """A packet's path, and how it ends.

    `end` is BRIDGED: rewritten by `forwards` >= 1 routers, `final` is bridged as if the port of the last
    egress interface had sent it; DROPPED: `final` is the packet at the router that dropped it; SLOW_PATH:
    `final` is the packet as it came, which is bridged unchanged (`forwards` is 0; `hops` are those tried).
    """

    hops: tuple[Hop, ...]
    end: str
    reason: str
    final: Packet
    forwards: int = 0


def walk(network: Network, packet: Packet) -> Walk:
    """The cascaded lookup of a packet that arrives on a bridge from a port other than a patch port.

    Raises NotFoundError if there is no such bridge.
    """
    if packet.bridge not in network.bridges:
        raise NotFoundError("no such bridge", field="bridge", value=packet.bridge)
    why_not = _why_not_begun(network, packet)
    if why_not is not None:
        return Walk((), SLOW_PATH, why_not, packet)
    walker = _Walker(network, packet)
    ended = None
    while ended is None:
        ended = walker.step()
    return walker.finish(*ended)


def delivered(network: Network, found: Walk, senders: Iterable[Learned] = ()) -> tuple[Delivery, ...]:
    """Who gets the frame that a walk ends with; `senders` are those learned so far.

    It goes to the port where its receiver is: a router's own port while its interface is up, the port that OVSDB
    names (`Bridge.pinned`), else the port where the receiver was learned. No frame goes back to the port that it came
    from. If no port is known, or the frame is one that only NORMAL may handle, NORMAL delivers it (`port` None).
    """
    frame = found.final
    if found.end == DROPPED:
        return ()
    if not found.forwards and _is_for_the_bridge(network, frame) is not None:
        return (Delivery(frame),)
    bridge, owner = network.bridges[frame.bridge], network.by_mac.get((frame.bridge, frame.eth_dst))
    places = {s.mac: s.port for s in senders if s.bridge == frame.bridge} | dict(bridge.pinned)
    port = places.get(frame.eth_dst)
    if owner is not None and owner.up and owner.ofport is not None:
        port = owner.ofport
    if port is not None and port == frame.in_port:
        return ()
    return (Delivery(frame, port),)


def decide(delegations: Iterable[Delegation], in_port: str, packet: Packet) -> Delegation | None:
    """The delegation that a packet hits at the interface named `in_port` of their owner.

    Exact 5-tuples beat prefixes; among prefixes the longest wins; among equals the one with eth_src.
    """
    candidates = [d for d in delegations if d.match.in_port == in_port and _applies(d.match, packet)]
    return max(candidates, key=_precedence, default=None)


def _applies(match: Match, packet: Packet) -> bool:
    if match.eth_src not in (None, packet.eth_src) or packet.version is None:
        return False
    if match.connection is None:
        return match.dst.covers(packet.version, packet.dst)
    # Later fragments have no ports, and a rule for first fragments only would split datagrams between two paths.
    return not packet.fragment and match.connection == FiveTuple(
        packet.version, packet.src, packet.dst, packet.ip_proto, packet.sport, packet.dport
    )


def _precedence(delegation: Delegation) -> tuple[bool, int, bool]:
    match = delegation.match
    return match.connection is not None, match.dst.length, match.eth_src is not None


def part_of(delegations: Iterable[Delegation], in_port: str, packet: Packet) -> Delegation | None:
    """A delegated connection that a fragment may belong to. (Only the first fragment has the ports that would tell.)

    The router has to see all fragments of such a datagram, so none of them is bypassed at its interface.
    """
    if not packet.fragment:
        return None
    for delegation in delegations:
        match = delegation.match
        if match.connection is None or match.in_port != in_port or match.eth_src not in (None, packet.eth_src):
            continue
        c = match.connection
        if (c.version, c.src, c.dst, c.ip_proto) == (packet.version, packet.src, packet.dst, packet.ip_proto):
            return delegation
    return None


def _is_for_the_bridge(network: Network, packet: Packet) -> str | None:
    """Why this frame is left to NORMAL; None if it is not."""
    if packet.vlan:
        return "VLAN tagged"
    exempt = network.bridges[packet.bridge].exempt_ports
    if packet.in_port in exempt:
        return f"port {packet.in_port} {exempt[packet.in_port]}"
    if packet.eth_src & MULTICAST_BIT:
        return "source MAC is multicast"
    return None


def _why_not_begun(network: Network, packet: Packet) -> str | None:
    """Why no router would forward this packet, or why its source may be forged; None if neither."""
    why = _is_for_the_bridge(network, packet)
    if why is not None:
        return why
    if packet.version is None:
        return "not IP"
    if packet.ip_proto not in BYPASSED_PROTOCOLS[packet.version]:
        return f"IP protocol {packet.ip_proto} is not bypassed"
    if any(p.covers(packet.version, packet.dst) for p in LOCAL_DESTINATIONS):
        return f"destination {format_ip(packet.version, packet.dst)} is never forwarded"
    if any(p.covers(packet.version, packet.src) for p in LOCAL_SOURCES):
        return f"source {format_ip(packet.version, packet.src)} is never forwarded"
    if packet.version == IPV4 and packet.src in _own_addresses_near(network, packet.bridge):
        return f"source {format_ip(IPV4, packet.src)} is an address of a router on this network"
    if packet.version == 6 and packet.ip_proto == ICMPV6 and packet.icmpv6_type in ND_TYPES:
        return "neighbour discovery"
    owner = network.by_mac.get((packet.bridge, packet.eth_src))
    if owner is not None and owner.ofport != packet.in_port:
        return f"source MAC {format_mac(packet.eth_src)} of {_text(owner)} came from another port"
    return None


def _own_addresses_near(network: Network, bridge: str) -> set[int]:
    """The own IPv4 addresses of all routers that a packet can reach from a bridge: they drop it if one is its source."""
    bridges, routers = {bridge}, set[str]()
    while True:
        more = {r.name for r in network.routers.values() if any(i.bridge in bridges for i in r.interfaces.values())} - routers
        if not more:
            break
        routers |= more
        bridges |= {i.bridge for name in more for i in network.routers[name].interfaces.values()}
    return {
        value
        for name in routers
        for i in network.routers[name].interfaces.values()
        for a in i.addresses
        if a.version == IPV4
        for value in a.own()
    }


def _text(interface: Interface) -> str:
    return f"{interface.router}.{interface.name}"


_Ended = tuple[str, str]
"""(end, reason)."""


@dataclass(slots=True)
class _Walker:
    """The state of a walk: `now` is the packet as rewritten so far, `crossed` the interfaces whose MTU counts."""

    network: Network
    start: Packet
    now: Packet = field(init=False)
    hops: list[Hop] = field(default_factory=list)
    crossed: list[Interface] = field(default_factory=list)
    forwards: int = 0

    def __post_init__(self) -> None:
        self.now = self.start

    def step(self) -> _Ended | None:
        """Go to the interface that has the packet's eth_dst and do what its owner delegated there."""
        now = self.now
        ingress = self.network.by_mac.get((now.bridge, now.eth_dst))
        if ingress is None:
            return BRIDGED, f"{format_mac(now.eth_dst)} is no router's on {now.bridge}"
        if not ingress.up:
            return BRIDGED, f"{_text(ingress)} is down: {ingress.why_down}"
        if any(hop.interface == ingress for hop in self.hops):
            return SLOW_PATH, f"loop: {_text(ingress)} again"
        if self._is_cut():
            return BRIDGED, f"chain cut behind {_text(self.hops[-1].interface)}: its rules would exceed max_rules"
        if (now.version, now.dst) in self.network.own_addresses[ingress.router]:
            self.hops.append(Hop(ingress, None))
            return BRIDGED, f"destination is {ingress.router}'s own address"
        connection = part_of(self.network.fibs[ingress.router], ingress.name, now)
        if connection is not None:
            self.hops.append(Hop(ingress, None))
            return BRIDGED, f"fragment: it may belong to a connection that {ingress.router} has delegated"
        delegation = decide(self.network.fibs[ingress.router], ingress.name, now)
        self.hops.append(Hop(ingress, delegation))
        if delegation is None:
            return BRIDGED, f"no delegation at {_text(ingress)}"
        if isinstance(delegation.verdict, Punt):
            return BRIDGED, f"punt to {ingress.router}"
        if isinstance(delegation.verdict, Drop):
            self.crossed.append(ingress)
            return DROPPED, f"dropped for {ingress.router}"
        return self._forward(ingress, delegation.verdict)

    def _is_cut(self) -> bool:
        """Whether what decided at the hop before is a delegation that no walk is followed beyond."""
        if not self.hops or self.hops[-1].delegation is None or self.hops[-1].delegation.match.connection is not None:
            return False
        before = self.hops[-1].interface
        return (before.router, before.name, self.now.version) in self.network.cuts

    def _forward(self, ingress: Interface, verdict: Forward) -> _Ended | None:
        egress = self.network.routers[ingress.router].interfaces.get(verdict.out)
        if egress is None:
            return BRIDGED, f"{ingress.router} has no interface {verdict.out}"
        if not egress.up or egress.ofport is None:
            return BRIDGED, f"{_text(egress)} is down: {egress.why_down}"
        if self.forwards == self.network.max_hops:
            return SLOW_PATH, f"chain longer than {self.network.max_hops} hops"
        self.forwards += 1
        self.crossed += (ingress, egress)
        self.now = replace(
            self.now,
            bridge=egress.bridge,
            in_port=egress.ofport,
            eth_src=egress.mac,
            eth_dst=verdict.eth_dst,
            ttl=self.now.ttl - 1,
        )
        return None

    def finish(self, end: str, reason: str) -> Walk:
        """The result; packets that only a router can answer (Time Exceeded, fragmentation needed) take the slow path."""
        narrow = min(self.crossed, key=lambda i: i.mtu, default=None)
        if end == BRIDGED and self.forwards == 0:
            end = SLOW_PATH
        elif end != SLOW_PATH and self.start.ttl <= self.forwards:
            end, reason = SLOW_PATH, f"TTL {self.start.ttl} is too small for {self.forwards} hops"
        elif end != SLOW_PATH and narrow is not None and self.start.length > narrow.mtu:
            end, reason = SLOW_PATH, f"{self.start.length} bytes are over the MTU {narrow.mtu} of {_text(narrow)}"
        if end == SLOW_PATH:
            return Walk(tuple(self.hops), end, reason, self.start)
        return Walk(tuple(self.hops), end, reason, self.now, self.forwards)
