"""The rules of a bridge that follow from the network and not from delegations: guard, egress, senders (docs/pipeline.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fsctl.model.addresses import BITS, IPV4, IPV6, MULTICAST_BIT, RESERVED_VID, Prefix
from fsctl.model.ip_protocols import BYPASSED_PROTOCOLS, ICMPV6
from fsctl.model.martians import LOCAL_DESTINATIONS, LOCAL_SOURCES, ND_TYPES
from fsctl.model.network import Bridge, Interface, Network
from fsctl.openflow.rules import (
    ADMISSION,
    EGRESS,
    ELSEWHERE,
    EPOCHS,
    FLOW_SWITCH,
    GUARD,
    LEARN,
    LINK_MARK,
    MTU,
    NORMAL_BIT,
    SENDERS,
    TTL,
    WAYS,
    Action,
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
    match_of,
)

ETH_TYPE = {IPV4: 0x0800, IPV6: 0x86DD}
VLAN_PRESENT = 0x1000
FROM_LINK = 65535
"""Above all other rules: nobody else has a policy for fsctl's own patch ports, and no frame may leave a link but by table 2."""
# All other priorities in table 0 are low on purpose: rules of others go first.
RESERVED_VLAN, EXEMPT, FROM_ROUTER, SPOOFED, TO_ROUTER, ELSE = 9, 8, 5, 4, 3, 1
NEVER, ADMITTED, LOW_TTL = 30, 20, 10
PRIORITY_TAGGED = RESERVED_VLAN
PINNED = 20
MULTICAST = 40
MAX_AGE_S = 0xFFFF

NORMAL: tuple[Action, ...] = (Normal(),)
BRIDGE: tuple[Action, ...] = (Resubmit(SENDERS), GotoTable(ELSEWHERE))
"""Ordinary bridging: to the port where the receiver was learned, else NORMAL."""
LEARN_AND_BRIDGE: tuple[Action, ...] = (Resubmit(LEARN), *BRIDGE)
LEARN_AND_NORMAL: tuple[Action, ...] = (Resubmit(LEARN), Normal())
ENTER: tuple[Action, ...] = (Resubmit(LEARN), GotoTable(FLOW_SWITCH))

ELSES = (
    Rule(RuleKey(GUARD, ELSE, ()), LEARN_AND_BRIDGE),
    *(Rule(RuleKey(table, 0, ()), BRIDGE) for table in (FLOW_SWITCH, ADMISSION, WAYS, MTU)),
    Rule(RuleKey(TTL, 0, ()), (GotoTable(WAYS),)),
    Rule(RuleKey(SENDERS, 1, ()), NORMAL),
    Rule(RuleKey(ELSEWHERE, 10, (Field("reg0", NORMAL_BIT, NORMAL_BIT),)), NORMAL),
)
"""The last rule of each table. A packet that matches nothing else takes the slow path; EGRESS has none, it drops."""
TOO_LARGE = Rule(RuleKey(MTU, 20, (Field("reg0", 1, 1),)), BRIDGE)
Longest = Mapping[tuple[str, str], int | None]
"""(router, interface) -> hops of the longest chain in force from there, None where there is no rule."""


def rule(table: int, priority: int, actions: tuple[Action, ...], *fields: Field) -> Rule:
    """With the match in canonical order."""
    return Rule(RuleKey(table, priority, match_of(*fields)), actions)


def eth_type(version: int) -> Field:
    return Field("eth_type", ETH_TYPE[version])


def _prefix(name: str, prefix: Prefix) -> Field:
    full = (1 << BITS[prefix.version]) - 1
    mask = None if not prefix.host_mask else full & ~prefix.host_mask
    return Field(f"ipv{prefix.version}_{name}", prefix.value, mask)


def _links(bridge: Bridge) -> Iterator[Rule]:
    """Frames from a patch port are looked up in table 2 only. Frames of VLAN 4095, the patch ports' tag, are dropped."""
    yield rule(GUARD, RESERVED_VLAN, (), Field("vlan_tci", VLAN_PRESENT | RESERVED_VID))
    for ofport in bridge.links.values():
        yield rule(GUARD, FROM_LINK, (GotoTable(EGRESS),), Field("in_port", ofport))


def _exempt(bridge: Bridge) -> Iterator[Rule]:
    """Frames left to NORMAL: tagged, from a multicast address, from an exempt port. Senders in VLAN 0 are still learned."""
    yield rule(GUARD, PRIORITY_TAGGED, LEARN_AND_NORMAL, Field("vlan_tci", VLAN_PRESENT))
    yield rule(GUARD, EXEMPT, NORMAL, Field("vlan_tci", VLAN_PRESENT, VLAN_PRESENT))
    yield rule(GUARD, EXEMPT, NORMAL, Field("eth_src", MULTICAST_BIT, MULTICAST_BIT))
    for ofport in bridge.exempt_ports:
        actions = LEARN_AND_NORMAL if ofport in bridge.sender_ports else NORMAL
        plain = Field("vlan_tci", 0, VLAN_PRESENT), Field("eth_src", 0, MULTICAST_BIT)
        yield rule(GUARD, EXEMPT, actions, Field("in_port", ofport), *plain)


def _admission(network: Network, bridge: Bridge) -> Iterator[Rule]:
    """Packets that no router forwards, from any sender, and protocols that are not bypassed."""
    matches = [(eth_type(p.version), _prefix("dst", p)) for p in LOCAL_DESTINATIONS]
    matches += [(eth_type(p.version), _prefix("src", p)) for p in LOCAL_SOURCES]
    own = (Prefix.host(IPV4, value) for value in sorted(network.own_sources[bridge.name]))
    matches += [(eth_type(IPV4), _prefix("src", p)) for p in own if not any(s.covers(IPV4, p.value) for s in LOCAL_SOURCES)]
    for fields in matches:
        yield rule(ADMISSION, NEVER, BRIDGE, *fields)
    for nd_type in ND_TYPES:
        discovery = (eth_type(IPV6), Field("ip_proto", ICMPV6), Field("icmpv6_type", nd_type))
        yield rule(ADMISSION, NEVER, BRIDGE, *discovery)
    for version, protocols in BYPASSED_PROTOCOLS.items():
        for number in protocols:
            yield rule(ADMISSION, ADMITTED, (GotoTable(TTL),), eth_type(version), Field("ip_proto", number))


def _entrance(bridge: Bridge, interface: Interface, longest: int | None) -> Iterator[Rule]:
    """Which packets enter the flow switch for one router interface; `longest`: hops of its longest chain, None: no rule there."""
    to_router, from_router = Field("eth_dst", interface.mac), Field("eth_src", interface.mac)
    if interface.ofport is not None and interface.ofport not in bridge.exempt_ports:
        yield rule(GUARD, FROM_ROUTER, ENTER, Field("in_port", interface.ofport), from_router)
    yield rule(GUARD, SPOOFED, BRIDGE, from_router)
    if longest is not None:
        for version in (IPV4, IPV6):
            yield rule(GUARD, TO_ROUTER, ENTER, to_router, eth_type(version))
            for ttl in range(longest + 1):
                yield rule(TTL, LOW_TTL, BRIDGE, to_router, eth_type(version), Field("nw_ttl", ttl))


def _egress(interface: Interface) -> Iterator[Rule]:
    """Deliver packets that a rewrite sends with this interface's MAC, as if its own port had sent them.

    Also while the interface is down: the rewrites that lead here are withdrawn then.
    """
    if interface.ofport is not None:
        deliver = (SetField("pkt_mark", 0), SetField("in_port", interface.ofport), *BRIDGE)
        yield rule(EGRESS, 10, deliver, Field("eth_src", interface.mac), Field("pkt_mark", LINK_MARK))


def _learn(bridge: Bridge, ofport: int | None) -> tuple[Action, ...]:
    """The action that learns senders at a port; none where they are not learned."""
    if ofport is None or ofport not in bridge.sender_ports:
        return ()
    age_s = min(max(bridge.mac_age_s, 1), MAX_AGE_S)
    epoch = bridge.port_ids.get(ofport, 0) % EPOCHS
    return (Learn(ofport, age_s, bridge.sender_ports[ofport], epoch, ofport in bridge.exempt_ports),)


def _senders(bridge: Bridge) -> Iterator[Rule]:
    """Where MAC addresses are: those that OVSDB knows, and the rules that learn the others."""
    for mac, ofport in bridge.pinned.items():
        yield rule(SENDERS, PINNED, (Output(ofport),), Field("eth_dst", mac))
    yield rule(LEARN, MULTICAST, (), Field("eth_src", MULTICAST_BIT, MULTICAST_BIT))
    for ofport in bridge.sender_ports:
        yield rule(LEARN, 10, _learn(bridge, ofport), Field("in_port", ofport))


def _router_as_sender(bridge: Bridge, interface: Interface) -> Iterator[Rule]:
    """A router's MAC is learned at its own port and nowhere else; while the interface is up, nothing needs learning."""
    from_router = Field("eth_src", interface.mac)
    yield rule(LEARN, 20, (), from_router)
    if interface.ofport is not None:
        yield rule(LEARN, 30, _learn(bridge, interface.ofport), Field("in_port", interface.ofport), from_router)
        if interface.up:
            yield rule(SENDERS, PINNED, (Output(interface.ofport),), Field("eth_dst", interface.mac))


def fixed_rules(network: Network, name: str, longest: Longest) -> RuleTable:
    """Guard, egress and senders of one bridge; `longest` is the longest chain by (router, interface)."""
    table, bridge = RuleTable(), network.bridges[name]
    table.add(*ELSES, TOO_LARGE, *_links(bridge), *_exempt(bridge), *_admission(network, bridge), *_senders(bridge))
    for interface in network.interfaces():
        if interface.bridge != name or not interface.mac:
            continue  # elsewhere, or its MAC is not known yet
        table.add(*_entrance(bridge, interface, longest.get((interface.router, interface.name))))
        table.add(*_egress(interface), *_router_as_sender(bridge, interface))
    return table
