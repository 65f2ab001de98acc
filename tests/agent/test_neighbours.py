"""Which neighbours are kept alive, and how (hazard 13)."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from fsctl.agent import neighbours
from fsctl.agent.events import Event, Neigh, NeighKey
from fsctl.agent.neighbours import MAX_RETRY_SECONDS, RETRY_SECONDS, Keeper, Plan, limits
from fsctl.agent.nudge import Nudge
from fsctl.model.addresses import IPV4, IPV6
from tests.waiting import eventually

from .kernel import ETH1, base, folded, leg, neigh, route, table, texts
from .netns import inside, namespaces, needs_root, veth

GATEWAY, HOST = neigh(ETH1, "10.0.1.9"), neigh(ETH1, "10.0.1.7")
STALE = replace(GATEWAY, state="stale")


def keeper(most: int = 100) -> Keeper:
    return Keeper({IPV4: most, IPV6: most})


def planned(by: Keeper, *there: Neigh, gateways: tuple[Neigh, ...] = (), hosts: tuple[Neigh, ...] = (), now: float = 0.0) -> Plan:
    return by.plan({n.key for n in gateways}, {n.key for n in hosts}, {n.key: n for n in there}, now)


def asked(
    by: Keeper, *there: Neigh, gateways: tuple[Neigh, ...] = (), hosts: tuple[Neigh, ...] = (), now: float = 0.0
) -> list[NeighKey]:
    return list(planned(by, *there, gateways=gateways, hosts=hosts, now=now).nudges)


def test_hazard_13_stale_ones_in_use_are_confirmed() -> None:
    by, old = keeper(), replace(HOST, state="stale")
    assert asked(by, GATEWAY, HOST, gateways=(GATEWAY,), hosts=(HOST,)) == []
    assert asked(by, STALE, old, gateways=(GATEWAY,), hosts=(HOST,)) == [HOST.key, GATEWAY.key]
    assert asked(by, STALE, gateways=(GATEWAY,), now=RETRY_SECONDS / 2) == [], "not in a hurry"
    assert asked(by, STALE, gateways=(GATEWAY,), now=RETRY_SECONDS) == [GATEWAY.key]
    assert asked(by, STALE, old) == [], "not what nobody uses"


def test_hazard_13_a_gateway_without_an_entry_is_resolved_on_purpose() -> None:
    assert asked(keeper(), gateways=(GATEWAY,)) == [GATEWAY.key]


def test_a_host_that_has_gone_is_not_looked_for() -> None:
    assert asked(keeper(), replace(HOST, state="failed"), hosts=(HOST,)) == []


@pytest.mark.parametrize("there", [replace(STALE, state="permanent"), replace(STALE, managed=True)])
def test_what_does_not_age_is_left_alone(there: Neigh) -> None:
    assert planned(keeper(0), there, gateways=(GATEWAY,)) == Plan()


def test_fault_C6_a_gateway_that_does_not_answer_is_asked_ever_more_seldom() -> None:
    by, failed = keeper(), replace(GATEWAY, state="failed", mac=None)
    times = [now for now in range(2000) if asked(by, failed, gateways=(GATEWAY,), now=float(now))]
    pauses = [b - a for a, b in pairwise(times)]
    assert pauses[:8] == [5, 10, 20, 40, 80, 160, 320, 320]
    assert max(pauses) == MAX_RETRY_SECONDS
    assert asked(by, GATEWAY, gateways=(GATEWAY,), now=2000.0) == []
    assert asked(by, failed, gateways=(GATEWAY,), now=2001.0) == [GATEWAY.key], "it was there: from the beginning"


def test_fault_C6_a_route_that_flaps_asks_no_more_often() -> None:
    by, failed = keeper(), replace(GATEWAY, state="failed", mac=None)
    times = [now for now in range(100) if asked(by, failed, gateways=(GATEWAY,) if now % 2 == 0 else (), now=float(now))]
    assert times == [0, 6, 16, 36, 76]


def test_fault_C6_no_more_are_kept_than_a_part_of_the_kernels_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "_THRESHOLD", "/absent/{version}")
    assert limits() == {IPV4: 256, IPV6: 256}
    hosts = tuple(Neigh(ETH1, 4, 10 << 24 | n, 0x020000000000 | n, "stale") for n in range(105))
    by = keeper(100)
    first = planned(by, *hosts, hosts=hosts)
    assert len(first.nudges) == 100
    assert first.unkept == {h.key for h in hosts} - set(first.nudges)
    newcomer = Neigh(ETH1, 4, 1, 0x020000000001, "stale")
    later = planned(by, newcomer, *hosts, hosts=(newcomer, *hosts), now=1.0)
    assert later.unkept == first.unkept | {newcomer.key}, "always the same ones"
    assert planned(by, newcomer, *hosts, gateways=(newcomer,), hosts=hosts, now=2.0).nudges == (newcomer.key,), "gateways first"
    assert "more neighbours in use than 100" in by.reasons()[0][1]


def test_fault_C6_gateways_that_are_not_there_leave_room_and_all_get_their_turn() -> None:
    by = keeper(100)
    dead = tuple(Neigh(ETH1, 4, 10 << 24 | n, None, "failed") for n in range(60))
    hosts = tuple(Neigh(ETH1, 4, 11 << 24 | n, 0x020000000000 | n, "stale") for n in range(75))
    first = planned(by, *dead, *hosts, gateways=dead, hosts=hosts)
    assert len(first.nudges) == 25 + 75
    assert not first.unkept
    rounds = [set(asked(by, *dead, gateways=dead, now=1.0 + n)) for n in range(2)]
    assert set().union(first.nudges, *rounds) >= {n.key for n in dead}
    later = [len(asked(by, *dead, gateways=dead, now=3.0 + n)) for n in range(1280)]
    assert sum(later[-320:]) <= len(dead) + 25, "each of them once in 320 s"
    absent = keeper(100)
    begun = asked(absent, gateways=dead)
    failed = [n for n in dead if n.key in begun]
    assert len(begun) == 25
    assert asked(absent, gateways=dead, now=0.5) == [], "the kernel does not tell of an entry before it has failed"
    assert all(k in begun for n in range(100) for k in asked(absent, *failed, gateways=dead, now=1.0 + n)), "no more entries"


def test_fault_C6_a_route_to_a_single_address_has_a_host_not_a_gateway() -> None:
    """1,500 `ip route add 10.7.x.y/32 dev r1` are 1,500 hosts of which nothing is known: none is resolved on purpose."""
    direct = route("10.7.0.1/32", leg(ETH1))
    fold = folded([*base(), Event(direct), Event(route("10.9.0.0/16", leg(ETH1, "10.0.1.9")))])
    assert fold.gateways() == {GATEWAY.key}
    there = neigh(ETH1, "10.7.0.1")
    fold.apply(Event(there))
    fold.settle()
    assert "10.7.0.1/32" in texts(fold.delegations())
    assert there.key in fold.hosts()


def test_fault_C6_a_stale_neighbour_that_nobody_confirms_is_not_delegated_to() -> None:
    far = Event(route("10.9.0.0/16", leg(ETH1, "10.0.1.9")))
    fold = folded([*base(), far, Event(STALE), Event(HOST)])
    with_both = {"10.9.0.0/16", "10.0.1.9/32", "10.0.1.7/32"}
    assert set(texts(fold.delegations())) == with_both
    fold.leave(frozenset({GATEWAY.key, HOST.key}))
    fold.settle()
    assert set(texts(fold.delegations())) == {"10.0.1.7/32"}, "the host's entry is fresh"
    fold.apply(Event(replace(HOST, state="stale")))
    fold.settle()
    assert texts(fold.delegations()) == {}
    fold.apply(Event(GATEWAY))
    fold.leave(frozenset({GATEWAY.key}))
    fold.settle()
    assert set(texts(fold.delegations())) == with_both
    assert with_both <= set(table(far, Event(GATEWAY), Event(HOST)))


def test_fault_C5_where_nothing_can_be_sent_the_neighbour_is_unkept() -> None:
    by = keeper()
    asked(by, STALE, gateways=(GATEWAY,))
    by.sent(GATEWAY.key, False)
    assert planned(by, STALE, gateways=(GATEWAY,), now=1.0).unkept == {GATEWAY.key}
    assert "cannot send" in by.reasons()[0][1]
    by.sent(GATEWAY.key, True)
    assert planned(by, STALE, gateways=(GATEWAY,), now=2.0).unkept == frozenset()
    assert by.reasons() == []


@needs_root
@pytest.mark.parametrize("version", [IPV4, IPV6])
def test_hazard_13_the_kernel_does_what_is_asked(version: int) -> None:
    with namespaces("n", "m") as (ns, peer):
        veth(ns, "r1", peer, "p1")
        near, far = ("10.0.1.1", "10.0.1.9") if version == IPV4 else ("fd01::1", "fd01::9")
        ns.ip(f"addr add {near}/24 dev r1" + " nodad" * (version == IPV6))
        peer.ip(f"addr add {far}/24 dev p1" + " nodad" * (version == IPV6))
        ns.sysctl(f"ipv{version}/neigh/r1/delay_first_probe_time", "1")
        target = replace(neigh(ns.json("link show dev r1")[0]["ifindex"], far))
        with inside(ns.name):
            nudge = Nudge()

        def entry() -> dict[str, object]:
            found: dict[str, object] = next((n for n in ns.json("neigh show") if n["dst"] == far), {})
            return found

        try:
            nudge.send(target.key)
            eventually(lambda: entry().get("state") == ["REACHABLE"], "resolved")
            ns.ip(f"neigh change {far} dev r1 nud stale")
            nudge.send(target.key)
            eventually(lambda: entry()["state"] == ["REACHABLE"], "confirmed")
            ns.ip(f"neigh replace {far} dev r1 lladdr 02:aa:00:00:00:01 nud permanent")
            nudge.send(target.key)
            assert (entry()["state"], entry()["lladdr"]) == (["PERMANENT"], "02:aa:00:00:00:01")
        finally:
            nudge.close()
