"""Law: what is recompiled by region is what everything compiled from scratch gives; and the changes lead there."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from fsctl.compiler import Compiler
from fsctl.model import Network
from fsctl.pipeline import Layout, tables
from tests.properties.laws import all_resolved, carried_out, carry_out, compiled, delegations_of, with_fibs
from tests.strategies import changes, networks


@given(networks(), st.data())
def test_updates_by_region_end_where_a_full_compilation_does(network: Network, data: st.DataObject) -> None:
    compiler = Compiler(network)
    layout = Layout(network, compiler)
    installed = layout.tables()
    for _ in range(data.draw(st.integers(1, 3), label="writes")):
        replaced = carry_out(network, data.draw(changes(network)))
        installed = carried_out(installed, layout.apply(compiler.update(replaced)))
    fresh = all_resolved(compiled(with_fibs(network, delegations_of(network))))
    assert all_resolved(tables(network, compiler)) == fresh, "the compiler's state"
    assert all_resolved(layout.tables()) == fresh, "the layout's state"
    assert all_resolved(installed) == fresh, "the changes carried out"


@given(networks(), st.data())
def test_a_change_undone_leaves_nothing_behind(network: Network, data: st.DataObject) -> None:
    compiler = Compiler(network)
    layout = Layout(network, compiler)
    before = layout.tables()
    made = carry_out(network, data.draw(changes(network)))
    there = carried_out(before, layout.apply(compiler.update(made)))
    undo = [(router, change._replace(verdict=old)) for router, items in made.items() for change, old in reversed(items)]
    back = carried_out(there, layout.apply(compiler.update(carry_out(network, undo))))
    assert all_resolved(back) == all_resolved(before)


@given(networks(), st.data())
def test_patch_links_that_come_and_go_end_where_a_full_compilation_does(network: Network, data: st.DataObject) -> None:
    compiler = Compiler(network)
    layout = Layout(network, compiler)
    before = layout.tables()
    ends = [(bridge, peer) for bridge in sorted(network.bridges) for peer in sorted(network.bridges[bridge].links)]
    gone = data.draw(st.sets(st.sampled_from(ends)), label="missing patch ports") if ends else set()
    fewer = replace(
        network,
        bridges={
            name: replace(bridge, links={p: n for p, n in bridge.links.items() if (name, p) not in gone})
            for name, bridge in network.bridges.items()
        },
    )
    compiler.rewire(fewer)
    after = carried_out(before, layout.rewire(fewer))
    assert all_resolved(after) == all_resolved(compiled(fewer))
    compiler.rewire(network)
    assert carried_out(after, layout.rewire(network)) == before


@given(networks(), st.data())
def test_interfaces_that_change_end_where_a_full_compilation_does(network: Network, data: st.DataObject) -> None:
    """Ports go down, MTUs change, addresses go: compiled anew, sent as differences."""
    layout = Layout(network, Compiler(network))
    routers = {}
    for name, router in network.routers.items():
        own = {}
        for key, interface in router.interfaces.items():
            what = data.draw(st.sampled_from(("same", "down", "mtu", "addresses")))
            others = {"down": replace(interface, up=False), "mtu": replace(interface, mtu=1300)}
            own[key] = others.get(what, replace(interface, addresses=()) if what == "addresses" else interface)
        routers[name] = replace(router, interfaces=own)
    changed = replace(network, routers=routers)
    anew = Layout(changed, Compiler(changed), layout)
    after = carried_out(layout.tables(), anew.since(layout))
    assert all_resolved(after) == all_resolved(compiled(changed))
