"""Collapse: all walks that start at a router interface, compiled into single rules.

`Compiler(network)` compiles everything; `update` recompiles only the region that a change of delegations can
affect. Both keep the rules in force per node; `update` yields what changed. Pure: it computes over the values it
is given. A property test holds region and full equal, and both equal
to `specification.walk`, which shares no code with this.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from itertools import chain

from fsctl.collapse.cuts import may_be_needed, wanted
from fsctl.collapse.effects import DROPPED, LOCAL_ID, MARTIAN, NEVER_FORWARDED, NO_SENDER, SLOW, Outcome, Place, Point
from fsctl.collapse.graph import Graph
from fsctl.collapse.node import Emission, Node, State
from fsctl.collapse.sweep import above, at_point, root, sweep, sweep_points
from fsctl.model.addresses import BITS, IPV4, IPV6
from fsctl.model.delegations import Delegation, FiveTuple, Forward, Match, Verdict
from fsctl.model.fib import Change, PartKey, change_of, match_of_change
from fsctl.model.network import Network
from fsctl.model.prefix_keys import Key, mask

Replaced = tuple[Change, Verdict | None]
"""A change that was carried out, and what was there before (None: nothing)."""
_GRAINS = 64
"""A bound may be exceeded by one part in so many before chains are cut: the cost is not counted anew with each write."""
_TOGETHER = 16
"""How many small pieces are merged into one: each costs its receiver an OpenFlow message."""


def _no_pause() -> None:
    return None


class Compiler:
    """The compiled state of one network. `pause` is called every few milliseconds while everything is compiled.

    Chains are cut where that is needed (`cuts`); with `decide` False as `network.cuts` says.
    """

    def __init__(self, network: Network, pause: Callable[[], None] = _no_pause, *, decide: bool = True) -> None:
        self.network = network
        self.graphs = {version: Graph(network, version) for version in (IPV4, IPV6)}
        self.longest: dict[tuple[str, str], Counter[int]] = {}
        for graph in self.graphs.values():
            if decide:
                self._cut(graph)
            else:
                graph.cut(network.cuts)
            for emissions in self._full(graph):
                self._count(emissions)
                pause()

    # --- compiling ---------------------------------------------------------------------------------

    @staticmethod
    def _full(graph: Graph) -> Iterator[list[Emission]]:
        yield from sweep(graph, graph.places.order, root(graph), {}, graph.concerned(set(range(len(graph.nodes))), {}))
        yield from sweep_points(graph, graph.places.points, {})

    def update(self, replaced: Mapping[str, Sequence[Replaced]]) -> Iterator[list[Emission]]:
        """Recompile after the FIBs of these routers have changed; yields the changes of rules.

        Yields pieces, each of a few milliseconds' work, so that they can be sent while the rest is compiled. Exhaust
        the iterator; otherwise the compiled state is inconsistent, and everything has to be compiled anew.
        """
        seeds: dict[int, dict[Place, frozenset[int]]] = {IPV4: {}, IPV6: {}}
        for router, changes in replaced.items():
            for change, _ in changes:
                if change.part[2] is not None:
                    self.graphs[change.part[1]].ensure_node(router, change.part[0], change.part[2])
            for graph in self.graphs.values():
                graph.refresh(router)
            self._seed(router, changes, seeds)
            yield []
        for version, changed in seeds.items():
            self._review(self.graphs[version], replaced.keys(), changed)
        for version, places in seeds.items():
            if places:
                for emissions in self._region(self.graphs[version], places):
                    self._count(emissions)
                    yield emissions

    def _seed(self, router: str, changes: Sequence[Replaced], seeds: dict[int, dict[Place, frozenset[int]]]) -> None:
        """Record the nodes whose verdict changed, per place. (Many changes concern few nodes.)"""
        touched: dict[PartKey, frozenset[int]] = {}
        for (part, key, verdict), before in changes:
            version = part[1]
            if (before is None) != (verdict is None):
                self.graphs[version].places.count(key, 1 if before is None else -1)
            nodes = touched.get(part)
            if nodes is None:
                node = self.graphs[version].node_of[router, part[0], part[2]]
                nodes = touched[part] = frozenset((node.index, *(n.index for n in node.classes)))
            places = seeds[version]
            for place in (key, key.fragments) if isinstance(key, FiveTuple) else (key,):
                others = places.get(place)
                places[place] = nodes if others is None else others | nodes

    def _cut(self, graph: Graph) -> list[Node]:
        """Cut the chains that have to be; returns the interfaces (base nodes) where that has changed."""
        cuts = self.network.cuts
        before = {place for place in cuts if place[2] == graph.version}
        needed = wanted(graph) if before or may_be_needed(graph, graph.places.total) else set()
        cuts -= before - needed
        cuts |= needed
        return graph.cut(needed)

    def _review(self, graph: Graph, routers: Set[str], places: dict[Place, frozenset[int]]) -> None:
        """After FIBs have changed: cut chains or lift cuts where that is needed now, and recompile there too.

        It is not asked again while nothing has made walks longer and there are about as many delegations as before.
        """
        cuts = [place for place in self.network.cuts if place[2] == graph.version]
        if not cuts and not may_be_needed(graph, graph.places.total):
            return
        graph.explore(places.items())
        seen = (graph.turns, graph.places.total // max(1, self.network.least_max_rules // _GRAINS))
        if seen == graph.reviewed and not any(router in routers for router, _, _ in cuts):
            return
        graph.reviewed = seen
        for base in self._cut(graph):
            for node in (base, *base.classes):
                part = node.own if node is not base else node.any
                nodes = frozenset((node.index, *(n.index for n in node.classes)))
                for key in part.prefixes:
                    places[key] = places.get(key, frozenset()) | nodes

    @staticmethod
    def _region(graph: Graph, places: dict[Place, frozenset[int]]) -> Iterator[list[Emission]]:
        """Recompile inside the changed prefixes, for the walks that pass a changed node."""
        changed = sorted(key for key in places if isinstance(key, Key))
        seeds = {key: places[key] for key in changed}
        points = {key: nodes for key, nodes in places.items() if not isinstance(key, Key)}
        watched = {n.base.index for n in graph.upstream(frozenset(chain.from_iterable(places.values())))}
        concerned = graph.concerned(watched, seeds)
        if len(changed) * 8 > len(graph.places.order):
            yield from sweep(graph, sorted({*graph.places.order, *changed}), root(graph), seeds, concerned)
            yield from sweep_points(graph, graph.places.points.keys() | points.keys(), points)
            return
        found: list[Emission] = []
        near, pieces = set(points), 0
        for first, last in _disjoint(graph.version, changed):
            end = last << 8 | 0xFF
            gone = changed[bisect_left(changed, first) : bisect_right(changed, end)]
            keys = sorted({*graph.places.order.irange(first, end), *gone})
            for piece in sweep(graph, keys, above(graph, first), seeds, concerned):
                found += piece
                pieces += 1
                if not pieces % _TOGETHER:
                    yield found
                    found = []
            for dst in graph.places.by_dst.irange(first >> 8, last):
                near |= graph.places.by_dst[dst]
        yield found
        yield from sweep_points(graph, near, points)

    def _count(self, emissions: Iterable[Emission]) -> None:
        """Count the rules of each chain length, by interface."""
        by_node: dict[Node, Counter[int]] = {}
        for node, _, old, new in emissions:
            longest = by_node.get(node)
            if longest is None:
                place = (node.interface.router, node.interface.name)
                longest = by_node[node] = self.longest.setdefault(place, Counter())
            if old is not None and old.kind != SLOW:
                longest[old.hops] -= 1
            if new is not None and new.kind != SLOW:
                longest[new.hops] += 1

    def forget(self, router: str, nexthops: Set[int]) -> None:
        """These next hops are in use nowhere any more."""
        for graph in self.graphs.values():
            graph.forget(router, nexthops)

    def discard(self) -> None:
        """Break the reference cycles of a compiler that is not used any more, so that its memory is freed at once."""
        for _, node in self.nodes():
            node.steps.clear()
            node.classes.clear()

    # --- asking ------------------------------------------------------------------------------------

    def rewire(self, network: Network) -> None:
        """Use a network that differs only in what no walk depends on (`inventory.without_switch_state`)."""
        network.cuts.update(self.network.cuts)
        self.network = network
        for graph in self.graphs.values():
            graph.network = network

    def leads_on(self, router: str, nexthop: Forward) -> bool:
        """Whether a next hop is a router's interface, so that walks go on from there."""
        bridge = self.network.routers[router].interfaces[nexthop.out].bridge
        return (bridge, nexthop.eth_dst) in self.network.by_mac

    def nodes(self) -> Iterator[tuple[Graph, Node]]:
        for graph in self.graphs.values():
            for node in graph.nodes:
                yield graph, node

    def longest_chain(self, router: str, interface: str) -> int | None:
        """The most hops of any rule in force there; None where there is no rule."""
        counts = self.longest.get((router, interface))
        return max((hops for hops, count in counts.items() if count), default=None) if counts else None

    def outcome(self, router: str, match: Match) -> Outcome:
        """How the walk of packets that `match` covers at its ingress interface ends."""
        graph, node, state = self._place(router, match)
        return self._result(graph, node, state, match)

    def chain(self, router: str, match: Match, *, fragment: bool = False) -> tuple[tuple[str, Delegation], ...]:
        """The (router, delegation) pairs that decide such a walk, in order; at most one where there is no bypass.

        `fragment`: the walk of fragments that may belong to the connection of `match`.
        """
        graph, node, state = self._place(router, match, fragment)
        outcome = self._result(graph, node, state, match)
        length = 1 if outcome.kind == SLOW else outcome.hops + (outcome.kind == DROPPED)
        hops: list[tuple[str, Delegation]] = []
        here: Node | None = node
        while here is not None and len(hops) < length:
            number = state.best[here.index]
            if number is None or number == LOCAL_ID or (fragment and here.at_point(_points(match, fragment)[0]) is not None):
                break
            hops.append((here.interface.router, self._delegation(graph, here, match)))
            step = graph.step(here, number)
            here = None if isinstance(step, Outcome) else step.target
        return tuple(hops)

    def rule_at(self, router: str, match: Match, *, fragment: bool = False) -> tuple[Node, Place] | None:
        """The rule for a packet (or a `fragment`) that `match` covers at its ingress interface; None: there is none."""
        graph, node, _ = self._place(router, match, fragment)
        nodes = [node] if node.eth_src is None else [node, graph.node_of[router, match.in_port, None]]
        keys: list[Place] = [*_points(match, fragment)]
        bits, value = BITS[graph.version], match.dst.value
        keys += [(value & mask(graph.version, n)) << 8 | n for n in range(min(bits, match.dst.length), -1, -1)]
        for key in keys:
            for candidate in nodes:
                if key in candidate.rules:
                    return candidate, key
        return None

    def _place(self, router: str, match: Match, fragment: bool = False) -> tuple[Graph, Node, State]:
        graph = self.graphs[match.dst.version]
        node = graph.node_of.get((router, match.in_port, match.eth_src)) or graph.node_of[router, match.in_port, None]
        points = _points(match, fragment)
        if points:
            state = at_point(graph, points[0])[1]
        else:
            state = above(graph, match.dst.value << 8 | match.dst.length, inclusive=True)
        return graph, node, state

    @staticmethod
    def _result(graph: Graph, node: Node, state: State, match: Match) -> Outcome:
        if graph.martians.excludes(change_of(match, None).key):
            return NEVER_FORWARDED
        if match.connection is not None and graph.is_martian(node, match.connection):
            return MARTIAN
        return graph.result(state, node) if node.has_senders else NO_SENDER

    @staticmethod
    def _delegation(graph: Graph, node: Node, match: Match) -> Delegation:
        """The delegation that decided at `node` for what `match` catches."""
        fib = graph.network.fibs[node.interface.router]
        keys: list[Key | FiveTuple] = [] if match.connection is None else [match.connection]
        value = match.dst.value
        keys += [(value & mask(graph.version, n)) << 8 | n for n in range(match.dst.length, -1, -1)]
        for key in keys:
            for eth_src in dict.fromkeys((node.eth_src, None)):
                part = (node.interface.name, graph.version, eth_src)
                number = fib.number_at(part, key)
                if number is not None:
                    return Delegation(match_of_change(part, key), fib.verdict(number))
        raise AssertionError("a verdict without a delegation")


def _points(match: Match, fragment: bool) -> tuple[Point, ...]:
    """The connection of a match, or its fragments, which are looked up before any prefix; at most one."""
    if match.connection is None:
        return ()
    return (match.connection.fragments if fragment else match.connection,)


def _disjoint(version: int, keys: Iterable[Key]) -> Iterator[tuple[Key, int]]:
    """The (first key, last address) of the prefixes that no other one covers; `keys` sorted."""
    last = -1
    for key in keys:
        if key >> 8 > last:
            last = (key >> 8) | ((1 << (BITS[version] - (key & 0xFF))) - 1)
            yield key, last
