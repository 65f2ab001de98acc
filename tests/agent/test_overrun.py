"""A real overrun of the kernel's messages (hazard 23): they are lost, it is noticed, and a dump makes it good."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator

import pytest

from fsctl.agent import netlink
from fsctl.agent.events import Value
from fsctl.agent.fib import Fold
from fsctl.agent.follow import RESYNC_PAUSE_SECONDS, Follower
from fsctl.agent.netlink import Kernel
from fsctl.model.addresses import IPV4, parse_mac
from tests.waiting import waited_for

from .netns import Namespace, inside, namespaces, needs_root, veth

ROUTES, BLACKHOLES = 4000, 200


@pytest.fixture
def router(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Namespace, Kernel, Follower, Fold]]:
    """A router whose messages are soon too many, and this test within it."""
    monkeypatch.setattr(netlink, "RECEIVE_BUFFER_BYTES", 600_000)
    with namespaces("s", "t") as (ns, peers):
        veth(ns, "r0", peers, "p0")
        ns.ip("addr add 10.0.0.1/24 dev r0")
        ns.ip("neigh add 10.0.0.2 lladdr 02:00:00:00:00:0a dev r0 nud permanent")
        with inside(ns.name):
            kernel = Kernel()
            follower = Follower(kernel, fold := Fold({parse_mac(ns.mac("r0")): "eth0"}))
            try:
                yield ns, kernel, follower, fold
            finally:
                kernel.close()


def batch(ns: Namespace, lines: Iterable[str]) -> None:
    subprocess.run(["ip", "-n", ns.name, "-batch", "-"], input="".join(f"{line}\n" for line in lines), text=True, check=True)


def routes() -> Iterator[str]:
    return (f"route add 10.{1 + n // 250}.{n % 250}.0/24 via 10.0.0.2" for n in range(ROUTES))


@needs_root
def test_hazard_23_lost_messages_are_noticed_and_made_good(router: tuple[Namespace, Kernel, Follower, Fold]) -> None:
    ns, _, follower, fold = router
    follower.resync(0.0)
    batch(ns, routes())
    while follower.due() > RESYNC_PAUSE_SECONDS:
        follower.pump()
        assert follower.events < ROUTES, "nothing was lost: the test says nothing"
    assert follower.overruns
    follower.resync(1.0)
    fold.settle()
    assert sum(1 for route in fold.state.ribs[IPV4].all() if route.legs and route.legs[0].gateway) == ROUTES


@needs_root
def test_fault_C1_what_changes_right_after_the_dump_is_not_lost(router: tuple[Namespace, Kernel, Follower, Fold]) -> None:
    """The socket that had overrun lost everything until it was read empty: 127 of 200 blackholes stayed delegated."""
    ns, _, follower, fold = router
    follower.resync(0.0)
    batch(ns, routes())
    while not follower.overruns:
        follower.pump()
    batch(ns, (f"route add 11.{n // 250}.{n % 250}.0/24 via 10.0.0.2" for n in range(2000)))  # congested again
    follower.resync(1.0)
    batch(ns, (f"route replace blackhole 10.1.{n}.0/24" for n in range(BLACKHOLES)))

    def turn() -> bool:
        """As the agent does it: another overrun leads to another dump; what was lost without a word does not."""
        follower.pump()
        if follower.due() < 100.0:
            follower.resync(follower.due())
        return holes(fold) == BLACKHOLES

    assert waited_for(turn, 3.0), f"{holes(fold)} of {BLACKHOLES}"


@needs_root
def test_fault_C1_nothing_older_is_replayed_over_a_dump(router: tuple[Namespace, Kernel, Follower, Fold]) -> None:
    """What was queued before the dump was taken in after it, if it was more than one read."""
    ns, _, follower, fold = router
    follower.resync(0.0)
    flap = ("route add 10.8.{n}.0/24 via 10.0.0.2", "route del 10.8.{n}.0/24")
    batch(ns, (line.format(n=n) for n in range(250) for line in flap))
    batch(ns, (f"route add blackhole 10.9.{n}.0/24" for n in range(30)))
    follower.resync(1.0)
    seen = follower.events
    assert holes(fold) == 30
    follower.pump()
    assert (follower.events, holes(fold)) == (seen, 30)


def holes(fold: Fold) -> int:
    return sum(route.kind == "blackhole" for route in fold.state.ribs[IPV4].all())


class Silent:
    """A kernel that does not answer, once."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel, self.is_silent = kernel, True

    def renew(self) -> None:
        self._kernel.renew()

    def read(self, datagrams: int = 512) -> netlink.News:
        return self._kernel.read(datagrams)

    def dump(self, kind: type[Value], request: int, version: int) -> list[Value]:
        if self.is_silent:
            raise TimeoutError("timed out")
        return self._kernel.dump(kind, request, version)


@needs_root
def test_fault_C13_a_kernel_that_is_silent_for_a_while_is_asked_again(router: tuple[Namespace, Kernel, Follower, Fold]) -> None:
    _, kernel, _, fold = router
    follower = Follower(silent := Silent(kernel), fold)
    with pytest.raises(TimeoutError):
        follower.resync(5.0)
    assert follower.due() == 5.0 + RESYNC_PAUSE_SECONDS
    silent.is_silent = False
    follower.resync(6.0)
    assert fold.state.links
