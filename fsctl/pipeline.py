"""The tables of a bridge (docs/pipeline.md): what the compiler found, as OpenFlow rules and groups.

Pure. `Layout` keeps which group stands for which effect on each bridge, so that a change of the
network becomes few changes of rules; `tables` gives everything from nothing.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from fsctl.compiler import Compiler
from fsctl.fib import Key
from fsctl.model import (
    BITS,
    ICMPV6,
    IPV4,
    IPV6,
    LOCAL_DESTINATIONS,
    LOCAL_SOURCES,
    MULTICAST_BIT,
    ND_TYPES,
    TCP,
    FiveTuple,
    Interface,
    Network,
)
from fsctl.outcome import DROPPED, FORWARD, SLOW, Effect, Emission, Node
from fsctl.rules import (
    EGRESS,
    FLOW_SWITCH,
    GUARD,
    MTU,
    Action,
    CheckLarger,
    DecTtl,
    Field,
    GotoTable,
    GroupChange,
    Learn,
    Normal,
    Output,
    Resubmit,
    Rule,
    RuleChange,
    RuleKey,
    RuleTable,
    SetField,
    ToGroup,
    match_of,
)

ETH_TYPE = {IPV4: 0x0800, IPV6: 0x86DD}
ETHERNET_HEADER = 14
VLAN_PRESENT = 0x1000
# Priorities in table 0 are low on purpose: whatever else rules the bridge keeps its say.
FROM_LINK, EXEMPT, LOCAL_SCOPE, LOW_TTL, FROM_ROUTER, SPOOFED, TO_ROUTER, ELSE = 9, 8, 7, 6, 5, 4, 3, 1
BY_PREFIX, BY_CONNECTION = 1000, 5000
NORMAL: tuple[Action, ...] = (Normal(),)
FLOW_SWITCH_ELSE = Rule(RuleKey(FLOW_SWITCH, 0, ()), NORMAL)
Change = RuleChange | GroupChange


def _rule(table: int, priority: int, actions: tuple[Action, ...], *fields: Field) -> Rule:
    return Rule(RuleKey(table, priority, match_of(*fields)), actions)


def _eth_type(version: int) -> Field:
    return Field("eth_type", ETH_TYPE[version])


# --- table 0 and 2: they follow from the network, not from delegations --------------------------------


def _exempt(network: Network, bridge: str) -> Iterator[Rule]:
    """What is never bypassed, whoever sends it."""
    yield _rule(GUARD, EXEMPT, NORMAL, Field("vlan_tci", VLAN_PRESENT, VLAN_PRESENT))
    yield _rule(GUARD, EXEMPT, NORMAL, Field("eth_src", MULTICAST_BIT, MULTICAST_BIT))
    for ofport in network.bridges[bridge].tagged_ports:
        yield _rule(GUARD, EXEMPT, NORMAL, Field("in_port", ofport))
    for name, prefixes in (("dst", LOCAL_DESTINATIONS), ("src", LOCAL_SOURCES)):
        for prefix in prefixes:
            full = (1 << BITS[prefix.version]) - 1
            mask = None if not prefix.host_mask else full & ~prefix.host_mask
            field = Field(f"ipv{prefix.version}_{name}", prefix.value, mask)
            yield _rule(GUARD, LOCAL_SCOPE, NORMAL, _eth_type(prefix.version), field)
    for nd_type in ND_TYPES:
        fields = (_eth_type(IPV6), Field("ip_proto", ICMPV6), Field("icmpv6_type", nd_type))
        yield _rule(GUARD, LOCAL_SCOPE, NORMAL, *fields)


def _admission(interface: Interface, longest: int | None) -> Iterator[Rule]:
    """Who may enter the flow switch through one router interface; `longest` chain, None: nobody."""
    to_router, from_router = Field("eth_dst", interface.mac), Field("eth_src", interface.mac)
    enter: tuple[Action, ...] = (Learn(), GotoTable(FLOW_SWITCH))
    if interface.ofport is not None:
        yield _rule(GUARD, FROM_ROUTER, enter, Field("in_port", interface.ofport), from_router)
    yield _rule(GUARD, SPOOFED, NORMAL, from_router)
    if longest is not None:
        for version in (IPV4, IPV6):
            yield _rule(GUARD, TO_ROUTER, enter, to_router, _eth_type(version))
            for ttl in range(longest + 1):
                yield _rule(GUARD, LOW_TTL, NORMAL, to_router, _eth_type(version), Field("nw_ttl", ttl))


def frame(network: Network, bridge: str, longest: Mapping[tuple[str, str], int | None]) -> RuleTable:
    """Guard and egress of one bridge; `longest` is the longest chain by (router, interface)."""
    table = RuleTable()
    table.add(Rule(RuleKey(GUARD, ELSE, ()), NORMAL), FLOW_SWITCH_ELSE, *_exempt(network, bridge))
    for ofport in network.bridges[bridge].links.values():
        table.add(_rule(GUARD, FROM_LINK, (GotoTable(EGRESS),), Field("in_port", ofport)))
    for interface in network.interfaces():
        if interface.bridge != bridge:
            continue
        table.add(*_admission(interface, longest.get((interface.router, interface.name))))
        if interface.ofport is not None and interface.up:
            deliver = (SetField("in_port", interface.ofport), Normal())
            table.add(_rule(EGRESS, 10, deliver, Field("eth_src", interface.mac)))
    return table


# --- table 1, its groups, and table 3 -------------------------------------------------------------------


def needs_group(effect: Effect) -> bool:
    return effect.kind == FORWARD or (effect.kind == DROPPED and effect.limit > 0)


def actions_of(network: Network, bridge: str, effect: Effect) -> tuple[Action, ...]:
    """What the whole chain does to a packet that is short enough."""
    if effect.kind != FORWARD:
        return () if effect.kind == DROPPED else NORMAL
    hop = network.fibs[effect.router].nexthops[effect.nexthop]
    out = network.routers[effect.router].interfaces[hop.out]
    if out.bridge == bridge:
        away: Action = Resubmit(EGRESS)
    elif out.bridge in network.bridges[bridge].links:
        away = Output(network.bridges[bridge].links[out.bridge])
    else:
        return NORMAL  # no patch port yet: the slow path
    return DecTtl(effect.hops), SetField("eth_src", out.mac), SetField("eth_dst", hop.eth_dst), away


def group_of(network: Network, bridge: str, effect: Effect, number: int) -> tuple[tuple[Action, ...], Rule | None]:
    """The bucket of group `number`, and its rule in the MTU table if it has one."""
    actions = actions_of(network, bridge, effect)
    if not effect.limit or actions == NORMAL:
        return actions, None
    check = (CheckLarger(effect.limit + ETHERNET_HEADER), SetField("reg1", number), Resubmit(MTU))
    return check, _rule(MTU, 10, actions, Field("reg1", number))


TOO_LARGE = _rule(MTU, 20, NORMAL, Field("reg0", 1, 1))


def _key_match(version: int, key: Key | FiveTuple) -> tuple[int, tuple[Field, ...]]:
    """(priority, fields) of a prefix or a connection."""
    family = f"ipv{version}"
    if isinstance(key, FiveTuple):
        ports = "tcp" if key.ip_proto == TCP else "udp"
        fields = (
            Field(f"{family}_src", key.src),
            Field(f"{family}_dst", key.dst),
            Field("ip_proto", key.ip_proto),
            Field("nw_frag", 0),
            Field(f"{ports}_src", key.sport),
            Field(f"{ports}_dst", key.dport),
        )
        return BY_CONNECTION, fields
    value, length = key >> 8, key & 0xFF
    bits = BITS[version]
    if not length:
        return BY_PREFIX, ()
    mask = None if length == bits else ((1 << length) - 1) << (bits - length)
    return BY_PREFIX + 2 * length, (Field(f"{family}_dst", value, mask),)


def flow_key(node: Node, key: Key | FiveTuple) -> RuleKey:
    """The match of a collapsed rule."""
    priority, fields = _key_match(node.version, key)
    eth_dst = Field("eth_dst", node.interface.mac)
    if node.eth_src is None:
        return RuleKey(FLOW_SWITCH, priority, (eth_dst, _eth_type(node.version), *fields))
    eth_src = Field("eth_src", node.eth_src)
    return RuleKey(FLOW_SWITCH, priority + 1, (eth_dst, eth_src, _eth_type(node.version), *fields))


class Groups:
    """Which group number stands for which effect on one bridge.

    A number follows from the effect (so that it is the same after a restart), or is the next free one.
    """

    def __init__(self, known: Mapping[Effect, int] | None = None) -> None:
        self._known = dict(known or {})
        self.numbers: dict[Effect, int] = {}
        self._taken: dict[int, Effect] = {}
        self.uses: Counter[Effect] = Counter()

    def use(self, effect: Effect) -> bool:
        """One more rule has this effect; true if it is the first."""
        self.uses[effect] += 1
        if self.uses[effect] > 1:
            return False
        number = self._known.get(effect) or zlib.crc32(repr(tuple(effect)).encode()) & 0x7FFF_FFFF or 1
        while number in self._taken:
            number = number % 0x7FFF_FFFF + 1
        self.numbers[effect], self._taken[number] = number, effect
        return True

    def leave(self, effect: Effect) -> int | None:
        """One rule less; the number, if it was the last."""
        self.uses[effect] -= 1
        if self.uses[effect]:
            return None
        del self.uses[effect]
        number = self.numbers.pop(effect)
        del self._taken[number]
        return number


class Layout:
    """The tables of all bridges, for one network and what its compiler has found."""

    def __init__(self, network: Network, compiler: Compiler, before: Layout | None = None) -> None:
        self.network, self.compiler = network, compiler
        self.groups: dict[str, Groups] = {
            name: Groups(before.groups[name].numbers if before and name in before.groups else None)
            for name in network.bridges
        }
        self.joined: set[frozenset[str]] = set()
        """The pairs of bridges that some chain has needed joined."""
        for _, node in compiler.nodes():
            bridge = node.interface.bridge
            for effect in node.rules.values():
                if needs_group(effect) and self.groups[bridge].use(effect):
                    self._join(bridge, effect)
        self.frames = {name: self._frame(name) for name in network.bridges}

    def _frame(self, bridge: str) -> RuleTable:
        here = (i for i in self.network.interfaces() if i.bridge == bridge)
        longest = {(i.router, i.name): self.compiler.longest_chain(i.router, i.name) for i in here}
        return frame(self.network, bridge, longest)

    def tables(self) -> dict[str, RuleTable]:
        """All rules and groups, by bridge."""
        tables = {name: RuleTable(dict(frame.rules)) for name, frame in self.frames.items()}
        for name, table in tables.items():
            for effect, number in self.groups[name].numbers.items():
                table.groups[number], rule = group_of(self.network, name, effect, number)
                if rule is not None:
                    table.add(rule, TOO_LARGE)
        for _, node in self.compiler.nodes():
            rules = tables[node.interface.bridge].rules
            for key, effect in node.rules.items():
                rules[flow_key(node, key)] = self.rule_actions(node.interface.bridge, effect)
        return tables

    def rule_actions(self, bridge: str, effect: Effect) -> tuple[Action, ...]:
        """The actions of a collapsed rule."""
        if needs_group(effect):
            return (ToGroup(self.groups[bridge].numbers[effect]),)
        return NORMAL if effect.kind == SLOW else ()

    def _join(self, bridge: str, effect: Effect) -> None:
        if effect.kind == FORWARD:
            hop = self.network.fibs[effect.router].nexthops[effect.nexthop]
            out = self.network.routers[effect.router].interfaces[hop.out]
            if out.bridge != bridge:
                self.joined.add(frozenset((bridge, out.bridge)))

    def apply(self, emissions: Iterable[Emission]) -> dict[str, list[Change]]:
        """The changes of rules and groups that these changes of effects mean (unordered)."""
        changes: dict[str, list[Change]] = {}
        retired: list[tuple[str, Effect]] = []
        for emission in emissions:
            bridge = emission.node.interface.bridge
            into = changes.setdefault(bridge, [])
            if emission.new is not None and needs_group(emission.new) and self.groups[bridge].use(emission.new):
                into.extend(self._new_group(bridge, emission.new))
            actions = None if emission.new is None else self.rule_actions(bridge, emission.new)
            into.append(RuleChange(flow_key(emission.node, emission.key), actions, emission.old is None))
            if emission.old is not None and needs_group(emission.old):
                retired.append((bridge, emission.old))
        for bridge, effect in retired:
            number = self.groups[bridge].leave(effect)
            if number is not None:
                changes[bridge].extend(self._old_group(bridge, effect, number))
        for bridge, into in changes.items():
            into.extend(self._reframe(bridge))
        return changes

    def _new_group(self, bridge: str, effect: Effect) -> Iterator[Change]:
        self._join(bridge, effect)
        number = self.groups[bridge].numbers[effect]
        actions, rule = group_of(self.network, bridge, effect, number)
        yield GroupChange(number, actions, True)
        if rule is not None:
            yield RuleChange(rule.key, rule.actions, True)
            yield RuleChange(TOO_LARGE.key, TOO_LARGE.actions, True)

    def _old_group(self, bridge: str, effect: Effect, number: int) -> Iterator[Change]:
        _, rule = group_of(self.network, bridge, effect, number)
        yield GroupChange(number, None, False)
        if rule is not None:
            yield RuleChange(rule.key, None, False)
            if not any(other.limit for other in self.groups[bridge].numbers):
                yield RuleChange(TOO_LARGE.key, None, False)

    def _reframe(self, bridge: str) -> Iterator[Change]:
        """Guard rules follow the longest chain in force."""
        old, new = self.frames[bridge].rules, self._frame(bridge).rules
        self.frames[bridge].rules = new
        for key, actions in new.items():
            if old.get(key) != actions:
                yield RuleChange(key, actions, key not in old)
        for key in old.keys() - new.keys():
            yield RuleChange(key, None, False)


def tables(network: Network, compiler: Compiler) -> dict[str, RuleTable]:
    """All bridges' tables, from nothing."""
    return Layout(network, compiler).tables()
