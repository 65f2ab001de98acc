"""Routing daemons fill the kernel's tables; at drawn moments the fold says what the kernel says.

The router runs FRR or BIRD, or leads to keepalived's virtual address; a namespace at each of two cables has the peer. A moment
counts if the kernel has told of nothing between two looks at it: then every next hop must be right, at once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from fsctl.agent.fib import Fold
from fsctl.agent.follow import Follower
from fsctl.model.addresses import parse_mac
from tests.waiting import eventually

from .chaos.draw import KNOWN
from .chaos.kernel_says import Said
from .daemons.programs import Bird, Frr, Keepalived, Program, missing
from .kernel import host
from .netns import KernelOf, Namespace, namespaces, needs_root, veth
from .oracle import lookup

pytestmark = needs_root
SECONDS = 4.0
CABLES = (("r0", 0), ("r1", 1))
PREFIXES = {4: [f"172.16.{n}.0/24" for n in range(6)], 6: [f"2001:db8:{n}::/48" for n in range(6)]}
DRAWN = [f"172.16.{n}.9" for n in range(6)] + [f"2001:db8:{n}::9" for n in range(6)] + ["10.0.0.9", "10.0.1.9", "8.8.8.8"]
VIRTUAL = "10.0.1.100"


@dataclass
class Scene:
    """The router and what is at its two cables."""

    router: Namespace
    peers: list[Namespace]
    directory: Path
    rng: random.Random

    def network(self) -> None:
        """10.0.N.0/24 and fd00:N::/64 on cable N; .1 is the router, .9 the peer."""
        for interface, n in CABLES:
            veth(self.router, interface, self.peers[n], "p")
            for ns, device, last in ((self.router, interface, 1), (self.peers[n], "p", 9)):
                ns.sysctl(f"ipv6/conf/{device}/accept_dad", "0")
                ns.sysctl(f"ipv6/conf/{device}/keep_addr_on_down", "1")
                ns.ip(f"addr add 10.0.{n}.{last}/24 dev {device}")
                ns.ip(f"addr add fd00:{n}::{last}/64 dev {device} nodad")
        self.router.forwards_plainly([i for i, _ in CABLES])
        self.router.sysctl("ipv6/conf/all/forwarding", "1")

    def statics(self) -> str:
        """BIRD's static routes to some of the prefixes, drawn."""
        some = {v: [p for p in prefixes if self.rng.random() < 0.6] for v, prefixes in PREFIXES.items()}
        routes = {v: " ".join(f"route {p} blackhole;" for p in prefixes) for v, prefixes in some.items()}
        return "".join(f"protocol static {{ ipv{v}; {text} }}\n" for v, text in routes.items())


Draw = Callable[[], None]


def _frr_bgp(*, extended: bool) -> str:
    lines = ["router bgp 65000", " bgp router-id 10.0.0.1", " no bgp ebgp-requires-policy", " timers bgp 1 3"]
    for n in (0, 1):
        v6 = f"fd00:{n}::9"
        v4 = v6 if extended else f"10.0.{n}.9"
        for peer in dict.fromkeys((v4, v6)):
            lines += [f" neighbor {peer} remote-as 6500{n + 1}", f" neighbor {peer} timers connect 1"]
            lines += [f" neighbor {peer} capability extended-nexthop"] if extended else []
        lines += [" address-family ipv4 unicast", f"  neighbor {v4} activate", " exit-address-family"]
        lines += [" address-family ipv6 unicast", f"  neighbor {v6} activate", " exit-address-family"]
    return "\n".join(lines) + "\n"


def _bird_bgp(n: int, statics: str, *, extended: bool) -> str:
    text = f"router id 10.0.{n}.9;\nprotocol device {{ scan time 1; }}\n{statics}"
    timers = "hold time 3; connect retry time 1; connect delay time 1; error wait time 1,2;"
    for name, of, channel in (("four", f"10.0.{n}.1", "ipv4"), ("six", f"fd00:{n}::1", "ipv6")):
        own = of.replace(".1", ".9") if "." in of else of.replace("::1", "::9")
        channels = f"{channel} {{ import none; export all; next hop self; }};"
        if extended and name == "four":
            continue
        if extended:
            channels += " ipv4 { import none; export all; next hop self; extended next hop on; };"
        text += f"protocol bgp {name} {{ local {own} as 6500{n + 1}; neighbor {of} as 65000; {timers} {channels} }}\n"
    return text


def bgp(scene: Scene, *, extended: bool = False) -> tuple[list[Program], list[Draw]]:
    """FRR between two BIRDs that announce the same prefixes now and then; with RFC 8950, IPv4 by IPv6 next hops."""
    texts = [_bird_bgp(n, scene.statics(), extended=extended) for n in range(2)]
    made = [Bird(ns, scene.directory / f"bird{n}", texts[n]) for n, ns in enumerate(scene.peers)]
    frr = Frr(scene.router, scene.directory / "frr", {"bgpd": _frr_bgp(extended=extended)})

    def announce() -> None:
        n = scene.rng.randrange(2)
        made[n].reconfigure(_bird_bgp(n, scene.statics(), extended=extended))

    return [frr, *made], [announce, announce, announce, _crash(scene, made), *_cuts(scene)]


def ospf(scene: Scene) -> tuple[list[Program], list[Draw]]:
    """FRR's OSPFv3 between two BIRDs."""
    lines = ["router ospf6", " ospf6 router-id 10.0.0.1", "exit"]
    for interface, _ in CABLES:
        lines += [f"interface {interface}", " ipv6 ospf6 area 0", " ipv6 ospf6 hello-interval 1", " ipv6 ospf6 dead-interval 3"]
        lines.append("exit")

    def text(n: int) -> str:
        area = 'area 0 { interface "p" { hello 1; dead 3; wait 2; retransmit 2; }; };'
        export = "ipv6 { import none; export where source = RTS_STATIC; };"
        head = f"router id 10.0.{n}.9;\nprotocol device {{ scan time 1; }}\n{scene.statics()}"
        return f"{head}protocol ospf v3 {{ {export} {area} }}\n"

    made = [Bird(ns, scene.directory / f"bird{n}", text(n)) for n, ns in enumerate(scene.peers)]

    def announce() -> None:
        n = scene.rng.randrange(2)
        made[n].reconfigure(text(n))

    frr = Frr(scene.router, scene.directory / "frr", {"ospf6d": "\n".join(lines) + "\n"})
    return [frr, *made], [announce, announce, announce, _crash(scene, made), *_cuts(scene)]


def vrrp(scene: Scene) -> tuple[list[Program], list[Draw]]:
    """The router's default route leads to an address that two machines on one segment hand to each other."""
    router, one, other = scene.router, *scene.peers
    for ns in (one, other):
        ns.ip("link set p down")
    one.ip("link add segment type bridge")
    for command in ("link set segment up", "addr add 10.0.1.7/24 dev segment"):
        one.ip(command)
    router.ip("link del r1")
    veth(router, "r1", one, "q")
    one.ip("link set q master segment")
    veth(one, "z", other, "w")
    one.ip("link set z master segment")
    other.ip("addr add 10.0.1.8/24 dev w")
    router.ip("addr add 10.0.1.1/24 dev r1")
    router.ip(f"route replace default via {VIRTUAL}")
    router.forwards_plainly(["r1"])

    def text(device: str, priority: int) -> str:
        return (
            "global_defs {\n vrrp_version 3\n vrrp_garp_master_repeat 1\n}\n"
            f"vrrp_instance one {{\n state BACKUP\n interface {device}\n virtual_router_id 51\n priority {priority}\n"
            f" advert_int 0.1\n virtual_ipaddress {{\n  {VIRTUAL}/24\n }}\n}}\n"
        )

    made = [Keepalived(one, scene.directory / "one", text("segment", 100))]
    made.append(Keepalived(other, scene.directory / "other", text("w", 90)))

    def hand_over() -> None:
        first = scene.rng.randrange(2)
        made[0].reconfigure(text("segment", 100 if first else 80))

    def ask() -> None:
        router.run(f"ping -c 1 -W 1 {VIRTUAL}", check=False)

    return [*made], [hand_over, hand_over, ask]


def _crash(scene: Scene, programs: list[Bird]) -> Draw:
    return lambda: scene.rng.choice(programs).restart()


def _cuts(scene: Scene) -> list[Draw]:
    """A cable is cut at the far end, and put back."""

    def cut() -> None:
        scene.rng.choice(scene.peers).ip("link set p down")

    def mend() -> None:
        for ns in scene.peers:
            ns.ip("link set p up")

    return [cut, mend, mend]


SCENES = {
    "FRR eBGP": (bgp, ("FRR", "BIRD")),
    "FRR RFC 8950": (lambda scene: bgp(scene, extended=True), ("FRR", "BIRD")),
    "FRR OSPFv3": (ospf, ("FRR", "BIRD")),
    "keepalived": (vrrp, ("keepalived",)),
}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with namespaces("r", "x", "y") as (router, *peers):
        yield Scene(router, peers, tmp_path, random.Random(20261127))


@pytest.mark.parametrize("name", SCENES)
def test_no_next_hop_is_wrong_at_a_drawn_moment(scene: Scene, name: str) -> None:
    make, needed = SCENES[name]
    if why := missing(*needed):
        pytest.skip(why)
    scene.network()
    programs, draws = make(scene)
    with ExitStack() as stack:
        for program in programs:
            stack.callback(program.stop)
            program.start()
        fold = Fold({parse_mac(scene.router.mac(i)): name for i, name in KNOWN.items()})
        kernel = KernelOf(scene.router.name)
        stack.callback(kernel.close)
        follower = Follower(kernel, fold)
        follower.resync(0.0)
        eventually(lambda: _routes(scene, name), f"{name} has routes; {[p.log() for p in programs]}")
        counted = delegated = 0
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends:
            scene.rng.choice(draws)()
            for _ in range(scene.rng.randint(1, 4)):
                time.sleep(scene.rng.random() * 0.3)
                found, some = _moment(scene, fold, follower)
                assert not found, "\n".join([name, *found, scene.router.ip("route"), scene.router.ip("-6 route")])
                counted += some is not None
                delegated += some or 0
        assert counted >= 5, "too few quiet moments"
        assert delegated, "nothing was ever delegated: the test says nothing"


def _routes(scene: Scene, name: str) -> bool:
    if name == "keepalived":
        scene.router.run(f"ping -c 1 -W 1 {VIRTUAL}", check=False)
        return any(n["dst"] == VIRTUAL and "lladdr" in n for n in scene.router.json("neigh show"))
    return "2001:db8:" in scene.router.ip("-6 route") or "172.16." in scene.router.ip("route")


def _moment(scene: Scene, fold: Fold, follower: Follower) -> tuple[list[str], int | None]:
    """What is wrong now, and how many of the drawn destinations are delegated; None if something has happened meanwhile."""
    follower.pump()
    if fold.wants_resync():
        follower.resync(time.monotonic())
    fold.settle()
    said, before = Said.by(scene.router, DRAWN), follower.events
    follower.pump()
    if follower.events != before + said.messages or fold.wants_resync():
        return [], None
    delegations, names = list(fold.delegations()), set(fold.names().values())
    found, some = [], 0
    for interface, name in KNOWN.items():
        for text in DRAWN:
            mine, theirs = lookup(delegations, name, *host(text)), said.forwarded(interface, text)
            some += mine is not None
            if mine != theirs and not (mine is None and (said.is_special(text) or name not in names)):
                kernel = said.answers[interface, text], said.neighbour(interface, text)
                found.append(f"{text} from {name}: fold {mine}, kernel {kernel}")
    return found, some
