"""The plans behind the Mininet topologies: addresses, routes, and what a router would delegate."""

from __future__ import annotations

import pytest

pytest.importorskip("mininet.topo", reason="Mininet is Debian's package")

from topologies.plan import RoutedTopo
from topologies.topos import Chain, Figure2, Stick, Tree, Uplink

ALL = [Figure2(), Chain(n=1), Chain(n=4), Stick(), Tree(), Uplink()]


def names(topo: RoutedTopo, start: str, subnet: int) -> list[str]:
    """The stations that a packet from `start` to a subnet passes."""
    station, passed = topo.stations[start], []
    while (route := next((r for r in topo.routes(station) if r.subnet == subnet), None)) is not None:
        station = topo.stations[route.via.station]
        passed.append(station.name)
    return passed


@pytest.mark.parametrize("topo", ALL, ids=lambda t: type(t).__name__)
def test_names_fit_and_addresses_are_unique(topo: RoutedTopo) -> None:
    ports = [p for s in topo.stations.values() for p in s.ports]
    addresses = [a for p in ports for a in p.addresses()]
    assert len(set(addresses)) == len(addresses)
    assert len({p.mac for p in ports}) == len(ports)
    # The lab's prefix has five characters, a Linux interface name fifteen.
    assert all(len(p.label) <= 10 for p in ports)
    assert set(topo.managed) <= set(topo.switches())


@pytest.mark.parametrize("topo", ALL, ids=lambda t: type(t).__name__)
def test_every_station_reaches_every_subnet(topo: RoutedTopo) -> None:
    for station in topo.stations.values():
        own = {subnet for port in station.ports for subnet in port.subnets}
        assert own | {r.subnet for r in topo.routes(station)} == topo.subnets()


def test_routes_take_the_shortest_way() -> None:
    assert names(Chain(n=4), "a", 4) == ["r1", "r2", "r3", "r4"]
    assert names(Chain(n=4), "b", 0) == ["r4", "r3", "r2", "r1"]
    assert names(Tree(), "a1", 4) == ["r1", "r3"]
    assert names(Tree(), "a1", 2) == ["r1", "r2"]
    assert names(Uplink(), "a", 2) == ["r1", "gw"]
    assert names(Stick(), "a", 1) == ["r1"]


def test_a_router_delegates_routes_and_neighbours() -> None:
    topo = Chain(n=2)
    flows = topo.flows(topo.stations["r1"])
    assert {
        "match": {"in": "eth0", "ipv4_dst": "10.0.2.0/24"},
        "action": "forward",
        "set": {"eth_dst": topo.stations["r2"].ports[0].mac},
        "out": "eth1",
    } in flows
    to_a = [f for f in flows if f["match"].get("ipv6_dst") == "fd00::a"]
    a = topo.stations["a"].ports[0]
    assert [(f["match"]["in"], f["out"], f["set"]["eth_dst"]) for f in to_a] == [("eth1", "eth0", a.mac)]
    assert not [f for f in flows if f["match"]["in"] == f["out"]]


def test_a_router_on_a_stick_delegates_back_out() -> None:
    topo = Stick()
    flows = topo.flows(topo.stations["r1"])
    assert {f["match"].get("ipv4_dst") for f in flows} == {"10.0.0.10", "10.0.1.10", None}
    assert {(f["match"]["in"], f["out"]) for f in flows} == {("eth0", "eth0")}


def test_only_our_own_routers_delegate() -> None:
    assert [s.name for s in Uplink().routers()] == ["r1"]
