"""The graph of one IP version's walks.

A walk is a path through nodes (`nodes`), because behind the first hop both the next interface and the sender's MAC follow
from the next hop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import NamedTuple, TypeVar

from fsctl.collapse.effects import (
    DROPPED,
    ENDS,
    FORWARD,
    LOCAL,
    LOCAL_ID,
    LOOP,
    NO_CHAIN,
    NO_MATCH,
    PUNTED,
    SLOW,
    SLOW_EFFECT,
    TOO_LONG,
    Effect,
    Outcome,
    Place,
    Point,
)
from fsctl.collapse.node import Node, State, Step
from fsctl.collapse.nodes import Nodes, entered
from fsctl.collapse.places import Places
from fsctl.model.addresses import IPV4
from fsctl.model.fib import DROP_ID, PUNT_ID
from fsctl.model.martians import Martians
from fsctl.model.network import Interface, Network
from fsctl.model.prefix_keys import Key

K = TypeVar("K")
Seeds = Mapping[K, Set[int]]
"""The nodes (by index) whose delegation for a key, or for a connection of these fragments, was added, removed or changed."""


class Concerned(NamedTuple):
    """What a sweep looks at: the base nodes whose rules may change, and the nodes with delegations that walks pass there."""

    watched: Set[int]
    holders: list[Node]


class Graph(Nodes):
    """All nodes of one IP version, the walks through them, and the places that they delegate."""

    def __init__(self, network: Network, version: int) -> None:
        self._composed: dict[tuple[Step, Outcome], Outcome] = {}
        self._effects: dict[tuple[str, Outcome], Effect] = {}
        self._interned: dict[Effect, Effect] = {}
        self._bit = {(i.router, i.name): 1 << n for n, i in enumerate(network.interfaces())}
        self._max_mtu = {b.name: b.max_mtu for b in network.bridges.values()}
        self.martians = Martians(version)
        super().__init__(network, version)
        self.own_keys = frozenset[Key]().union(*(node.local for node in self.nodes))
        """The addresses of all routers themselves."""
        parts = (part for fib in network.fibs.values() for key, part in fib.parts.items() if key[1] == version)
        self.places = Places(parts, (key for node in self.nodes if node.eth_src is None for key in node.local))

    # --- walks -----------------------------------------------------------------------------------

    def _turn(self, bridge: str, eth_src: int) -> None:
        super()._turn(bridge, eth_src)
        self._composed.clear()

    def step(self, node: Node, number: int) -> Step | Outcome:
        """What verdict `number` does at `node`; an Outcome where the walk ends there."""
        step = node.steps.get(number)
        if step is None:
            step = node.steps[number] = self._make_step(node, number)
            if isinstance(step, Step) and step.target is not None:
                self._link(node, step.target)
        return step

    def _make_step(self, node: Node, number: int) -> Step | Outcome:
        here = node.interface
        if number == PUNT_ID:
            return PUNTED
        if number == LOCAL_ID:
            return LOCAL
        if not node.usable:
            return Outcome(SLOW, f"interface {here.name} is down: {here.why_down or 'no port'}")
        bit = self._bit[here.router, here.name]
        if number == DROP_ID:
            return Outcome(DROPPED, router=here.router, limit=here.mtu, path=bit)
        ends, number = number >= ENDS, number & ~ENDS
        hop = self.network.fibs[here.router].nexthops[number]
        out = self.network.routers[here.router].interfaces[hop.out]
        if not out.up:
            return Outcome(SLOW, f"interface {out.name} is down: {out.why_down or 'no port'}")
        target = self._target(out, hop.eth_dst)
        if target is not None and target.interface is here:
            return LOOP
        limit = min(here.mtu, out.mtu)
        beyond = 0 if target is None else self._bit[target.interface.router, target.interface.name]
        alone = Outcome(FORWARD, router=here.router, nexthop=number, hops=1, limit=limit, path=bit | beyond)
        return alone if ends else Step(target, limit, bit, alone)

    def _target(self, out: Interface, eth_dst: int) -> Node | None:
        into = entered(self.network, out, eth_dst)
        if into is None:
            return None
        of_class = self.node_of.get((into.router, into.name, out.mac))
        return of_class or self.node_of[into.router, into.name, None]

    def result(self, state: State, node: Node) -> Outcome:
        """How a walk from `node` ends, in `state`."""
        results, best = state.results, state.best
        known = results[node.index]
        if known is not None:
            return known
        path: list[tuple[int, Step]] = []
        here: Node | None = node
        outcome = NO_MATCH
        while here is not None:
            found = results[here.index]
            if found is not None:
                outcome = found
                break
            number = best[here.index]
            step = NO_MATCH if number is None else here.steps.get(number) or self.step(here, number)
            if isinstance(step, Outcome):
                outcome = results[here.index] = step
                break
            results[here.index] = LOOP  # until the end of the walk is known
            path.append((here.index, step))
            here = step.target
        for index, step in reversed(path):
            outcome = results[index] = self._composed.get((step, outcome)) or self._compose(step, outcome)
        return outcome

    def _compose(self, step: Step, then: Outcome) -> Outcome:
        """The outcome of a forward that is followed by outcome `then`."""
        if then in NO_CHAIN:
            outcome = then
        elif then.kind == SLOW:
            outcome = step.alone
        elif then.path & step.bit:
            outcome = LOOP
        else:
            outcome = Outcome(
                then.kind,
                router=then.router,
                nexthop=then.nexthop,
                hops=then.hops + 1,
                limit=min(then.limit, step.limit),
                path=then.path | step.bit,
            )
        if outcome.hops > self.network.max_hops:
            outcome = TOO_LONG
        self._composed[step, then] = outcome
        return outcome

    def effect(self, bridge: str, outcome: Outcome) -> Effect:
        """What a rule on `bridge` does for `outcome`; interned."""
        effect = self._effects.get((bridge, outcome))
        if effect is None:
            if outcome.kind == SLOW:
                effect = SLOW_EFFECT
            else:
                limit = outcome.limit if outcome.limit < self._max_mtu[bridge] else 0
                router = outcome.router if outcome.kind == FORWARD else ""
                effect = Effect(outcome.kind, self.version, router, outcome.nexthop, outcome.hops, limit)
                effect = self._interned.setdefault(effect, effect)
            self._effects[bridge, outcome] = effect
        return effect

    def forget(self, router: str, nexthops: Set[int]) -> None:
        """Drop what is remembered of next hops that are not used any more."""

        def is_gone(end: Outcome | Effect) -> bool:
            return end.nexthop in nexthops and end.router == router

        for node in self._of_router[router]:
            for number in nexthops:
                node.steps.pop(number, None)
                node.steps.pop(number | ENDS, None)
        composed = self._composed.items()
        self._composed = {k: o for k, o in composed if not (is_gone(k[0].alone) or is_gone(k[1]) or is_gone(o))}
        self._effects = {k: effect for k, effect in self._effects.items() if not is_gone(k[1])}
        self._interned = {effect: effect for effect in self._interned if not is_gone(effect)}

    def explore(self, seeds: Iterable[tuple[Place, Set[int]]]) -> None:
        """Learn where the changed delegations lead."""
        for key, indexes in seeds:
            for index in indexes:
                node = self.nodes[index]
                number = node.at(key) if isinstance(key, Key) else node.at_point(key)
                if number is not None:
                    self.step(node, number)

    def concerned(self, watched: Set[int], seeds: Seeds[Key]) -> Concerned:
        """The nodes that walks from the watched interfaces can pass, also by what `seeds` changes."""
        self.explore(seeds.items())
        following: list[list[int]] = [[] for _ in self.nodes]
        for index, preds in enumerate(self._preds):
            for pred in preds:
                following[pred].append(index)
        todo = [n.index for index in watched for n in (self.nodes[index], *self.nodes[index].classes)]
        seen = set(todo)
        while todo:
            node = self.nodes[todo.pop()]
            for index in (*following[node.index], *following[node.base.index]):  # a class goes where any sender's packets go
                if index not in seen:
                    seen.add(index)
                    todo.append(index)
        return Concerned(watched, [n for n in self.nodes if n.held and n.index in seen])

    def leading_to(self, router: str) -> tuple[Node, ...]:
        """The nodes whose walks can pass this router, its own among them."""
        return self.upstream(frozenset(node.index for node in self._of_router[router]))

    def is_martian(self, node: Node, point: Point) -> bool:
        """Whether the guard keeps these packets out: their source is an address of a router, which would drop them."""
        return self.version == IPV4 and point.src in self.network.own_sources[node.interface.bridge]
