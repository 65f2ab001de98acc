"""Stop rules: they end the bypass past a router at once, before it is known which rules are to change. Pure.

To find the rules that a withdrawal changes takes time in proportion to their number. The interfaces at which packets
enter those rules are few: the router's own, and those of the routers that lead to it. One rule for each of them, above
all others in the flow switch table, leaves its packets to the slow path meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator

from fsctl.collapse.compiler import Compiler
from fsctl.collapse.node import Node
from fsctl.openflow.rules import FLOW_SWITCH, Field, Rule
from fsctl.pipeline.fixed_rules import BRIDGE, rule

STOP = 60_000
"""The priority of stop rules: above all other rules of the flow switch table."""
TURNS = 1000
"""Stop rules of successive stops differ in their priority, so that what ends one of them does not end the next."""


def passing(compiler: Compiler, router: str) -> Iterator[Node]:
    """The interfaces (base nodes) whose packets may be bypassed past a router, its own among them."""
    for graph in compiler.graphs.values():
        yield from (node for node in graph.leading_to(router) if node.eth_src is None and node.interface.mac)


def stop_rules(compiler: Compiler, router: str, turn: int) -> Iterator[tuple[str, Rule]]:
    """The (bridge, rule) pairs that stop what is bypassed past a router."""
    for node in passing(compiler, router):
        interface = node.interface
        yield interface.bridge, rule(FLOW_SWITCH, STOP + turn % TURNS, BRIDGE, Field("eth_dst", interface.mac))


def rules_concerned(compiler: Compiler, router: str) -> int:
    """How many rules a withdrawal of the router may change."""
    graphs = compiler.graphs.values()
    return sum(len(node.rules) for graph in graphs for node in graph.leading_to(router))
