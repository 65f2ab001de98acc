"""An interpreter of the OpenFlow rules that fsctl writes: what Open vSwitch would do.

Part of the executable specification (`walk`): slow, plain, and ignorant of who made the rules.
Behaviour follows ovs-actions(7) and ovs-fields(7).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import NamedTuple

from fsctl.model.addresses import IPV4, IPV6
from fsctl.model.ip_protocols import ICMPV6, TCP, UDP
from fsctl.model.packet import Packet
from fsctl.openflow.rules import (
    GUARD,
    LEARNED,
    NORMAL_BIT,
    SENDERS,
    Action,
    CheckLarger,
    DecTtl,
    Field,
    GotoTable,
    Learn,
    Normal,
    Output,
    Resubmit,
    Rule,
    RuleKey,
    RuleTable,
    SetField,
)

Links = Mapping[str, Mapping[str, int]]
"""Bridge -> peer bridge -> OpenFlow number of the patch port towards it."""

ETHERNET_HEADER_BYTES = 14
MAX_DEPTH = 64
"""Nested lookups that Open vSwitch allows (MAX_DEPTH in ofproto-dpif-xlate.c); patch ports count as well."""
FRAG_NO, FRAG_FIRST, FRAG_LATER = 0, 1, 3
"""nw_frag: bit 0 = any fragment, bit 1 = not the first (ovs-fields(7), ip_frag)."""
_VLAN_PRESENT, _SOME_VID = 0x1000, 1
_ETH_TYPES = {IPV4: 0x0800, IPV6: 0x86DD, None: 0x0806}


class Delivery(NamedTuple):
    """A packet that leaves the tables: `port` None means NORMAL, which sees `packet.in_port`."""

    packet: Packet
    port: int | None = None


class Learned(NamedTuple):
    """A sender that the switch is told to remember: what is for `mac` leaves by `port`; None: as NORMAL does it."""

    bridge: str
    mac: int
    port: int | None


class Hit(NamedTuple):
    """A rule that decided, and the bridge it is in.

    `rivals` are the others of its priority that match too: OpenFlow leaves open which one wins.
    """

    bridge: str
    rule: Rule
    rivals: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result for one packet. No deliveries: it is dropped."""

    deliveries: tuple[Delivery, ...]
    hits: tuple[Hit, ...]
    learned: tuple[Learned, ...] = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """A packet inside one bridge's pipeline, with its registers and its mark, which alone survives a patch port."""

    packet: Packet
    reg0: int = 0
    reg1: int = 0
    pkt_mark: int = 0


def lookup(tables: Mapping[str, RuleTable], links: Links, packet: Packet, senders: Iterable[Learned] = ()) -> Outcome:
    """Run a packet through the tables of its bridge, and of those that patch ports lead it to."""
    return Flowterp(tables, links, senders).run(packet)


def learned_rule(sender: Learned) -> Rule:
    """The rule that `rules.Learn` adds."""
    action = SetField("reg0", NORMAL_BIT) if sender.port is None else Output(sender.port)
    return Rule(RuleKey(SENDERS, LEARNED, (Field("eth_dst", sender.mac),)), (action,))


class Flowterp:
    """The tables of all bridges, indexed for many lookups; `senders` have been learned before."""

    def __init__(self, tables: Mapping[str, RuleTable], links: Links, senders: Iterable[Learned] = ()) -> None:
        self._links = links
        self._rules: dict[tuple[str, int], list[Rule]] = {}
        there = [(bridge, Rule(*item)) for bridge, table in tables.items() for item in table.rules.items()]
        there += [(sender.bridge, learned_rule(sender)) for sender in senders]
        # Sorted by priority, then by match: where two rules of one priority overlap, OpenFlow leaves open
        # which wins; here it is always the same one.
        for bridge, rule in sorted(there, key=lambda r: (-r[1].key.priority, str(r[1].key.match))):
            self._rules.setdefault((bridge, rule.key.table), []).append(rule)

    def run(self, packet: Packet) -> Outcome:
        """What becomes of a packet that arrives on `packet.bridge`."""
        execution = _Execution(self)
        execution.table(Frame(packet), GUARD)
        return Outcome(tuple(execution.deliveries), tuple(execution.hits), tuple(execution.learned))

    def matching(self, frame: Frame, table: int) -> Iterator[Rule]:
        """The rules of a table that match, the one that wins first."""
        return (r for r in self._rules.get((frame.packet.bridge, table), ()) if matches(r.key.match, frame))

    def patch(self, bridge: str, port: int) -> str | None:
        """The peer bridge behind a port, None if it is no patch port."""
        return next((peer for peer, number in self._links.get(bridge, {}).items() if number == port), None)

    def arrival_port(self, bridge: str, peer: str) -> int | None:
        """The port of `peer` that a packet from `bridge` comes out of; None while that end is missing."""
        return self._links.get(peer, {}).get(bridge)


class _Execution:
    """The run of one packet; each action returns the frame that the next one gets."""

    def __init__(self, program: Flowterp) -> None:
        self.program = program
        self.deliveries: list[Delivery] = []
        self.hits: list[Hit] = []
        self.learned: list[Learned] = []
        self.depth = 0

    def table(self, frame: Frame, table: int) -> Frame:
        """Look up and execute; a miss does nothing, which at the end of the pipeline is a drop."""
        if self.depth == MAX_DEPTH:
            return frame
        matching = self.program.matching(frame, table)
        rule = next(matching, None)
        if rule is None:
            return frame
        rivals = tuple(takewhile(lambda r: r.key.priority == rule.key.priority, matching))
        self.hits.append(Hit(frame.packet.bridge, rule, rivals))
        self.depth += 1
        frame = self.actions(frame, rule.actions)
        self.depth -= 1
        return frame

    def actions(self, frame: Frame, actions: tuple[Action, ...]) -> Frame:
        """Execute a list. A TTL that runs out ends the list: the packet goes to the controller instead."""
        for action in actions:
            if isinstance(action, DecTtl):
                if frame.packet.version is None:
                    continue
                if frame.packet.ttl <= action.times:
                    return frame
                frame = replace(frame, packet=replace(frame.packet, ttl=frame.packet.ttl - action.times))
            elif isinstance(action, (Resubmit, GotoTable)):
                frame = self.table(frame, action.table)
            elif isinstance(action, Output):
                self.output(frame, action.port)
            elif isinstance(action, Normal):
                self.deliveries.append(Delivery(frame.packet))
            elif isinstance(action, SetField):
                frame = _set(frame, action)
            elif isinstance(action, CheckLarger):
                frame = replace(frame, reg0=frame.reg0 & ~1 | (_frame_bytes(frame.packet) > action.bytes))
            elif isinstance(action, Learn):
                # It takes effect for later packets: a lookup sees the tables as they were when the packet came.
                port = None if action.by_normal else frame.packet.in_port
                self.learned.append(Learned(frame.packet.bridge, frame.packet.eth_src, port))
        return frame

    def output(self, frame: Frame, port: int) -> None:
        """To a port; through a patch port into the next bridge, where registers begin anew."""
        packet = frame.packet
        if port == packet.in_port:
            return
        peer = self.program.patch(packet.bridge, port)
        if peer is None:
            self.deliveries.append(Delivery(packet, port))
            return
        arrival_port = self.program.arrival_port(packet.bridge, peer)
        if arrival_port is not None:
            arrived = replace(packet, bridge=peer, in_port=arrival_port)
            self.table(Frame(arrived, pkt_mark=frame.pkt_mark), GUARD)


def _frame_bytes(packet: Packet) -> int:
    return packet.length + ETHERNET_HEADER_BYTES


def _set(frame: Frame, action: SetField) -> Frame:
    if action.name == "reg0":
        return replace(frame, reg0=action.value)
    if action.name == "reg1":
        return replace(frame, reg1=action.value)
    if action.name == "pkt_mark":
        return replace(frame, pkt_mark=action.value)
    if action.name == "in_port":
        return replace(frame, packet=replace(frame.packet, in_port=action.value))
    if action.name == "eth_src":
        return replace(frame, packet=replace(frame.packet, eth_src=action.value))
    assert action.name == "eth_dst", action.name
    return replace(frame, packet=replace(frame.packet, eth_dst=action.value))


def matches(match: tuple[Field, ...], frame: Frame) -> bool:
    """Whether all fields match. A field that the packet does not have never does."""
    for name, value, mask in match:
        found = _READ[name](frame)
        if found is None or (found != value if mask is None else (found ^ value) & mask):
            return False
    return True


def _ip(version: int, field: Callable[[Packet], int]) -> Callable[[Frame], int | None]:
    return lambda f: field(f.packet) if f.packet.version == version else None


def _any_ip(field: Callable[[Packet], int]) -> Callable[[Frame], int | None]:
    return lambda f: field(f.packet) if f.packet.version is not None else None


def _l4(ip_proto: int, field: Callable[[Packet], int]) -> Callable[[Frame], int | None]:
    return lambda f: field(f.packet) if f.packet.version is not None and f.packet.ip_proto == ip_proto else None


def fragment_bits(packet: Packet) -> int:
    """nw_frag. A fragment that shows neither ports nor a type counts as a later one: these have none."""
    if not packet.fragment:
        return FRAG_NO
    first = packet.sport or packet.dport or packet.icmpv6_type is not None
    return FRAG_FIRST if first else FRAG_LATER


def _icmpv6_type(frame: Frame) -> int | None:
    packet = frame.packet
    if packet.version != IPV6 or packet.ip_proto != ICMPV6:
        return None
    return packet.icmpv6_type or 0


_READ: Mapping[str, Callable[[Frame], int | None]] = {
    "in_port": lambda f: f.packet.in_port,
    "eth_dst": lambda f: f.packet.eth_dst,
    "eth_src": lambda f: f.packet.eth_src,
    "eth_type": lambda f: _ETH_TYPES[f.packet.version],
    "vlan_tci": lambda f: _VLAN_PRESENT | _SOME_VID if f.packet.vlan else 0,
    "ipv4_src": _ip(IPV4, lambda p: p.src),
    "ipv4_dst": _ip(IPV4, lambda p: p.dst),
    "ipv6_src": _ip(IPV6, lambda p: p.src),
    "ipv6_dst": _ip(IPV6, lambda p: p.dst),
    "ip_proto": _any_ip(lambda p: p.ip_proto),
    "nw_ttl": _any_ip(lambda p: p.ttl),
    "nw_frag": _any_ip(fragment_bits),
    "tcp_src": _l4(TCP, lambda p: p.sport),
    "tcp_dst": _l4(TCP, lambda p: p.dport),
    "udp_src": _l4(UDP, lambda p: p.sport),
    "udp_dst": _l4(UDP, lambda p: p.dport),
    "icmpv6_type": _icmpv6_type,
    "reg0": lambda f: f.reg0,
    "reg1": lambda f: f.reg1,
    "pkt_mark": lambda f: f.pkt_mark,
}
"""How each field of rules.FIELD_ORDER is read; None where the packet has no such field."""
