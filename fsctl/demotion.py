"""What to do when a switch rejects a rule: no other rule may bypass its packets instead. Pure.

Without the rejected rule its packets would match a shorter prefix, which may send them elsewhere. So the rules that would
match them become slow-path rules (they are *demoted*): the bypass may be absent, never wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from fsctl.collapse.effects import SLOW, Place, Point
from fsctl.collapse.node import Node
from fsctl.model.addresses import BITS
from fsctl.model.prefix_keys import mask
from fsctl.openflow.rules import RuleKey
from fsctl.pipeline.flow_rules import flow_key
from fsctl.pipeline.layout import Layout

_BREATH = 1000


def to_demote(
    layout: Layout,
    bridge: str,
    rejected: Collection[RuleKey],
    demoted: Collection[RuleKey],
    pause: Callable[[], None] = lambda: None,
) -> list[RuleKey]:
    """The rules that would now catch the packets of rejected ones, but for those that are slow-path rules already.

    `pause` lets others run: a full table rejects thousands.
    """
    if not rejected:
        return []
    found: list[RuleKey] = []
    for number, (node, key) in enumerate(_places(layout, bridge, rejected)):
        if not number % _BREATH:
            pause()
        graph = layout.compiler.graphs[node.version]
        base = graph.node_of[node.interface.router, node.interface.name, None]
        for view in (node,) if node.eth_src is not None else (base, *base.classes):
            rule = _catcher(view, base, key, rejected)
            if rule is not None and rule not in demoted and rule not in found:
                found.append(rule)
    return found


def _catcher(view: Node, base: Node, key: Place, rejected: Collection[RuleKey]) -> RuleKey | None:
    """The rule that matches the packets of `key`; None if it is a slow-path rule or there is none."""
    for node, other in _next_best(view, base, key):
        rule = flow_key(node, other)
        if rule not in rejected:
            return rule if node.rules[other].kind != SLOW else None
    return None


def _places(layout: Layout, bridge: str, wanted: Collection[RuleKey]) -> list[tuple[Node, Place]]:
    """The places in the compiled state that these rules come from."""
    return [
        (node, key)
        for _, node in layout.compiler.nodes()
        if node.interface.bridge == bridge
        for key in node.rules
        if flow_key(node, key) in wanted
    ]


def _next_best(view: Node, base: Node, key: Place) -> Iterable[tuple[Node, Place]]:
    """The rules that match the packets of `key` from one class of senders, best first."""
    bits = BITS[view.version]
    nodes = dict.fromkeys((view, base))
    if isinstance(key, Point):
        yield from ((node, key) for node in nodes if key in node.rules)
        value, longest = key.dst, bits
    else:
        value, longest = key >> 8, key & 0xFF
    for length in range(longest, -1, -1):
        covering = (value & mask(view.version, length)) << 8 | length
        yield from ((node, covering) for node in nodes if covering in node.rules)
