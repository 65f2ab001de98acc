"""The tables of a bridge (docs/pipeline.md): what the compiler found, as OpenFlow rules.

Pure. A rule of the flow switch table names its *way* out by a number, and one rule of the ways table
does what the whole chain does: a next hop that changes is one rule, however many prefixes use it.
`Layout` keeps the numbers, so that a change of the network becomes few changes of rules; `tables`
gives everything from nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from fsctl import reconcile
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
    NO_PROTO,
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
    WAYS,
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
    RuleChange,
    RuleKey,
    RuleTable,
    SetField,
    match_of,
)
from fsctl.ways import Tally, Ways, has_way

ETH_TYPE = {IPV4: 0x0800, IPV6: 0x86DD}
ETHERNET_HEADER = 14
VLAN_PRESENT = 0x1000
# Priorities in table 0 are low on purpose: whatever else rules the bridge keeps its say.
FROM_LINK, EXEMPT, LOCAL_SCOPE, LOW_TTL, FROM_ROUTER, SPOOFED, TO_ROUTER, ELSE = 9, 8, 7, 6, 5, 4, 3, 1
BY_PREFIX, BY_CONNECTION = 1000, 5000
NORMAL: tuple[Action, ...] = (Normal(),)
ELSES = (Rule(RuleKey(GUARD, ELSE, ()), NORMAL), *(Rule(RuleKey(t, 0, ()), NORMAL) for t in (FLOW_SWITCH, WAYS, MTU)))
"""Whatever is missing, a packet that nobody has rewritten yet takes the slow path. Table 2 alone drops."""
TOO_LARGE = Rule(RuleKey(MTU, 20, (Field("reg0", 1, 1),)), NORMAL)
Longest = Mapping[tuple[str, str], int | None]
"""(router, interface) -> hops of the longest chain in force from there, None where there is no rule."""


def _rule(table: int, priority: int, actions: tuple[Action, ...], *fields: Field) -> Rule:
    return Rule(RuleKey(table, priority, match_of(*fields)), actions)


def _eth_type(version: int) -> Field:
    return Field("eth_type", ETH_TYPE[version])


# --- table 0 and 2: they follow from the network, not from delegations --------------------------------


def _exempt(network: Network, bridge: str) -> Iterator[Rule]:
    """What is never bypassed, whoever sends it."""
    yield _rule(GUARD, EXEMPT, NORMAL, Field("vlan_tci", VLAN_PRESENT, VLAN_PRESENT))
    yield _rule(GUARD, EXEMPT, NORMAL, Field("eth_src", MULTICAST_BIT, MULTICAST_BIT))
    for version in (IPV4, IPV6):
        yield _rule(GUARD, EXEMPT, NORMAL, _eth_type(version), Field("ip_proto", NO_PROTO))
    for ofport in network.bridges[bridge].exempt_ports:
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


def frame(network: Network, bridge: str, longest: Longest) -> RuleTable:
    """Guard and egress of one bridge; `longest` is the longest chain by (router, interface)."""
    table = RuleTable()
    table.add(*ELSES, TOO_LARGE, *_exempt(network, bridge))
    for ofport in network.bridges[bridge].links.values():
        table.add(_rule(GUARD, FROM_LINK, (GotoTable(EGRESS),), Field("in_port", ofport)))
    for interface in network.interfaces():
        if interface.bridge != bridge or not interface.mac:
            continue  # elsewhere, or its MAC is not known yet
        table.add(*_admission(interface, longest.get((interface.router, interface.name))))
        if interface.ofport is not None and interface.up:
            deliver = (SetField("in_port", interface.ofport), Normal())
            table.add(_rule(EGRESS, 10, deliver, Field("eth_src", interface.mac)))
    return table


# --- table 1, the ways out, and the MTU -----------------------------------------------------------------


def actions_of(network: Network, bridge: str, effect: Effect) -> tuple[Action, ...]:
    """What the whole chain does to a packet that is short enough."""
    if effect.kind != FORWARD:
        return () if effect.kind == DROPPED else NORMAL
    hop = network.fibs[effect.router].nexthops[effect.nexthop]
    out = network.routers[effect.router].interfaces[hop.out]
    links = network.bridges[bridge].links
    if out.bridge == bridge:
        away: Action = Resubmit(EGRESS)
    elif out.bridge in links and network.bridges[out.bridge].takes(bridge, out.mac, out.ofport):
        away = Output(links[out.bridge])
    else:
        return NORMAL  # no patch port, no end to it, or the last bridge is not ready: the slow path
    return DecTtl(effect.hops), SetField("eth_src", out.mac), SetField("eth_dst", hop.eth_dst), away


def way_of(network: Network, bridge: str, effect: Effect, number: int) -> tuple[Rule, ...]:
    """The rules of way `number`: one, or with an MTU to watch the check and what follows it.

    They match on the IP version because dec_ttl wants it (OFPBAC_MATCH_INCONSISTENT otherwise).
    """
    actions = actions_of(network, bridge, effect)
    taken = (_eth_type(effect.version), Field("reg1", number))
    if not effect.limit or actions == NORMAL:
        return (_rule(WAYS, 10, actions, *taken),)
    check = (CheckLarger(effect.limit + ETHERNET_HEADER), GotoTable(MTU))
    return _rule(WAYS, 10, check, *taken), _rule(MTU, 10, actions, *taken)


_MASKS = {v: [((1 << n) - 1) << (bits - n) for n in range(bits)] + [None] for v, bits in BITS.items()}


def _connection_fields(connection: FiveTuple) -> tuple[Field, ...]:
    family, ports = f"ipv{connection.version}", "tcp" if connection.ip_proto == TCP else "udp"
    return (
        Field(f"{family}_src", connection.src),
        Field(f"{family}_dst", connection.dst),
        Field("ip_proto", connection.ip_proto),
        Field("nw_frag", 0),
        Field(f"{ports}_src", connection.sport),
        Field(f"{ports}_dst", connection.dport),
    )


def flow_key(node: Node, key: Key | FiveTuple) -> RuleKey:
    """The match of a collapsed rule. On the path of every rule: the node's part is made once."""
    head = node.head
    if head is None:
        eth_src = () if node.eth_src is None else (Field("eth_src", node.eth_src),)
        head = node.head = (Field("eth_dst", node.interface.mac), *eth_src, _eth_type(node.version))
    of_class = node.eth_src is not None
    if isinstance(key, FiveTuple):
        return RuleKey(FLOW_SWITCH, BY_CONNECTION + of_class, head + _connection_fields(key))
    length = key & 0xFF
    if not length:
        return RuleKey(FLOW_SWITCH, BY_PREFIX + of_class, head)
    dst = Field("ipv4_dst" if node.version == IPV4 else "ipv6_dst", key >> 8, _MASKS[node.version][length])
    return RuleKey(FLOW_SWITCH, BY_PREFIX + 2 * length + of_class, (*head, dst))


class Layout:
    """The tables of all bridges, for one network and what its compiler has found."""

    def __init__(self, network: Network, compiler: Compiler, before: Layout | None = None) -> None:
        self.network, self.compiler = network, compiler
        self.ways: dict[str, Ways] = {
            name: Ways(before.ways[name].numbers if before and name in before.ways else None)
            for name in network.bridges
        }
        self._joins: Counter[frozenset[str]] = Counter()
        for _, node in compiler.nodes():
            bridge = node.interface.bridge
            for effect in node.rules.values():
                if has_way(effect) and self.ways[bridge].use(effect):
                    self._join(bridge, effect, 1)
        self.longest = {name: self._longest(name) for name in network.bridges}
        self.frames = {name: frame(network, name, self.longest[name]) for name in network.bridges}

    def _longest(self, bridge: str) -> Longest:
        """The longest chain in force from each interface of a bridge."""
        here = (i for i in self.network.interfaces() if i.bridge == bridge)
        return {(i.router, i.name): self.compiler.longest_chain(i.router, i.name) for i in here}

    def table(self, bridge: str) -> RuleTable:
        """All rules of one bridge."""
        table = self._few(bridge)
        for _, node in self.compiler.nodes():
            if node.interface.bridge == bridge:
                for key, effect in node.rules.items():
                    table.rules[flow_key(node, key)] = self.rule_actions(bridge, effect)
        return table

    def tables(self) -> dict[str, RuleTable]:
        """All rules, by bridge."""
        return {bridge: self.table(bridge) for bridge in self.network.bridges}

    def rule_actions(self, bridge: str, effect: Effect) -> tuple[Action, ...]:
        """The actions of a collapsed rule."""
        return self.ways[bridge].actions.get(effect) or (NORMAL if effect.kind == SLOW else ())

    @property
    def joined(self) -> frozenset[frozenset[str]]:
        """The pairs of bridges that chains need joined now."""
        return frozenset(self._joins)

    def _join(self, bridge: str, effect: Effect, by: int) -> None:
        """Count a way that leads (+1) or led (-1) to another bridge."""
        if effect.kind == FORWARD:
            hop = self.network.fibs[effect.router].nexthops[effect.nexthop]
            out = self.network.routers[effect.router].interfaces[hop.out]
            if out.bridge != bridge:
                pair = frozenset((bridge, out.bridge))
                self._joins[pair] += by
                if not self._joins[pair]:
                    del self._joins[pair]

    def apply(self, pieces: Iterable[Sequence[Emission]]) -> Iterator[dict[str, list[RuleChange]]]:
        """The changes of rules that these changes of effects mean: unordered, piece by piece, to be made all at once."""
        # Effects are interned: on the path of every rule their identity is a quicker name than their value.
        came: dict[tuple[str, int], Tally] = {}
        went: dict[tuple[str, int], Tally] = {}
        bridges: set[str] = set()
        for emissions in pieces:
            changes: dict[str, list[RuleChange]] = {}
            self._translate(emissions, changes, came, went)
            bridges.update(changes)
            yield changes
        rest: dict[str, list[RuleChange]] = {bridge: [] for bridge in bridges}
        self._count(came.values(), went.values(), rest)
        for bridge, into in rest.items():
            if self._longest(bridge) != self.longest[bridge]:
                into.extend(self._reframe(bridge))
        yield {bridge: into for bridge, into in rest.items() if into}

    def _translate(
        self,
        emissions: Iterable[Emission],
        changes: dict[str, list[RuleChange]],
        came: dict[tuple[str, int], Tally],
        went: dict[tuple[str, int], Tally],
    ) -> None:
        for node, key, old, new in emissions:
            bridge = node.interface.bridge
            into = changes.get(bridge)
            if into is None:
                into = changes[bridge] = []
            actions = None
            if new is not None:
                tally = came.get((bridge, id(new)))
                if tally is None:
                    into.extend(self._first(bridge, new))
                    tally = came[bridge, id(new)] = Tally(bridge, new, self.rule_actions(bridge, new))
                tally.rules += 1
                actions = tally.actions
            into.append(RuleChange(flow_key(node, key), actions, old is None))
            if old is not None:
                went.setdefault((bridge, id(old)), Tally(bridge, old)).rules += 1

    def _first(self, bridge: str, effect: Effect) -> Iterator[RuleChange]:
        """The rules of an effect's way, if no rule had this effect before."""
        if has_way(effect) and self.ways[bridge].use(effect):
            yield from self._new_way(bridge, effect)

    def _count(self, came: Iterable[Tally], went: Iterable[Tally], changes: dict[str, list[RuleChange]]) -> None:
        """Keep the books of the ways; those that no rule leads to any more are removed."""
        for tally in came:
            if has_way(tally.effect):
                self.ways[tally.bridge].uses[tally.effect] += tally.rules - 1  # `_first` has counted one
        for tally in went:
            if has_way(tally.effect):
                number = self.ways[tally.bridge].leave(tally.effect, tally.rules)
                if number is not None:
                    changes[tally.bridge].extend(self._old_way(tally.bridge, tally.effect, number))

    def _new_way(self, bridge: str, effect: Effect) -> Iterator[RuleChange]:
        self._join(bridge, effect, 1)
        for rule in way_of(self.network, bridge, effect, self.ways[bridge].numbers[effect]):
            yield RuleChange(rule.key, rule.actions)

    def _old_way(self, bridge: str, effect: Effect, number: int) -> Iterator[RuleChange]:
        self._join(bridge, effect, -1)
        for rule in way_of(self.network, bridge, effect, number):
            yield RuleChange(rule.key, None, False)

    def _reframe(self, bridge: str) -> Iterator[RuleChange]:
        """Guard rules follow the longest chain in force."""
        self.longest[bridge] = self._longest(bridge)
        old, new = self.frames[bridge].rules, frame(self.network, bridge, self.longest[bridge]).rules
        self.frames[bridge].rules = new
        for key, actions in new.items():
            if old.get(key) != actions:
                yield RuleChange(key, actions, key not in old)
        for key in old.keys() - new.keys():
            yield RuleChange(key, None, False)

    def rewire(self, network: Network) -> dict[str, list[RuleChange]]:
        """`network` differs from the present one in its patch links alone: ways and frames follow, nothing else."""
        before = {bridge: self._few(bridge) for bridge in self.ways}
        self.network = network
        for bridge, frame_now in self.frames.items():
            frame_now.rules = frame(network, bridge, self.longest[bridge]).rules
        return {bridge: reconcile.diff(self._few(bridge), before[bridge], bridge).changes for bridge in before}

    def reroute(self, router: str, numbers: Collection[int]) -> dict[str, list[RuleChange]]:
        """These next hops of a router have another MAC: their ways follow, no other rule does."""
        changes: dict[str, list[RuleChange]] = {}
        for bridge, ways in self.ways.items():
            for effect, number in ways.numbers.items():
                if effect.router == router and effect.nexthop in numbers:
                    rules = way_of(self.network, bridge, effect, number)
                    changes.setdefault(bridge, []).extend(RuleChange(r.key, r.actions, False) for r in rules)
        return changes

    def since(self, before: Layout) -> dict[str, list[RuleChange]]:
        """What turns the tables of `before`, a layout of the same bridges, into this one's."""
        changes: dict[str, list[RuleChange]] = {name: [] for name in self.network.bridges}
        for name, into in changes.items():
            old, new = before._few(name), self._few(name)
            into.extend(reconcile.diff(new, old, name).changes)
        old_nodes = {before._place(node): node for _, node in before.compiler.nodes()}
        for _, node in self.compiler.nodes():
            twin = old_nodes.pop(self._place(node), None)
            changes[node.interface.bridge].extend(self._node_since(before, twin, node))
        for node in old_nodes.values():
            gone = [RuleChange(flow_key(node, key), None, False) for key in node.rules]
            changes[node.interface.bridge].extend(gone)
        return changes

    @staticmethod
    def _place(node: Node) -> tuple[int, str, int, int | None]:
        return node.version, node.interface.bridge, node.interface.mac, node.eth_src

    def _few(self, bridge: str) -> RuleTable:
        """All of a bridge's tables but the flow switch's rules."""
        table = RuleTable(dict(self.frames[bridge].rules))
        for effect, number in self.ways[bridge].numbers.items():
            table.add(*way_of(self.network, bridge, effect, number))
        return table

    def _node_since(self, before: Layout, twin: Node | None, node: Node) -> Iterator[RuleChange]:
        old_rules = twin.rules if twin is not None else {}
        bridge = node.interface.bridge
        for key, effect in node.rules.items():
            old = old_rules.get(key)
            actions = self.rule_actions(bridge, effect)
            if old is None or before.rule_actions(bridge, old) != actions:
                yield RuleChange(flow_key(node, key), actions, old is None)
        for key in old_rules.keys() - node.rules.keys():
            yield RuleChange(flow_key(node, key), None, False)


def tables(network: Network, compiler: Compiler) -> dict[str, RuleTable]:
    """All bridges' tables, from nothing."""
    return Layout(network, compiler).tables()
