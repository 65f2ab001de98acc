"""What a router's delegations may cost."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from fsctl import quota
from fsctl.collapse.compiler import Compiler
from fsctl.errors import TooLargeError
from fsctl.model.addresses import BITS, IPV4, Prefix
from fsctl.model.delegations import Delegation, Forward, Match, Verdict
from fsctl.model.fib import Fib, change_of
from fsctl.model.network import Interface, Router
from fsctl.status import Write
from fsctl.writes import Pending, Submitted, Together
from tests.properties.laws import with_fibs
from tests.strategies import a_network, of_seed
from tests.unit.paper import Lab

LIMITS = quota.Limits(100, 8, 16)
WIDE = Prefix.parse("20.0.0.0/8")
ROUTER = Router("r", {f"eth{n}": Interface("r", f"eth{n}", "xy"[n], "", n + 1) for n in range(2)})


def host(n: int) -> Prefix:
    return Prefix.host(IPV4, WIDE.value + n)


def crossing(n: int, senders: int) -> list[Delegation]:
    """Hosts that lead elsewhere than the rest, and senders for whom all of it leads elsewhere again."""
    said = [Delegation(Match("eth0", WIDE), Forward("eth1", 10))]
    said += [Delegation(Match("eth0", host(k)), Forward("eth1", 11)) for k in range(n)]
    return said + [Delegation(Match("eth0", WIDE, eth_src=100 + k), Forward("eth1", 12)) for k in range(senders)]


def overlay(said: list[Delegation]) -> quota.Overlay:
    return {change_of(d.match, None)[:2]: d.verdict for d in said}


def test_d7_hosts_times_senders_are_refused() -> None:
    quota.check(ROUTER, Fib(), overlay(crossing(20, 3)), LIMITS)
    with pytest.raises(TooLargeError, match="max_rules") as refused:
        quota.check(ROUTER, Fib(), overlay(crossing(20, 5)), LIMITS)
    assert (refused.value.field, refused.value.value) == ("flows", 21 + 5 * 22)


def test_what_is_there_counts_as_what_is_added() -> None:
    fib, added = Fib(crossing(20, 4)[:-1]), overlay(crossing(20, 4)[-1:])
    everything = quota.exact(Fib(), overlay(crossing(20, 4)), {"eth0"})
    assert quota.exact(fib, added, {"eth0"}) == everything == quota.exact(Fib(crossing(20, 4)), {}, {"eth0"})


def test_a_class_pays_only_for_what_its_own_prefixes_cover() -> None:
    narrow = [Delegation(Match("eth0", host(0), eth_src=100 + k), Forward("eth1", 12)) for k in range(8)]
    assert quota.exact(Fib([*crossing(60, 0), *narrow]), {}, {"eth0"}) == 61 + 8 * 2
    quota.check(ROUTER, Fib(), overlay([*crossing(60, 0), *narrow]), LIMITS)


def test_d8_senders_are_bounded() -> None:
    with pytest.raises(TooLargeError, match="max_senders") as refused:
        quota.check(ROUTER, Fib(), overlay(crossing(0, 9)), LIMITS)
    assert (refused.value.field, refused.value.value) == ("eth_src", 9)


def test_d12_next_hops_are_bounded() -> None:
    said: dict[Match, Verdict] = {Match("eth0", host(k)): Forward("eth1", 100 + k) for k in range(17)}
    with pytest.raises(TooLargeError, match="max_nexthops"):
        quota.check(ROUTER, Fib(), overlay([Delegation(*d) for d in said.items()]), LIMITS)


def test_next_hops_that_a_write_replaces_do_not_count() -> None:
    said = [Delegation(Match("eth0", host(k)), Forward("eth1", 100 + k)) for k in range(16)]
    quota.check(ROUTER, Fib(said), overlay([Delegation(said[0].match, Forward("eth1", 200))]), LIMITS)


def test_d7_a_write_that_costs_too_much_changes_nothing() -> None:
    lab = Lab()
    try:
        config = replace(lab.config, routers={"r": replace(lab.config.routers["r"], max_rules=100)})
        pending = Pending(lab.runtime)
        changes = [change_of(d.match, d.verdict) for d in crossing(20, 5)]
        sessions = lab.controller.sessions
        together = Together(
            {"r": Fib()}, config, sessions, Submitted(Write("r", changes, is_admin=True), pending), (), {"r": ROUTER}
        )
        assert together.commits(lambda: None) == []
        with pytest.raises(TooLargeError, match="max_rules"):
            pending.stored(0)
    finally:
        lab.stop()


@pytest.mark.parametrize("seed", range(300))
def test_no_router_alone_has_more_rules_than_are_counted(seed: int) -> None:
    """Each router's own delegations: all others have none."""
    network = a_network(of_seed(seed), 30)
    for name, router in network.routers.items():
        fibs = {other: list(network.fibs[other]) if other == name else [] for other in network.routers}
        alone = with_fibs(network, fibs)
        rules: Counter[str] = Counter()
        for graph, node in Compiler(alone).nodes():
            if node.interface.router == name:
                local = {value << 8 | BITS[graph.version] for v, value in network.own_addresses[name] if v == graph.version}
                rules[node.interface.bridge] += len(node.rules.keys() - local)
        for bridge in {i.bridge for i in router.interfaces.values()}:
            here = {i.name for i in router.interfaces.values() if i.bridge == bridge}
            itself = quota.leads_to_itself(router, alone.fibs[name], {})
            assert rules[bridge] <= quota.exact(alone.fibs[name], {}, here, itself=itself)


def test_the_random_networks_have_classes_that_cost_rules() -> None:
    rng = random.Random(1)
    networks = [a_network(of_seed(rng.randrange(300)), 30) for _ in range(50)]
    assert any(node.rules for n in networks for _, node in Compiler(n).nodes() if node.eth_src is not None)
