"""Law: what is recompiled by region is what everything compiled from scratch gives; and the changes lead there."""

from __future__ import annotations

from dataclasses import replace

from fsctl.collapse.compiler import Compiler
from fsctl.model.delegations import Forward
from fsctl.model.fib import Change
from fsctl.model.network import Interface, Network
from fsctl.model.packet import Packet
from fsctl.pipeline.layout import Layout, tables
from tests.properties.laws import Bench, all_resolved, carried_out, carry_out, compiled, delegations_of, law, updates, with_fibs
from tests.strategies import HOST_MACS, Draw, a_case, a_network, pick, several, some_changes

Changes = list[tuple[str, Change]]


def writes(draw: Draw) -> tuple[Network, list[Changes]]:
    """A network, and what its routers do then."""
    network = a_network(draw)
    return network, [some_changes(draw, network) for _ in range(1 + draw(3))]


def missing_patch_ports(draw: Draw) -> tuple[Network, Network]:
    """A network, and the same with fewer patch ports."""
    network = a_network(draw)
    ends = [(bridge, peer) for bridge in sorted(network.bridges) for peer in sorted(network.bridges[bridge].links)]
    gone = several(draw, ends, 4) if ends else []
    bridges = {
        name: replace(bridge, links={peer: port for peer, port in bridge.links.items() if (name, peer) not in gone})
        for name, bridge in network.bridges.items()
    }
    return network, replace(network, bridges=bridges)


def other_interfaces(draw: Draw) -> tuple[Network, Network]:
    """A network, and the same with ports down, other MTUs, and addresses gone."""
    network = a_network(draw)

    def other(interface: Interface) -> Interface:
        down, narrow = replace(interface, up=False), replace(interface, mtu=1300)
        return pick(draw, (interface, interface, down, narrow, replace(interface, addresses=())))

    routers = {
        name: replace(router, interfaces={key: other(interface) for key, interface in router.interfaces.items()})
        for name, router in network.routers.items()
    }
    return network, replace(network, routers=routers)


def moved_next_hop(draw: Draw) -> tuple[Network, str, Forward, int, list[Packet]]:
    """A network, a next hop of one of its routers, the MAC it moves to, and packets."""
    network, packets = a_case(draw)
    hops = [(name, hop) for name, fib in network.fibs.items() for hop in fib.nexthops.values()]
    if not hops:
        return network, "", Forward("", 0), 0, []
    router, hop = pick(draw, hops)
    there = [i.mac for i in network.interfaces() if i.bridge == network.routers[router].interfaces[hop.out].bridge]
    return network, router, hop, pick(draw, (*HOST_MACS, *there)), packets


@law(writes)
def test_updates_by_region_end_where_a_full_compilation_does(case: tuple[Network, list[Changes]]) -> None:
    network, history = case
    compiler = Compiler(network)
    layout = Layout(network, compiler)
    installed = layout.tables()
    for changes in history:
        replaced = carry_out(network, changes)
        installed = carried_out(installed, updates(layout, replaced))
    fresh = all_resolved(compiled(with_fibs(network, delegations_of(network))))
    assert all_resolved(tables(network, compiler)) == fresh, "the compiler's state"
    assert all_resolved(layout.tables()) == fresh, "the layout's state"
    assert all_resolved(installed) == fresh, "the changes carried out"


@law(writes)
def test_a_change_undone_leaves_nothing_behind(case: tuple[Network, list[Changes]]) -> None:
    network, history = case
    compiler = Compiler(network)
    layout = Layout(network, compiler)
    before = layout.tables()
    made = carry_out(network, history[0])
    there = carried_out(before, updates(layout, made))
    undo = [(router, change._replace(verdict=old)) for router, items in made.items() for change, old in reversed(items)]
    back = carried_out(there, updates(layout, carry_out(network, undo)))
    assert all_resolved(back) == all_resolved(before)


@law(missing_patch_ports)
def test_patch_links_that_come_and_go_end_where_a_full_compilation_does(case: tuple[Network, Network]) -> None:
    network, fewer = case
    compiler = Compiler(network)
    layout = Layout(network, compiler)
    before = layout.tables()
    compiler.rewire(fewer)
    after = carried_out(before, layout.rewire(fewer))
    assert all_resolved(after) == all_resolved(compiled(fewer))
    compiler.rewire(network)
    assert carried_out(after, layout.rewire(network)) == before


@law(other_interfaces)
def test_interfaces_that_change_end_where_a_full_compilation_does(case: tuple[Network, Network]) -> None:
    """Compiled anew, sent as differences."""
    network, changed = case
    layout = Layout(network, Compiler(network))
    anew = Layout(changed, Compiler(changed), layout)
    after = carried_out(layout.tables(), anew.since(layout))
    assert all_resolved(after) == all_resolved(compiled(changed))


@law(moved_next_hop)
def test_a_next_hop_that_moves_ends_where_a_full_compilation_does(case: tuple[Network, str, Forward, int, list[Packet]]) -> None:
    """As the controller does it: compiled anew only where walks go on behind the next hop."""
    network, router, old, mac, packets = case
    if not router:
        return
    compiler = Compiler(network)
    layout = Layout(network, compiler)
    installed, new = layout.tables(), replace(old, eth_dst=mac)
    fib = network.fibs[router]
    numbers = fib.numbers_of(old)
    leads_on = any(compiler.leads_on(router, hop) for hop in (old, new))
    for number in numbers:
        fib.move_nexthop(number, new)
    if leads_on:
        anew = Layout(network, Compiler(network), layout)
        installed = carried_out(installed, anew.since(layout))
        layout = anew
    installed = carried_out(installed, layout.reroute(router, numbers))
    assert all_resolved(installed) == all_resolved(compiled(network))
    for packet in packets:
        Bench(network, installed).check(packet)
