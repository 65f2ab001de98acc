"""The fold, case by case: what the kernel says, what is delegated. Hazard numbers are those of docs/agent.md."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fsctl.agent.events import Addr, Event, Link, Nexthop, Route
from fsctl.agent.fib import Policy
from fsctl.model.addresses import IPV4

from .kernel import (
    ETH0,
    ETH1,
    ETH2,
    KNOWN,
    MACS,
    B,
    C,
    addr,
    base,
    folded,
    leg,
    link,
    local,
    neigh,
    route,
    table,
    texts,
)  # fmt: skip

VIA_B, VIA_C = f"eth1 {B}", f"eth1 {C}"
GATEWAY = Event(neigh(ETH1, "10.0.1.9"))
FAR = Event(route("10.9.0.0/16", leg(ETH1, "10.0.1.9")))
DEFAULT = Event(route("0.0.0.0/0", leg(ETH1, "10.0.1.9")))


def test_route_with_resolved_gateway_is_forwarded_from_every_ingress() -> None:
    assert table(GATEWAY, FAR) == {"10.9.0.0/16": VIA_B, "10.0.1.9/32": VIA_B}
    assert table(GATEWAY, FAR, ingress="eth1") == {"10.9.0.0/16": VIA_B, "10.0.1.9/32": VIA_B}


def test_ipv6_route() -> None:
    gateway, far = Event(neigh(ETH1, "fe80::9")), Event(route("fd09::/48", leg(ETH1, "fe80::9"), metric=1024))
    assert table(gateway, far) == {"fd09::/48": VIA_B}


def test_ipv4_route_via_ipv6_next_hop() -> None:
    assert table(Event(neigh(ETH1, "fe80::9")), Event(route("10.9.0.0/16", leg(ETH1, "fe80::9")))) == {"10.9.0.0/16": VIA_B}


def test_connected_subnet_is_one_delegation_per_neighbour() -> None:
    events = (Event(neigh(ETH1, "10.0.1.7")), Event(neigh(ETH1, "10.0.1.8", C)), Event(neigh(ETH0, "10.0.1.6")))
    assert table(*events) == {"10.0.1.7/32": VIA_B, "10.0.1.8/32": VIA_C}


def test_host_route_on_the_link() -> None:
    assert table(Event(route("10.5.5.5/32", leg(ETH1))), Event(neigh(ETH1, "10.5.5.5"))) == {"10.5.5.5/32": VIA_B}


def test_hazard_06_hairpin_is_left_to_a_router_that_sends_redirects() -> None:
    redirects = Policy(no_hairpin=frozenset({(ETH1, IPV4)}))
    assert table(GATEWAY, FAR, policy=redirects) == {"10.9.0.0/16": VIA_B, "10.0.1.9/32": VIA_B}
    assert table(GATEWAY, FAR, policy=redirects, ingress="eth1") == {}
    back = Event(route("10.9.9.0/24", leg(ETH0, "10.0.0.9"))), Event(neigh(ETH0, "10.0.0.9", C))
    inside = table(GATEWAY, *back, Event(route("0.0.0.0/0", leg(ETH0, "10.0.0.9"))), FAR, policy=redirects, ingress="eth1")
    assert inside["0.0.0.0/0"] == inside["10.9.9.0/24"] == f"eth0 {C}"
    assert inside["10.9.0.0/16"] == "Punt"


@pytest.mark.parametrize("kind", ["blackhole", "unreachable", "prohibit", "throw"])
def test_hazard_11_special_routes_are_holes_in_what_covers_them(kind: str) -> None:
    special = Event(route("10.9.3.0/24", kind=kind))
    assert table(GATEWAY, FAR, special)["10.9.3.0/24"] == "Punt"
    assert "10.9.3.0/24" not in table(GATEWAY, special)


def test_hazard_11_unknown_interfaces_and_unresolved_next_hops_are_holes() -> None:
    unknown = Event(route("10.7.0.0/16", leg(ETH2, "10.0.2.9")))
    unresolved = Event(route("10.8.0.0/16", leg(ETH1, "10.0.1.77")))
    got = table(GATEWAY, DEFAULT, unknown, unresolved, Event(neigh(ETH2, "10.0.2.9")))
    assert got["0.0.0.0/0"] == VIA_B
    holes = {"10.7.0.0/16", "10.8.0.0/16", "10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24"}
    assert {k for k, v in got.items() if v == "Punt"} == holes, "nested holes are not said twice"
    assert table(unknown, unresolved) == {}, "a hole is only said where something covers it"


def test_hazard_11_a_forward_inside_a_hole_stays() -> None:
    got = table(
        GATEWAY, DEFAULT, Event(route("10.9.0.0/16", kind="blackhole")), Event(route("10.9.1.0/24", leg(ETH1, "10.0.1.9")))
    )
    assert (got["10.9.0.0/16"], got["10.9.1.0/24"]) == ("Punt", VIA_B)


def test_hazard_11_mpls_and_encapsulated_routes_are_holes() -> None:
    encap = Event(route("10.9.3.0/24", leg(ETH1, "10.0.1.9", encap=True)))
    assert table(GATEWAY, FAR, encap)["10.9.3.0/24"] == "Punt"


def test_hazard_11_inside_a_local_prefix_nothing_is_forwarded() -> None:
    anyip = Event(local("10.9.0.0/16"))
    got = table(GATEWAY, DEFAULT, Event(route("10.9.1.0/24", leg(ETH1, "10.0.1.9"))), anyip)
    assert got["10.9.0.0/16"] == "Punt"
    assert "10.9.1.0/24" not in got
    undone = table(GATEWAY, DEFAULT, FAR, anyip, Event(local("10.9.0.0/16"), gone=True))
    assert undone["10.9.0.0/16"] == VIA_B


def test_hazard_04_a_route_with_its_own_mtu_is_a_hole() -> None:
    assert table(GATEWAY, DEFAULT, Event(route("10.9.0.0/16", leg(ETH1, "10.0.1.9"), mtu=1400)))["10.9.0.0/16"] == "Punt"
    assert table(GATEWAY, DEFAULT, Event(route("10.9.0.0/16", leg(ETH1, "10.0.1.9"), mtu=1500)))["10.9.0.0/16"] == VIA_B


def test_hazard_12_a_neighbour_without_a_route_is_not_forwarded() -> None:
    assert table(Event(neigh(ETH1, "10.77.0.1"))) == {}
    assert table(Event(neigh(ETH1, "fe80::9"))) == {}


@pytest.mark.parametrize("state", ["incomplete", "failed", "none", "noarp"])
def test_hazard_13_a_neighbour_that_is_not_usable_withdraws_at_once(state: str) -> None:
    assert table(GATEWAY, FAR, Event(neigh(ETH1, "10.0.1.9", B, state))) == {}


@pytest.mark.parametrize("mac", ["02:00:00:00:01:01", "33:33:00:00:00:01", "00:00:00:00:00:00"])
def test_a_neighbour_that_no_packet_can_be_sent_to_is_a_hole(mac: str) -> None:
    """The interface's own MAC address, a group's, none."""
    odd = Event(replace(neigh(ETH1, "10.0.1.9"), mac=int(mac.replace(":", ""), 16)))
    assert table(odd, FAR) == {}


@pytest.mark.parametrize("state", ["reachable", "stale", "delay", "probe", "permanent"])
def test_hazard_13_a_neighbour_that_the_kernel_sends_to_is_used(state: str) -> None:
    assert table(Event(neigh(ETH1, "10.0.1.9", B, state)), FAR)["10.9.0.0/16"] == VIA_B


def test_hazard_14_a_changed_mac_moves_every_route_in_one_step() -> None:
    fold = folded([*base(), GATEWAY, *(Event(route(f"10.9.{n}.0/24", leg(ETH1, "10.0.1.9"))) for n in range(50))])
    fold.apply(Event(neigh(ETH1, "10.0.1.9", C)))
    assert len(fold.settle()) == 51 * 2
    assert set(texts(fold.delegations()).values()) == {VIA_C}


def test_hazard_20_link_scope_destinations_are_never_mentioned() -> None:
    scoped = [Event(route(p, leg(ETH1))) for p in ("169.254.0.0/16", "224.0.0.0/4", "fe80::/64", "ff00::/8")]
    assert table(GATEWAY, FAR, *scoped, Event(neigh(ETH1, "169.254.0.9"))).keys() == {"10.9.0.0/16", "10.0.1.9/32"}


def test_hazard_21_the_routers_own_addresses_are_holes() -> None:
    covering = Event(route("10.0.0.0/8", leg(ETH1, "10.0.1.9")))
    elsewhere = Event(addr(ETH2, "10.44.0.1/32"))
    got = table(GATEWAY, covering, elsewhere, Event(local("10.45.0.1")))
    assert got["10.44.0.1/32"] == got["10.45.0.1/32"] == "Punt"
    connected = Event(route("10.0.1.255/32", leg(ETH1))), Event(neigh(ETH1, "10.0.1.255"))
    assert table(GATEWAY, *connected).keys() == {"10.0.1.9/32"}, "a broadcast address is the router's too"


def test_hazard_24_the_lowest_metric_wins() -> None:
    worse = Event(route("10.9.0.0/16", leg(ETH0, "10.0.0.9"), metric=200)), Event(neigh(ETH0, "10.0.0.9", C))
    better = Event(route("10.9.0.0/16", leg(ETH1, "10.0.1.9"), metric=100))
    assert table(GATEWAY, better, *worse)["10.9.0.0/16"] == VIA_B
    assert table(GATEWAY, *worse, better)["10.9.0.0/16"] == VIA_B
    assert table(GATEWAY, *worse, better, Event(better.value, gone=True))["10.9.0.0/16"] == f"eth0 {C}"


def test_hazard_24_the_lowest_metric_wins_even_if_it_cannot_be_delegated() -> None:
    best = Event(route("10.9.0.0/16", leg(ETH2, "10.0.2.9"), metric=1))
    assert table(GATEWAY, DEFAULT, best, Event(route("10.9.0.0/16", leg(ETH1, "10.0.1.9"), metric=2)))["10.9.0.0/16"] == "Punt"


def test_hazard_24_replace_takes_the_place_of_the_old_route() -> None:
    new = Event(route("10.9.0.0/16", leg(ETH1, "10.0.1.8")), replace=True)
    fold = folded([*base(), GATEWAY, Event(neigh(ETH1, "10.0.1.8", C)), FAR, new])
    assert texts(fold.delegations())["10.9.0.0/16"] == VIA_C
    assert not fold.state.ribs[IPV4].uncertain


def test_hazard_24_duplicates_are_a_hole_until_a_dump_tells() -> None:
    second = Event(route("10.9.0.0/16", leg(ETH1, "10.0.1.8")))
    fold = folded([*base(), GATEWAY, DEFAULT, Event(neigh(ETH1, "10.0.1.8", C)), FAR, second])
    assert texts(fold.delegations())["10.9.0.0/16"] == "Punt"
    assert fold.wants_resync()
    fold.resync(Route, [r for r in fold.state.ribs[IPV4].all() if r != FAR.value])
    fold.settle()
    assert texts(fold.delegations())["10.9.0.0/16"] == VIA_C


def test_hazard_24_routes_by_tos_or_source_are_holes() -> None:
    plain = Event(route("10.9.3.0/24", leg(ETH1, "10.0.1.9")))
    assert table(GATEWAY, FAR, plain, Event(route("10.9.3.0/24", leg(ETH0, "10.0.0.9"), tos=16)))["10.9.3.0/24"] == "Punt"
    assert table(GATEWAY, FAR, plain, Event(route("10.9.3.0/24", leg(ETH1, "10.0.1.9"), special="from")))["10.9.3.0/24"] == "Punt"


def test_hazard_23_a_route_that_expires_soon_is_a_hole_until_it_is_told_of_anew() -> None:
    """The kernel does not tell when it stops to use a route, nor that a router advertisement has prolonged one."""
    soon = Event(route("fd09::/48", leg(ETH1, "fd01::9"), metric=1024, expiring=True))
    fold = folded([*base(), Event(neigh(ETH1, "fd01::9")), Event(route("::/0", leg(ETH1, "fd01::9"), metric=1024)), soon])
    assert texts(fold.delegations())["fd09::/48"] == "Punt"
    fold.resync(Route, [*(r for r in fold.state.ribs[6].all() if r != soon.value), replace(soon.value, expiring=False)], 6)
    fold.settle()
    assert texts(fold.delegations())["fd09::/48"] == VIA_B
    fold.apply(soon._replace(gone=True))
    fold.settle()
    assert "fd09::/48" not in texts(fold.delegations())


def test_hazard_25_multipath_is_a_hole_unless_all_legs_are_the_same() -> None:
    neighbours = GATEWAY, Event(neigh(ETH1, "10.0.1.8", C))
    both = Event(route("10.9.0.0/16", leg(ETH1, "10.0.1.9"), leg(ETH1, "10.0.1.8")))
    assert table(*neighbours, DEFAULT, both)["10.9.0.0/16"] == "Punt"
    same = Event(neigh(ETH1, "10.0.1.8", B))
    assert table(*neighbours, DEFAULT, both, same)["10.9.0.0/16"] == VIA_B


def test_hazard_25_ipv6_legs_come_and_go_one_by_one() -> None:
    legs = leg(ETH1, "fd01::8"), leg(ETH1, "fd01::9")
    events = [
        Event(neigh(ETH1, "fd01::8", B)), Event(neigh(ETH1, "fd01::9", C)),
        Event(route("::/0", leg(ETH1, "fd01::8"), metric=9)),
        Event(route("fd09::/48", legs[0], metric=1024)), Event(route("fd09::/48", *legs, metric=1024)),
    ]  # fmt: skip
    assert table(*events)["fd09::/48"] == "Punt"
    fold = folded([*base(), *events, Event(route("fd09::/48", legs[0], metric=1024), gone=True)])
    assert texts(fold.delegations())["fd09::/48"] == "Punt", "what else was there is not known before a dump"
    assert fold.wants_resync()
    fold.resync(Route, list(fold.state.ribs[6].all()), 6)
    fold.settle()
    assert texts(fold.delegations())["fd09::/48"] == VIA_C


def test_next_hop_objects_and_groups() -> None:
    a, b = Nexthop(1, leg(ETH1, "10.0.1.9")), Nexthop(2, leg(ETH1, "10.0.1.8"))
    group, hole = Nexthop(3, group=(1, 2)), Nexthop(4, blackhole=True)
    routes = [Event(route(f"10.9.{n}.0/24", nhid=n)) for n in (1, 2, 3, 4, 5)]
    events = [GATEWAY, DEFAULT, Event(neigh(ETH1, "10.0.1.8", C)), *routes, *map(Event, (a, b, group, hole))]
    got = table(*events)
    assert [got[f"10.9.{n}.0/24"] for n in (1, 2, 3, 4, 5)] == [VIA_B, VIA_C, "Punt", "Punt", "Punt"]
    moved = table(*events, Event(Nexthop(2, leg(ETH1, "10.0.1.9"))), Event(a, gone=True))
    assert [moved[f"10.9.{n}.0/24"] for n in (1, 2)] == ["Punt", VIA_B]


def test_hazard_23_a_link_that_goes_takes_all_with_it_and_asks_for_a_dump() -> None:
    fold = folded([*base(), GATEWAY, FAR])
    fold.resynced()
    fold.apply(Event(link(ETH1, up=False)))
    fold.settle()
    assert list(fold.delegations()) == []
    assert fold.wants_resync()


def test_fault_C7_links_that_concern_nobody_cost_nothing() -> None:
    """A container's device that came and went made the agent decide everything anew, after a dump a second."""
    fold = folded([*base(), GATEWAY, FAR])
    fold.resynced()
    stranger = replace(link(ETH1), index=99, name="veth0", mac=0x02000000_9999)
    for event in (
        Event(stranger), Event(route("fe80::/64", leg(99), metric=256)), Event(addr(99, "fe80::9/64")),
        Event(replace(stranger, up=False)), Event(stranger), Event(addr(99, "fe80::9/64"), gone=True), Event(stranger, gone=True),
    ):  # fmt: skip
        fold.apply(event)
        assert not fold.wants_resync()
        assert not fold._all_dirty
    assert fold.settle() == []
    assert 99 not in fold.state.links


@pytest.mark.parametrize("why", ["route", "nexthop", "twin"])
def test_fault_C7_links_that_concern_somebody_are_noticed(why: str) -> None:
    fold = folded([*base(), GATEWAY, FAR])
    fold.resynced()
    stranger = replace(link(ETH1), index=99, name="veth0")
    if why == "twin":
        fold.apply(Event(stranger))
        fold.settle()
        assert list(fold.delegations()) == [], "two devices with the MAC address of one interface"
        fold.resynced()
    else:
        stranger = replace(stranger, mac=0x02000000_9999)
        fold.apply(Event(stranger))
        fold.apply(Event(route("10.77.0.0/16", leg(99, "10.0.1.9")) if why == "route" else Nexthop(7, leg(99, "10.0.1.9"))))
    fold.apply(Event(stranger, gone=True))
    assert fold.wants_resync()


@pytest.mark.parametrize("gone", [Nexthop(1, leg(ETH1, "10.0.1.9")), addr(ETH1, "10.0.1.1/24")])
def test_hazard_23_what_takes_routes_with_it_asks_for_a_dump(gone: Nexthop | Addr) -> None:
    """The kernel drops routes of a next-hop object, or with an address as their source, without a word."""
    fold = folded([*base(), GATEWAY, FAR, Event(Nexthop(1, leg(ETH1, "10.0.1.9")))])
    fold.resynced()
    assert not fold.wants_resync()
    fold.apply(Event(gone, gone=True))
    assert fold.wants_resync()


def test_hazard_23_a_link_that_comes_back_is_used_after_a_dump_only() -> None:
    """The kernel may have dropped routes over it without a word."""
    fold = folded([*base(), GATEWAY, FAR, Event(link(ETH1, up=False)), Event(link(ETH1))])
    assert list(fold.delegations()) == []
    fold.resync(Route, [r for r in fold.state.ribs[IPV4].all() if r != FAR.value])
    fold.resynced()
    fold.settle()
    assert texts(fold.delegations()) == {"10.0.1.9/32": VIA_B}


def test_hazard_23_mark_and_sweep() -> None:
    fold = folded([*base(), GATEWAY, FAR, DEFAULT])
    fold.resync(Route, [DEFAULT.value])
    fold.settle()
    assert texts(fold.delegations()) == {"0.0.0.0/0": VIA_B, "10.0.0.1/32": "Punt", "10.0.1.1/32": "Punt", "10.0.2.1/32": "Punt"}


def test_hazard_38_interfaces_are_known_by_mac_whatever_their_name() -> None:
    fold = folded([*base(), GATEWAY, FAR])
    fold.apply(Event(Link(ETH1, "renamed", MACS[ETH1])))
    assert fold.settle() == [], "another name is no other interface"
    fold.apply(Event(Link(ETH1, "renamed", MACS[ETH1] + 99)))
    fold.settle()
    assert list(fold.delegations()) == [], "another MAC is"
    fold.configure(interfaces={**KNOWN, MACS[ETH1] + 99: "eth7"})
    fold.settle()
    assert texts(fold.delegations()) == {"10.9.0.0/16": f"eth7 {B}", "10.0.1.9/32": f"eth7 {B}"}


def test_hazard_38_two_devices_with_one_mac_are_neither() -> None:
    twin = Link(77, "twin", MACS[ETH1])
    assert table(GATEWAY, FAR, Event(twin)) == {}
    assert table(GATEWAY, FAR, Event(Link(77, "eth1.5", MACS[ETH1], kind="vlan"))) == table(GATEWAY, FAR)
    for kind in ("ipvlan", "macvlan"):  # these may take what comes in
        assert table(GATEWAY, FAR, Event(Link(77, "guest", MACS[ETH1], kind=kind))) == {}
    assert table(GATEWAY, FAR, Event(link(ETH1, master=9))) == {}, "enslaved: the master owns the packets"


def test_policy_by_interface_and_version() -> None:
    no_in, no_out = Policy(no_ingress=frozenset({(ETH0, IPV4)})), Policy(no_egress=frozenset({(ETH1, IPV4)}))
    six = Event(neigh(ETH1, "fd01::9"))
    assert table(GATEWAY, FAR, six, policy=no_in) == {"fd01::9/128": VIA_B}
    assert table(GATEWAY, FAR, six, policy=no_in, ingress="eth1").keys() == {"10.9.0.0/16", "10.0.1.9/32", "fd01::9/128"}
    assert table(GATEWAY, FAR, six, policy=no_out) == {"fd01::9/128": VIA_B}


def test_other_tables_are_not_folded() -> None:
    assert table(GATEWAY, Event(route("10.9.0.0/16", leg(ETH1, "10.0.1.9"), table=100))).keys() == {"10.0.1.9/32"}


def test_hazard_23_a_dump_without_a_local_network_frees_what_was_inside_it() -> None:
    inside, around = Event(route("10.9.1.0/24", leg(ETH1, "10.0.1.9"))), Event(local("10.9.0.0/16"))
    fold = folded([*base(), GATEWAY, inside, around])
    assert "10.9.1.0/24" not in texts(fold.delegations())
    fold.resync(Route, [e.value for e in [*base(), inside] if isinstance(e.value, Route) and e.value.version == IPV4])
    fold.settle()
    assert "10.9.1.0/24" in texts(fold.delegations())


def test_what_neighbours_are_in_use() -> None:
    fold = folded([*base(), GATEWAY, Event(neigh(ETH1, "10.0.1.7")), FAR, Event(route("10.8.0.0/16", leg(ETH1, "10.0.1.77")))])
    assert {k.value & 0xFF for k in fold.gateways()} == {9, 77}
    assert {k.value & 0xFF for k in fold.hosts()} == {9, 7}
    assert fold.holes()["next hop unresolved"] == 1
