"""Law: chains are cut so that no router's rules exceed its bound by what others have delegated; and cut chains are right."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from fsctl import quota
from fsctl.collapse.compiler import Compiler
from fsctl.collapse.cuts import LIFTED, wanted
from fsctl.model.addresses import BITS, IPV4, Prefix
from fsctl.model.delegations import Delegation, Forward, Match
from fsctl.model.fib import Change, Fib, change_of
from fsctl.model.network import Network
from fsctl.model.packet import Packet
from fsctl.pipeline.layout import Layout, tables
from fsctl.specification.walk import walk
from tests.builders import HOST_A, HOST_B, HOST_PORT, line, mac
from tests.properties.laws import Bench, all_resolved, as_cut, carried_out, carry_out, law, updates
from tests.strategies import Draw, a_case, a_network, pick, some_changes

Changes = list[tuple[str, Change]]
WIDE = Prefix.parse("20.0.0.0/8")
HOSTS, SENDERS = 400, 8
BOUND = 1500


def bounded(draw: Draw, network: Network) -> Network:
    """The same, with small bounds for some of its routers."""
    routers = {name: replace(r, max_rules=pick(draw, (0, 2, 5, 9, 15, 30, 400_000))) for name, r in network.routers.items()}
    return replace(network, routers=routers, cuts=set())


def cases(draw: Draw) -> tuple[Network, list[Packet]]:
    network, packets = a_case(draw)
    return bounded(draw, network), packets


def writes(draw: Draw) -> tuple[Network, list[Changes]]:
    network = bounded(draw, a_network(draw))
    return network, [some_changes(draw, network) for _ in range(1 + draw(4))]


@law(cases)
def test_rules_of_cut_chains_do_what_walk_says(case: tuple[Network, list[Packet]]) -> None:
    network, packets = case
    bench = Bench.of(network)
    for packet in packets:
        found, _ = bench.check(packet)
        whole = walk(replace(network, cuts=set()), packet)
        assert found.hops == whole.hops[: len(found.hops)], "a cut chain is the beginning of the whole one"


@law(writes)
def test_updates_keep_the_bounds_and_end_where_a_full_compilation_does(case: tuple[Network, list[Changes]]) -> None:
    network, history = case
    compiler = Compiler(network)
    layout = Layout(network, compiler)
    installed = layout.tables()
    for changes in history:
        installed = carried_out(installed, updates(layout, carry_out(network, changes)))
        assert_bounded(network, compiler)
    fresh = all_resolved(as_cut(network))
    assert all_resolved(tables(network, compiler)) == fresh, "the compiler's state"
    assert all_resolved(layout.tables()) == fresh, "the layout's state"
    assert all_resolved(installed) == fresh, "the changes carried out"


def assert_bounded(network: Network, compiler: Compiler) -> None:
    """No interface needs a cut that is not there, and none has more rules than its own delegations and its bound allow."""
    for version, graph in compiler.graphs.items():
        assert wanted(graph) <= network.cuts
        rules: Counter[tuple[str, str]] = Counter()
        for node in graph.nodes:
            rules[node.interface.router, node.interface.name] += len(node.rules)
        for (router, name), count in rules.items():
            nodes = 1 + len(graph.node_of[router, name, None].classes)
            own = sum(of == version for of, _ in network.own_addresses[router]) * nodes
            mine = quota.exact(network.fibs[router], {}, {name}, itself=True)
            assert count <= own + mine + network.routers[router].max_rules


def test_what_leads_nowhere_needs_no_cut() -> None:
    """Found by the law (seed 137): a next hop of an interface that is down was counted as if walks went on from there."""
    network = line(2)
    r0, r1 = network.routers["r0"], network.routers["r1"]
    down = replace(r0.interfaces["eth0"], up=False, why_down="no link")
    bare = {"r0": replace(r0, interfaces={**r0.interfaces, "eth0": down}, max_rules=0), "r1": replace(r1, max_rules=0)}
    fibs = {name: Fib([Delegation(Match("eth0", WIDE), Forward("eth1", HOST_B))]) for name in bare}
    network = replace(network, routers=bare, fibs=fibs, cuts=set())
    compiler = Compiler(network)
    onwards = change_of(Match("eth0", WIDE), Forward("eth1", mac(1, 0)))
    updates(Layout(network, compiler), carry_out(network, [("r0", onwards)]))
    assert_bounded(network, compiler)
    assert not network.cuts


# --- across tenants --------------------------------------------------------------------------------------------------


def across(senders: int = SENDERS) -> Network:
    """r0 sends what comes from `senders` to r1, who is somebody else's, and the rest to a host."""
    network = line(2)
    mine = [Delegation(Match("eth0", WIDE, eth_src=1000 + n), Forward("eth1", mac(1, 0))) for n in range(senders)]
    fibs = {"r0": Fib([Delegation(Match("eth0", WIDE), Forward("eth1", HOST_B)), *mine]), "r1": Fib()}
    routers = {name: replace(router, max_rules=BOUND) for name, router in network.routers.items()}
    return replace(network, fibs=fibs, routers=routers)


def hosts(first: int, count: int) -> Changes:
    """r1 delegates hosts, each to a next hop that differs from its neighbours'."""
    matches = [Match("eth0", Prefix.host(IPV4, WIDE.value + n)) for n in range(first, first + count)]
    return [("r1", change_of(m, Forward("eth1", HOST_A + n % 2))) for n, m in enumerate(matches)]


def gone(changes: Changes) -> Changes:
    return [(router, change._replace(verdict=None)) for router, change in changes]


def collapsed(layout: Layout) -> int:
    return sum(len(node.rules) for _, node in layout.compiler.nodes())


def test_fault_D7_one_routers_senders_times_anothers_prefixes_do_not_multiply() -> None:
    network = across()
    layout = Layout(network, Compiler(network))
    installed = carried_out(layout.tables(), updates(layout, carry_out(network, hosts(0, HOSTS))))
    assert network.cuts == {("r0", "eth0", IPV4)}
    assert collapsed(layout) == 1 + SENDERS + HOSTS, "without cuts hosts x senders more"
    found, _ = Bench(network, installed).check(
        Packet("br0", HOST_PORT, 1000, mac(0, 0), IPV4, Prefix.parse("10.0.0.1").value, WIDE.value + 1)
    )
    assert (found.forwards, found.final.eth_dst) == (1, mac(1, 0)), "r1 gets it"
    assert "max_rules" in found.reason


def test_fault_D7_a_cut_is_lifted_when_much_less_is_needed_and_not_by_one_prefix() -> None:
    network = across()
    layout = Layout(network, Compiler(network))
    there = hosts(0, HOSTS)
    fits = int(BOUND * LIFTED) // (SENDERS + 1)
    installed = layout.tables()
    for changes, is_cut in ((there, True), (gone(there[fits + 20 :]), True), (gone(there[fits - 5 : fits + 20]), False)):
        installed = carried_out(installed, updates(layout, carry_out(network, changes)))
        assert bool(network.cuts) == is_cut
        assert all_resolved(installed) == all_resolved(as_cut(network))
    found, _ = Bench(network, installed).check(
        Packet("br0", HOST_PORT, 1000, mac(0, 0), IPV4, Prefix.parse("10.0.0.1").value, WIDE.value + 1)
    )
    assert found.forwards == 2


@pytest.mark.parametrize("version", sorted(BITS))
def test_small_networks_are_never_cut(version: int) -> None:
    network = line(3)
    layout = Layout(network, Compiler(network))
    updates(layout, carry_out(network, [("r2", change_of(Match("eth0", Prefix(version, 0, 0)), Forward("eth1", HOST_B)))]))
    assert not network.cuts
