"""Shrunk failures that are about senders: rules of one eth_src beside rules of any."""

from __future__ import annotations

from fsctl.collapse.compiler import Compiler
from fsctl.model.addresses import Prefix
from fsctl.model.delegations import DROP, Delegation, Forward, Match
from fsctl.model.fib import Fib, change_of
from fsctl.model.network import Bridge, Interface, Network, Router
from fsctl.pipeline.layout import tables
from tests.properties.laws import all_resolved, carry_out, compiled, delegations_of, with_fibs

WIDE, NARROW = Prefix.parse("10.0.0.0/8"), Prefix.parse("10.1.0.0/16")


def on_one_bridge(**interfaces: tuple[int, ...]) -> dict[str, Router]:
    """Routers with interfaces eth0, eth1, ... of these MACs, all on br0."""
    return {
        name: Router(name, {f"eth{n}": Interface(name, f"eth{n}", "br0", "", mac, ofport=mac) for n, mac in enumerate(macs)})
        for name, macs in interfaces.items()
    }


def test_a_class_follows_when_only_the_others_say_something_at_a_narrower_prefix() -> None:
    """Found by: region equals full. What r2 is sent by r0 went round in a loop, and r2's rule for these packets at 10.1/16, where
    r3 drops what everybody else sends, stayed a hole when the loop was gone."""
    routers = on_one_bridge(r0=(1, 2), r2=(3, 4), r3=(5, 6))
    fibs = {
        "r0": Fib([Delegation(Match("eth0", WIDE), Forward("eth1", 3))]),
        "r2": Fib(
            [Delegation(Match("eth0", WIDE), Forward("eth1", 5)), Delegation(Match("eth0", WIDE, eth_src=2), Forward("eth0", 1))]
        ),
        "r3": Fib([Delegation(Match("eth0", WIDE), Forward("eth1", 0xB)), Delegation(Match("eth0", NARROW), DROP)]),
    }
    network = Network({"br0": Bridge("br0")}, routers, fibs)
    compiler = Compiler(network)
    list(compiler.update(carry_out(network, [("r0", change_of(Match("eth0", WIDE), None))])))
    fresh = compiled(with_fibs(network, delegations_of(network)))
    assert all_resolved(tables(network, compiler)) == all_resolved(fresh)
