"""Routers that send a packet round in a circle: no rule, and the reason shown (hazard 22)."""

from __future__ import annotations

from fsctl.collapse.compiler import Compiler
from fsctl.model.addresses import Prefix
from fsctl.model.delegations import Delegation, Forward, Match
from fsctl.model.fib import Fib
from fsctl.model.network import Bridge, Interface, Network, Router
from fsctl.openflow.rules import FLOW_SWITCH
from fsctl.pipeline.layout import tables

EVERYTHING, THERE = Prefix.parse("0.0.0.0/0"), Prefix.parse("10.1.0.0/16")


def circle(*delegations_of_last: Delegation) -> Network:
    """Three routers on one bridge, each the next hop of the one before it for everything."""
    macs = (1, 2, 3)
    routers = {f"r{m}": Router(f"r{m}", {"eth0": Interface(f"r{m}", "eth0", "br0", "", m, ofport=m)}) for m in macs}
    fibs = {f"r{m}": Fib([Delegation(Match("eth0", EVERYTHING), Forward("eth0", m % 3 + 1))]) for m in macs}
    for delegation in delegations_of_last:
        fibs["r3"].set(delegation.match, delegation.verdict)
    return Network({"br0": Bridge("br0")}, routers, fibs)


def collapsed(network: Network, compiler: Compiler) -> int:
    rules = tables(network, compiler)["br0"].rules
    return sum(key.table == FLOW_SWITCH and key.priority > 0 for key in rules)


def test_hazard_22_a_loop_has_no_rule_and_says_so() -> None:
    network = circle()
    compiler = Compiler(network)
    assert collapsed(network, compiler) == 0
    assert {compiler.outcome(f"r{m}", Match("eth0", EVERYTHING)).reason for m in (1, 2, 3)} == {"loop"}


def test_hazard_22_a_way_out_of_the_loop_is_bypassed() -> None:
    network = circle(Delegation(Match("eth0", THERE), Forward("eth0", 0xB)))
    compiler = Compiler(network)
    assert [compiler.outcome(f"r{m}", Match("eth0", THERE)).hops for m in (1, 2, 3)] == [3, 2, 1]
    assert compiler.outcome("r1", Match("eth0", EVERYTHING)).reason == "loop"
    assert collapsed(network, compiler) == 3
