"""The rules that walks collapse to: a sweep over all prefixes.

Prefixes are visited in order (a prefix before those that it covers) with a stack of the prefixes that cover
the present one, so that no lookup is needed: a prefix only changes the verdicts of its own delegations, and the
walks that pass these. A rule is emitted at a prefix only if its effect differs from the covering rule's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set

from fsctl.collapse.effects import LOCAL_ID, Effect, Place, Point
from fsctl.collapse.graph import Concerned, Graph, Seeds
from fsctl.collapse.node import NOTHING, Emission, Node, State
from fsctl.model.addresses import BITS
from fsctl.model.prefix_keys import HOST_MASKS, Key, mask

_PIECE = 512
"""Keys per yielded piece: well under 10 ms of work."""


def root(graph: Graph) -> State:
    """The state above all prefixes: no verdicts."""
    return State((1 << BITS[graph.version]) - 1, [None] * len(graph.nodes), [None] * len(graph.nodes))


def above(graph: Graph, key: Key, *, inclusive: bool = False) -> State:
    """The state at the prefixes that cover `key`."""
    value, length = key >> 8, key & 0xFF
    best: list[int | None] = [None] * len(graph.nodes)
    open_nodes = [n for n in graph.nodes if n.any is not NOTHING or n.own is not NOTHING]
    for covering in graph.places.lengths():
        if covering > length or (covering == length and not inclusive):
            continue
        prefix = (value & mask(graph.version, covering)) << 8 | covering
        if prefix not in graph.places.prefixes:
            continue
        for node in tuple(open_nodes):
            number = node.at(prefix)
            if number is not None:
                best[node.index] = number
                open_nodes.remove(node)
    return State(value | HOST_MASKS[graph.version][length], best, [None] * len(graph.nodes))


def sweep(graph: Graph, keys: Iterable[Key], start: State, seeds: Seeds[Key], concerned: Concerned) -> Iterator[list[Emission]]:
    """Update the rules at `keys` (sorted, all covered by `start`) in the nodes; yields the changes, in pieces.

    `seeds` names the nodes whose delegation for a key was added, removed or changed. Only rules at
    watched interfaces (their base nodes) are compared; a class's rules depend on those for any sender too.
    """
    # Also nodes that have lost their last delegation: their rules are to be removed.
    holders = concerned.holders
    plain = [(n.index, n.any.prefixes.get) for n in holders if n.eth_src is None]
    simple = len(plain) == len(holders) and not any(n.is_cut for n in holders)
    host_masks, stack = HOST_MASKS[graph.version], [start]
    out: list[Emission] = []
    for count, key in enumerate(keys, 1):
        if not count % _PIECE:
            yield out
            out = []
        value = key >> 8
        if graph.martians.excludes(key):
            continue
        while len(stack) > 1 and stack[-1].last < value:
            stack.pop()
        if simple and key not in graph.own_keys:
            said = [(index, number) for index, get in plain if (number := get(key)) is not None]
        else:
            said = [(n.index, number) for n in holders if (number := n.at(key)) is not None]
        changed = frozenset([index for index, _ in said])
        if key in seeds:
            changed = changed.union(seeds[key])
        if not changed:
            continue
        parent = stack[-1]
        affected = graph.upstream(changed)
        state = State(value | host_masks[key & 0xFF], parent.best.copy(), parent.results.copy())
        for index, number in said:
            state.best[index] = number
        for node in affected:
            state.results[node.index] = None
        stack.append(state)
        _emit(graph, key, parent, state, affected, concerned.watched, out)
    yield out


def _emit(
    graph: Graph, key: Place, parent: State, state: State, affected: Iterable[Node], watched: Set[int], out: list[Emission]
) -> None:
    """Emit a rule at `key` for each interface and sender class whose effect differs from the covering rule's."""
    for base in dict.fromkeys(n.base for n in affected if n.base.index in watched):
        bridge = base.interface.bridge
        says = graph.effect(bridge, graph.result(state, base))
        new = None if says is graph.effect(bridge, graph.result(parent, base)) else says
        if base.rules.get(key) is not new:
            out.append(_put(base, key, new))
        for node in base.classes:
            if not node.has_senders:
                continue
            inherited = new or graph.effect(bridge, graph.result(parent, node))
            own = graph.effect(bridge, graph.result(state, node))
            own_rule = None if own is inherited else own
            if node.rules.get(key) is not own_rule:
                out.append(_put(node, key, own_rule))


def at_point(graph: Graph, point: Point) -> tuple[State, State]:
    """The states that a connection's packets or fragments meet: without and with the delegations of connections."""
    plain = above(graph, point.dst << 8 | BITS[graph.version], inclusive=True)
    exact = State(plain.last, plain.best.copy(), [None] * len(graph.nodes))
    for node in graph.nodes:
        number = node.at_point(point)
        if number is not None and exact.best[node.index] != LOCAL_ID:
            exact.best[node.index] = number
    return plain, exact


def sweep_points(graph: Graph, points: Iterable[Point], seeds: Seeds[Point]) -> Iterator[list[Emission]]:
    """As `sweep`, for connections and fragments."""
    out: list[Emission] = []
    for count, point in enumerate(points, 1):
        if not count % _PIECE:
            yield out
            out = []
        if graph.martians.excludes(point):
            continue
        plain, exact = at_point(graph, point)
        said = {n.index for n in graph.nodes if n.at_point(point) is not None}
        affected = [n for n in graph.upstream(frozenset(said.union(seeds.get(point, ())))) if not graph.is_martian(n, point)]
        _emit(graph, point, plain, exact, affected, {n.base.index for n in affected}, out)
    yield out


def _put(node: Node, key: Place, new: Effect | None) -> Emission:
    """Store or delete a rule of a node."""
    old = node.rules.get(key)
    if new is None:
        del node.rules[key]
    else:
        node.rules[key] = new
    return Emission(node, key, old, new)
