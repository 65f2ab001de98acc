"""IPv6 dumps pass over routes that stand between the legs of a multipath route; what a dump has not told may not be missed.

The kernel tells a multipath route where its first leg stands, and goes on behind its last leg (fib6_dump_node). When the route
goes, or loses a leg, what it hid is used without a word.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from fsctl.agent.decide import Hole
from fsctl.agent.fib import Fold
from fsctl.agent.follow import Follower
from fsctl.model.addresses import IPV6, parse_mac

from .kernel import host
from .netns import KernelOf, Namespace, namespaces, needs_root, veth

pytestmark = needs_root
NETS = {"r0": "fd00:9", "r1": "fd00:1", "r2": "fd00:2"}
KNOWN = {"r0": "eth0", "r1": "eth1"}
INSIDE = "fd05::9"
A, HIDDEN, B = "via fd00:9::2", "dev r2", "via fd00:1::2"
"""Two legs of one multipath route; the route between them cannot be a leg, since it has no gateway."""


class Guest:
    """A router with a default route, and a fold that follows it; dumps are taken when the test says so."""

    def __init__(self, ns: Namespace) -> None:
        self.ns = ns
        for interface, net in NETS.items():
            ns.ip(f"addr add {net}::1/64 dev {interface} nodad")
            ns.ip(f"neigh replace {net}::2 lladdr 02:00:00:00:00:0b dev {interface} nud permanent")
        ns.sysctl("ipv6/conf/all/forwarding", "1")
        ns.ip("-6 route add ::/0 via fd00:1::2")
        self.kernel = KernelOf(ns.name)
        self.fold = Fold({parse_mac(ns.mac(i)): name for i, name in KNOWN.items()})
        self.follower = Follower(self.kernel, self.fold)
        self.dump()

    def dump(self) -> None:
        self.follower.resync(0.0)
        self.fold.settle()

    def route(self, *changes: str) -> None:
        """Change routes of fd05::/32, and take in what the kernel tells of it."""
        for change in changes:
            verb, _, how = change.partition(" ")
            self.ns.ip(f"-6 route {verb} fd05::/32 {how}")
        for _ in range(2):
            time.sleep(0.01)
            self.follower.pump()
        self.fold.settle()

    def decision(self) -> str:
        found = self.fold.decision(*host(INSIDE))
        return found.reason if isinstance(found, Hole) else type(found).__name__

    def device(self) -> str:
        """The one that the kernel sends packets for fd05::9 to."""
        return str(self.ns.json(f"-6 route get {INSIDE}")[0]["dev"])


@pytest.fixture
def guest() -> Iterator[Guest]:
    with namespaces("r", "p") as (ns, peers):
        for interface in NETS:
            veth(ns, interface, peers, f"p{interface}")
        made = Guest(ns)
        yield made
        made.kernel.close()


@pytest.mark.parametrize("gone", [f"del {A}", f"del {B}", "del", "replace via fd00:9::3"])
def test_what_a_multipath_route_has_hidden_is_a_hole_until_a_dump(guest: Guest, gone: str) -> None:
    """The default route was delegated for packets that the kernel sent by r2, or the leg that was left."""
    guest.route(f"append {A}", f"append {HIDDEN}", f"append {B}")
    guest.dump()
    assert len(guest.fold.state.ribs[IPV6].at(host_key())) == 1, "the dump has passed over the route by r2"
    guest.route(gone)
    assert guest.decision() == "routes not told"
    assert guest.follower.due() < time.monotonic() + 2, "and a dump is wanted"
    guest.dump()
    by_r2 = guest.device() == "r2"
    assert by_r2 == (gone in (f"del {A}", "del"))
    assert guest.decision() == ("interface not known to fsctl, or down" if gone == "del" else "multipath")


def test_a_multipath_route_is_a_hole_however_alike_its_legs_are(guest: Guest) -> None:
    """Each leg has metrics of its own, of which only one leg's are told."""
    guest.ns.ip("-6 neigh replace fd00:1::3 lladdr 02:00:00:00:00:0b dev r1 nud permanent")
    guest.route("append via fd00:1::2", "append via fd00:1::3")
    assert guest.decision() == "multipath"
    guest.dump()
    assert guest.decision() == "multipath"


def test_the_same_route_twice(guest: Guest) -> None:
    """A route that replaces the first of its metric may be there already: IPv6 then holds it twice, and one `del` takes one."""
    guest.route("append dev r1")
    guest.ns.ip("-6 route append unreachable fd05::/32")
    guest.dump()
    guest.ns.ip("-6 route replace unreachable fd05::/32")
    guest.route()
    assert guest.decision() == "routes not told"
    guest.dump()
    assert [route.kind for route in guest.fold.state.ribs[IPV6].at(host_key())] == ["unreachable"] * 2
    guest.route("del")
    guest.dump()
    assert guest.decision() == "unreachable"


def test_an_address_that_goes_takes_no_hidden_route_with_it(guest: Guest) -> None:
    """Drawn by the chaos run: a route that the kernel did not have any more stayed in force."""
    guest.route(f"append {A}", f"append {HIDDEN}", f"append {B}")
    guest.dump()
    guest.ns.ip("addr del fd00:9::1/64 dev r0")
    guest.route(f"del {B}")
    assert guest.decision() == "routes not told"
    guest.dump()
    assert guest.decision() != "Forward"


def host_key() -> int:
    return (0xFD05 << 112) << 8 | 32
