"""The tables of a bridge (docs/pipeline.md): what the compiler found, as OpenFlow rules.

Pure. A rule of the flow switch table names its *way* out by a number, and one rule of the ways table
does what the whole chain does: a next hop's new MAC changes one rule, however many prefixes use it.
`Layout` keeps the numbers, so that a change of the network becomes few changes of rules; `tables`
makes all rules from scratch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from fsctl.collapse.compiler import Compiler
from fsctl.collapse.effects import FORWARD, Effect
from fsctl.collapse.node import Emission, Node
from fsctl.model.network import Network
from fsctl.openflow.rules import (
    Action,
    RuleChange,
    RuleKey,
    RuleTable,
)
from fsctl.pipeline import diff
from fsctl.pipeline.fixed_rules import BRIDGE, Longest, fixed_rules
from fsctl.pipeline.flow_rules import flow_key, way_of
from fsctl.pipeline.rewrites import Tally, Ways, has_way
from fsctl.pipeline.stop_rules import stop_rules


class Layout:
    """The tables of all bridges, for one network and its compiled rules."""

    def __init__(self, network: Network, compiler: Compiler, before: Layout | None = None) -> None:
        self.network, self.compiler = network, compiler
        self.ways: dict[str, Ways] = {
            name: Ways(before.ways[name].numbers if before and name in before.ways else None) for name in network.bridges
        }
        self._joins: Counter[frozenset[str]] = Counter()
        for _, node in compiler.nodes():
            bridge = node.interface.bridge
            for effect in node.rules.values():
                if has_way(effect) and self.ways[bridge].use(effect):
                    self._join(bridge, effect, 1)
        self.longest = {name: self._longest(name) for name in network.bridges}
        self.frames = {name: fixed_rules(network, name, self.longest[name]) for name in network.bridges}
        self.stopped: dict[str, int] = dict(before.stopped) if before else {}
        """The routers past which nothing is bypassed (`stops`), and the turn of each."""
        self._turn: int = before._turn if before else 0
        self._stop_rules = self._stops(self.stopped)

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
        return self.ways[bridge].actions.get(effect, BRIDGE)

    @property
    def joined(self) -> frozenset[frozenset[str]]:
        """The pairs of bridges that chains need joined now."""
        return frozenset(self._joins)

    # --- stops -------------------------------------------------------------------------------------------

    def stop(self, router: str) -> dict[str, list[RuleChange]]:
        """End the bypass past a router, until `restop` without it; returns the rules to be added, by bridge."""
        self._turn += 1
        self.stopped[router] = self._turn
        added: dict[str, list[RuleChange]] = {}
        for bridge, rules in self._stops({router: self._turn}).items():
            self._stop_rules[bridge] |= rules
            added[bridge] = [RuleChange(key, actions) for key, actions in rules.items()]
        return added

    def restop(self, routers: Collection[str]) -> dict[str, list[RuleChange]]:
        """Of the stopped routers, these stay so: follow what leads to them now. Returns the changes, by bridge."""
        if not self.stopped:
            return {}
        self.stopped = {router: turn for router, turn in self.stopped.items() if router in routers}
        before, self._stop_rules = self._stop_rules, self._stops(self.stopped)
        changes: dict[str, list[RuleChange]] = {}
        for bridge, rules in self._stop_rules.items():
            old = before[bridge]
            found = [RuleChange(key, actions) for key, actions in rules.items() if key not in old]
            found += [RuleChange(key, None, False) for key in old.keys() - rules.keys()]
            if found:
                changes[bridge] = found
        return changes

    def _stops(self, stopped: Mapping[str, int]) -> dict[str, dict[RuleKey, tuple[Action, ...]]]:
        """The stop rules for these routers, by bridge; a router that is not configured any more has none."""
        found: dict[str, dict[RuleKey, tuple[Action, ...]]] = {bridge: {} for bridge in self.network.bridges}
        for router, turn in stopped.items():
            for bridge, made in stop_rules(self.compiler, router, turn):
                found[bridge][made.key] = made.actions
        return found

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
        """Translate changes of effects into changes of rules: unordered pieces, to be made as one bundle per bridge."""
        # Hot path: effects are interned, so id() names them without hashing.
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
        """Update the ways' reference counts; delete the ways that no rule uses any more."""
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
        for made in way_of(self.network, bridge, effect, self.ways[bridge].numbers[effect]):
            yield RuleChange(made.key, made.actions)

    def _old_way(self, bridge: str, effect: Effect, number: int) -> Iterator[RuleChange]:
        self._join(bridge, effect, -1)
        for made in way_of(self.network, bridge, effect, number):
            yield RuleChange(made.key, None, False)

    def _reframe(self, bridge: str) -> Iterator[RuleChange]:
        """Change the guard rules that depend on the longest chain in force."""
        self.longest[bridge] = self._longest(bridge)
        old, new = self.frames[bridge].rules, fixed_rules(self.network, bridge, self.longest[bridge]).rules
        self.frames[bridge].rules = new
        for key, actions in new.items():
            if old.get(key) != actions:
                yield RuleChange(key, actions, key not in old)
        for key in old.keys() - new.keys():
            yield RuleChange(key, None, False)

    def rewire(self, network: Network) -> dict[str, list[RuleChange]]:
        """Use a network that differs only in what no walk depends on: ways and fixed rules may change, no others."""
        before = {bridge: self._few(bridge) for bridge in self.ways}
        self.network = network
        for bridge, frame_now in self.frames.items():
            frame_now.rules = fixed_rules(network, bridge, self.longest[bridge]).rules
        return {bridge: diff.diff(self._few(bridge), before[bridge], bridge).changes for bridge in before}

    def reroute(self, router: str, numbers: Collection[int]) -> dict[str, list[RuleChange]]:
        """These next hops of a router have another MAC: their ways change, no other rule does."""
        changes: dict[str, list[RuleChange]] = {}
        for bridge, ways in self.ways.items():
            for effect, number in ways.numbers.items():
                if effect.router == router and effect.nexthop in numbers:
                    rules = way_of(self.network, bridge, effect, number)
                    changes.setdefault(bridge, []).extend(RuleChange(r.key, r.actions, False) for r in rules)
        return changes

    def since(self, before: Layout) -> dict[str, list[RuleChange]]:
        """The changes from the tables of `before`, a layout of the same bridges, to this one's."""
        changes: dict[str, list[RuleChange]] = {name: [] for name in self.network.bridges}
        for name, into in changes.items():
            old, new = before._few(name), self._few(name)
            into.extend(diff.diff(new, old, name).changes)
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
        """All rules of a bridge but the collapsed ones: fixed rules, stop rules and ways."""
        table = RuleTable(self.frames[bridge].rules | self._stop_rules[bridge])
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
    """All bridges' tables, made from scratch."""
    return Layout(network, compiler).tables()
