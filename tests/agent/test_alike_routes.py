"""IPv4 routes of one prefix and metric that lead the same way and differ in something else: the kernel has them all.

Found by test_chaos: they were taken for one that was told again, and the deletion of one took all of them away.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fsctl.agent.fib import Fold
from fsctl.agent.follow import Follower
from fsctl.model.addresses import parse_mac

from .kernel import texts
from .netns import KernelOf, Namespace, namespaces, needs_root, veth

pytestmark = needs_root
A, B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
VIA_A = "via 10.0.1.2 dev r1"


@pytest.fixture
def router() -> Iterator[tuple[Namespace, Follower, Fold]]:
    """10.0.0.0/8 leads to B; what is inside of it, to A."""
    with namespaces("s", "t") as (ns, peers):
        for n in range(2):
            veth(ns, f"r{n}", peers, f"p{n}")
            ns.ip(f"addr add 10.0.{n}.1/24 dev r{n}")
        ns.ip(f"neigh add 10.0.1.2 lladdr {A} dev r1 nud permanent")
        ns.ip(f"neigh add 10.0.1.3 lladdr {B} dev r1 nud permanent")
        ns.ip("route add 10.0.0.0/8 via 10.0.1.3")
        kernel = KernelOf(ns.name)
        fold = Fold({parse_mac(ns.mac(f"r{n}")): f"eth{n}" for n in range(2)})
        follower = Follower(kernel, fold)
        try:
            follower.resync(0.0)
            yield ns, follower, fold
        finally:
            kernel.close()


def delegated(follower: Follower, fold: Fold) -> str | None:
    """Where 10.5.0.0/16 leads, by what was told alone."""
    follower.pump()
    fold.settle()
    return texts(fold.delegations()).get("10.5.0.0/16")


@pytest.mark.parametrize("other", ["mtu 1500", "onlink", "src 10.0.0.1", "proto bird"])
def test_when_one_of_two_goes_the_other_is_still_there(router: tuple[Namespace, Follower, Fold], other: str) -> None:
    ns, follower, fold = router
    ns.ip(f"route add 10.5.0.0/16 {VIA_A}")
    ns.ip(f"route append 10.5.0.0/16 {VIA_A} {other}")
    assert delegated(follower, fold) == f"eth1 {A}"
    ns.ip("route del 10.5.0.0/16")
    assert "10.0.1.2" in ns.ip("route get 10.5.0.9")
    assert delegated(follower, fold) == f"eth1 {A}"
    ns.ip("route del 10.5.0.0/16")
    assert delegated(follower, fold) is None


def test_the_first_of_two_is_what_the_kernel_uses(router: tuple[Namespace, Follower, Fold]) -> None:
    """It fragments to 1400 bytes, whatever was appended: before a dump tells the order, neither is delegated."""
    ns, follower, fold = router
    ns.ip(f"route add 10.5.0.0/16 {VIA_A} mtu 1400")
    ns.ip(f"route append 10.5.0.0/16 {VIA_A}")
    assert "mtu 1400" in ns.ip("route get 10.5.0.9")
    assert delegated(follower, fold) == "Punt"


@pytest.mark.parametrize("flag", ["onlink", ""])
def test_several_ways_told_with_their_flags_are_deleted_by_them(router: tuple[Namespace, Follower, Fold], flag: str) -> None:
    ns, follower, fold = router
    ways = f"nexthop via 10.0.1.2 dev r1 {flag} weight 3 nexthop via 10.0.0.2 dev r0"
    ns.ip(f"route add 10.5.0.0/16 {ways}")
    ns.ip(f"route append 10.5.0.0/16 {ways.replace('weight 3', 'weight 4')}")
    assert delegated(follower, fold) == "Punt"
    assert len(fold.state.ribs[4].at(10 << 32 | 5 << 24 | 16)) == 2
    ns.ip("route del 10.5.0.0/16")
    assert delegated(follower, fold) == "Punt"
    ns.ip("route del 10.5.0.0/16")
    assert delegated(follower, fold) is None
