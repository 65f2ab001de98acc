"""One router's delegations cost no time in the writes of routers whose walks do not pass it."""

from __future__ import annotations

from fsctl.collapse.compiler import Compiler
from fsctl.model.addresses import IPV4, Prefix
from fsctl.model.delegations import Delegation, Forward, Match
from fsctl.model.fib import Fib, change_of
from fsctl.model.network import Bridge, Interface, Network, Router

WIDE = Prefix.parse("0.0.0.0/0")
SENDERS = 50


def hostile() -> Network:
    """r0 tells many senders apart; r1 is on the same bridge."""
    routers = {
        f"r{k}": Router(
            f"r{k}", {f"eth{n}": Interface(f"r{k}", f"eth{n}", "xy"[n], "", 1000 * n + k + 1, ofport=k + 1) for n in range(2)}
        )
        for k in range(2)
    }
    said = [Delegation(Match("eth0", Prefix.host(IPV4, n)), Forward("eth1", 50_000)) for n in range(1 << 28, (1 << 28) + 100)]
    said += [Delegation(Match("eth0", WIDE, eth_src=60_000 + n), Forward("eth1", 50_001)) for n in range(SENDERS)]
    return Network({"x": Bridge("x"), "y": Bridge("y")}, routers, {"r0": Fib(said), "r1": Fib()})


def test_b7_a_sweep_looks_only_at_nodes_that_its_walks_pass() -> None:
    network = hostile()
    graph = Compiler(network).graphs[IPV4]
    alone, behind = (graph.node_of[f"r{k}", "eth0", None] for k in (1, 0))
    for next_hop, passed in ((Forward("eth1", 70_000), 0), (Forward("eth0", 1), 1)):
        change = change_of(Match("eth0", WIDE), next_hop)
        network.fibs["r1"].apply(change)
        graph.refresh("r1")
        concerned = graph.concerned({alone.index}, {change.key: {alone.index}})
        assert len(concerned.holders) == 1 + passed
        assert (behind in concerned.holders) == bool(passed)
