"""Which neighbours are kept alive, and how (hazard 13)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fsctl.agent.events import Neigh, NeighKey
from fsctl.agent.neighbours import MAX_MANAGED_HOSTS, RETRY_SECONDS, Action, Keeper, Request, has_managed_neighbours
from fsctl.agent.netlink import Kernel
from tests.waiting import eventually

from .kernel import ETH1, neigh
from .netns import inside, namespaces, needs_root, veth

GATEWAY, HOST = neigh(ETH1, "10.0.1.9"), neigh(ETH1, "10.0.1.7")


def asked(
    keeper: Keeper, *there: Neigh, gateways: tuple[Neigh, ...] = (), hosts: tuple[Neigh, ...] = (), now: float = 0.0
) -> list[Request]:
    return keeper.plan({n.key for n in gateways}, {n.key for n in hosts}, {n.key: n for n in there}, now)


def test_hazard_13_gateways_and_hosts_in_use_are_managed_once() -> None:
    keeper = Keeper(managed=True)
    assert {(r.neigh.key, r.action) for r in asked(keeper, GATEWAY, HOST, gateways=(GATEWAY,), hosts=(HOST,))} == {
        (GATEWAY.key, Action.MANAGE),
        (HOST.key, Action.MANAGE),
    }
    done = replace(GATEWAY, managed=True), replace(HOST, managed=True)
    assert asked(keeper, *done, gateways=(GATEWAY,), hosts=(HOST,), now=99) == []


def test_hazard_13_a_gateway_without_an_entry_is_resolved_on_purpose() -> None:
    (request,) = asked(Keeper(managed=True), gateways=(GATEWAY,))
    assert (request.neigh.key, request.action) == (GATEWAY.key, Action.MANAGE)
    (request,) = asked(Keeper(managed=False), gateways=(GATEWAY,))
    assert (request.neigh.key, request.action) == (GATEWAY.key, Action.USE)


def test_hazard_13_without_managed_neighbours_stale_ones_are_confirmed() -> None:
    keeper, stale = Keeper(managed=False), replace(GATEWAY, state="stale")
    assert asked(keeper, GATEWAY, gateways=(GATEWAY,)) == []
    assert [r.action for r in asked(keeper, stale, gateways=(GATEWAY,))] == [Action.USE]
    assert asked(keeper, stale, gateways=(GATEWAY,), now=RETRY_SECONDS / 2) == [], "not in a hurry"
    assert [r.action for r in asked(keeper, stale, gateways=(GATEWAY,), now=RETRY_SECONDS)] == [Action.USE]


def test_what_is_no_longer_in_use_is_released() -> None:
    keeper, managed = Keeper(managed=True), replace(GATEWAY, managed=True)
    asked(keeper, GATEWAY, gateways=(GATEWAY,))
    assert asked(keeper, managed) == [Request(managed, Action.RELEASE)]
    assert asked(keeper, managed) == []


def test_what_others_manage_is_left_alone() -> None:
    keeper, managed = Keeper(managed=True), replace(GATEWAY, managed=True)
    assert asked(keeper, managed, gateways=(GATEWAY,)) == []
    assert keeper.release_all({managed.key: managed}) == []


def test_permanent_entries_are_left_alone() -> None:
    assert asked(Keeper(managed=True), replace(GATEWAY, state="permanent"), gateways=(GATEWAY,)) == []


def test_a_host_that_has_gone_is_not_looked_for_for_ever() -> None:
    keeper = Keeper(managed=True)
    asked(keeper, HOST, hosts=(HOST,))
    failed = replace(HOST, state="failed", managed=True)
    assert asked(keeper, failed, hosts=()) == [Request(failed, Action.RELEASE)]


def test_only_so_many_hosts_are_managed_and_always_the_same() -> None:
    hosts = tuple(Neigh(ETH1, 4, 10 << 24 | n, 0x020000000000 | n) for n in range(MAX_MANAGED_HOSTS + 5))
    keeper = Keeper(managed=True)
    first = {r.neigh.key for r in asked(keeper, *hosts, hosts=hosts)}
    assert len(first) == MAX_MANAGED_HOSTS
    newcomer = Neigh(ETH1, 4, 1, 0x020000000001)
    there = [replace(h, managed=h.key in first) for h in hosts]
    assert asked(keeper, newcomer, *there, hosts=(newcomer, *hosts), now=99) == []


@pytest.mark.parametrize(
    ("release", "has"), [("5.15.0-1", False), ("5.16.0", True), ("6.1.0-13-amd64", True), ("4.19.0", False), ("?", False)]
)
def test_managed_neighbours_by_kernel_release(release: str, has: bool) -> None:
    assert has_managed_neighbours(release) is has


@needs_root
def test_hazard_13_the_kernel_does_what_is_asked() -> None:
    with namespaces("n", "m") as (ns, peer):
        veth(ns, "r1", peer, "p1")
        ns.ip("addr add 10.0.1.1/24 dev r1")
        peer.ip("addr add 10.0.1.9/24 dev p1")
        ns.sysctl("ipv4/neigh/r1/delay_first_probe_time", "1")
        index = ns.json("link show dev r1")[0]["ifindex"]
        with inside(ns.name):
            kernel = Kernel()
        target = Neigh(index, 4, 0x0A000109)

        def entry() -> dict[str, object]:
            found: dict[str, object] = next((n for n in ns.json("neigh show") if n["dst"] == "10.0.1.9"), {})
            return found

        try:
            kernel.tell(target, managed=True)
            eventually(lambda: "managed" in entry() and entry()["state"] == ["REACHABLE"])
            kernel.tell(target, managed=False)
            assert "managed" not in entry()
            ns.ip("neigh change 10.0.1.9 dev r1 nud stale")
            kernel.tell(target, managed=False)
            eventually(lambda: entry()["state"] == ["REACHABLE"])
            assert NeighKey(index, 4, 0x0A000109) == target.key
        finally:
            kernel.close()
