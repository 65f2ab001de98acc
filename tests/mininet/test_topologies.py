"""Every topology with real packets: routed at first, bypassed once its routers have delegated."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from packets import Listener, caught, forwarded

from topologies import measure
from topologies.lab import Lab
from topologies.plan import RoutedTopo
from topologies.topos import Chain, Figure2, Stick, Tree, Uplink

BOTH = pytest.mark.parametrize("version", [4, 6])
StartLab = Callable[[RoutedTopo], Lab]


def check(lab: Lab, sender: str, receiver: str, passed: list[str], bypassed: list[str], version: int) -> None:
    """One packet: right MACs, exact TTL, and those routers alone touch it that are not bypassed."""
    before = {name: forwarded(lab, name) for name in passed}
    frame = caught(lab, sender, receiver, version)
    assert frame is not None, "lost"
    last = lab.topo.stations[passed[-1]]
    target = lab.topo.stations[receiver].ports[0]
    exit_port = next(p for p in last.ports if set(p.subnets) & set(target.subnets))
    assert (frame.eth_src, frame.eth_dst) == (exit_port.mac, target.mac)
    assert frame.ttl == 64 - len(passed)
    assert frame.checksum_ok
    touched = [name for name in passed if forwarded(lab, name) > before[name]]
    assert touched == [name for name in passed if name not in bypassed]


@pytest.fixture(scope="module")
def figure2(start_lab: StartLab) -> Lab:
    return start_lab(Figure2())


@BOTH
def test_figure2(figure2: Lab, version: int) -> None:
    figure2.withdraw()
    check(figure2, "a", "b", ["r1"], [], version)
    check(figure2, "b", "a", ["r1"], [], version)


@BOTH
def test_figure3(figure2: Lab, version: int) -> None:
    figure2.delegate()
    check(figure2, "a", "b", ["r1"], ["r1"], version)
    check(figure2, "b", "a", ["r1"], ["r1"], version)


@pytest.fixture(scope="module")
def chain(start_lab: StartLab) -> Lab:
    lab = start_lab(Chain(n=4))
    lab.delegate()
    return lab


ROUTERS = ["r1", "r2", "r3", "r4"]


@BOTH
def test_chain(chain: Lab, version: int) -> None:
    chain.delegate()
    check(chain, "a", "b", ROUTERS, ROUTERS, version)
    check(chain, "b", "a", ROUTERS[::-1], ROUTERS, version)


@BOTH
def test_chain_with_a_router_that_takes_its_delegations_back(chain: Lab, version: int) -> None:
    chain.delegate()
    chain.withdraw("r3")
    # The rest is still bypassed: r1 and r2 in one rule, r4 in another.
    check(chain, "a", "b", ROUTERS, ["r1", "r2", "r4"], version)
    chain.delegate("r3")
    check(chain, "a", "b", ROUTERS, ROUTERS, version)


def test_chain_is_one_rule_of_all_its_hops(chain: Lab) -> None:
    chain.delegate()
    rules = chain.control.client.rules(chain.bridge("b0"))
    mine = [r for r in rules if r["match"].get("ipv4_dst") == chain.address("b")]
    assert [[hop["router"] for hop in rule["chain"]] for rule in mine] == [ROUTERS]


@BOTH
def test_traceroute_shows_every_bypassed_router(chain: Lab, version: int) -> None:
    chain.delegate()
    ingress = [chain.address(name, version) for name in ROUTERS]
    assert measure.trace(chain["a"], chain.address("b", version)) == [*ingress, chain.address("b", version)]


@BOTH
@pytest.mark.parametrize("ttl", [3, 4, 5])
def test_ttl_at_the_end_of_the_chain(chain: Lab, version: int, ttl: int) -> None:
    """Four routers: TTL 4 expires at the fourth, TTL 5 arrives as 1, TTL 3 expires before."""
    chain.delegate()
    frame = caught(chain, "a", "b", version, ttl)
    assert (frame and frame.ttl) == (1 if ttl == 5 else None)


def test_segments_stay_apart(chain: Lab) -> None:
    """No L2 leak: a broadcast on A's bridge is heard there and nowhere else."""
    chain.delegate()
    with Listener(chain["r1"], "eth0") as near, Listener(chain["r4"], "eth1") as far, Listener(chain["b"]) as end:
        chain["a"].execute("sh", "-c", "ping -b -c 2 -i 0.2 -W 1 10.0.0.255 || true")
        assert [f for f in near.frames() if f.dst == "10.0.0.255"]
        assert not [f for f in far.frames() if f.dst == "10.0.0.255"]
        assert not [f for f in end.frames() if f.dst == "10.0.0.255"]


@BOTH
def test_stick(stick: Lab, version: int) -> None:
    stick.withdraw()
    check(stick, "a", "b", ["r1"], [], version)
    stick.delegate()
    check(stick, "a", "b", ["r1"], ["r1"], version)
    check(stick, "b", "a", ["r1"], ["r1"], version)


@pytest.fixture(scope="module")
def stick(start_lab: StartLab) -> Lab:
    return start_lab(Stick())


@pytest.fixture(scope="module")
def tree(start_lab: StartLab) -> Lab:
    lab = start_lab(Tree())
    lab.delegate()
    return lab


@BOTH
def test_tree(tree: Lab, version: int) -> None:
    check(tree, "a1", "b", ["r1", "r3"], ["r1", "r3"], version)
    check(tree, "a2", "b", ["r2", "r3"], ["r2", "r3"], version)
    check(tree, "b", "a2", ["r3", "r2"], ["r2", "r3"], version)
    check(tree, "a1", "a2", ["r1", "r2"], ["r1", "r2"], version)


@BOTH
def test_uplink(uplink: Lab, version: int) -> None:
    uplink.delegate()
    check(uplink, "a", "b", ["r1", "gw"], ["r1"], version)
    check(uplink, "b", "a", ["gw", "r1"], ["r1"], version)


@pytest.fixture(scope="module")
def uplink(start_lab: StartLab) -> Lab:
    return start_lab(Uplink())


def test_packets_for_a_router_itself_reach_it(chain: Lab) -> None:
    chain.delegate()
    for name in ROUTERS:
        for number in (0, 1):
            address = chain.address(name, number=number)
            assert " 0% packet loss" in chain["a"].execute("ping", "-c", "1", "-W", "2", address)
