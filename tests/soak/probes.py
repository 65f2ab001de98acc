"""The packets that are sent in both worlds at every pause, and the traffic that flows all the time."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from tests.soak.judge import Judge
from tests.soak.plan import HOSTS, PORTS, ROUTERS, port_on
from tests.soak.wire import Probe, chatter
from tests.soak.world import World

POOL = {
    4: ("10.50.0.0/16", "10.50.1.0/24", "10.50.1.128/25", "10.50.1.7/32", "10.60.0.0/14", "10.61.2.0/23", "default"),
    6: ("fd50::/32", "fd50:0:1::/48", "fd50:0:1::7/128", "fd60::/16"),
}
"""Prefixes for which routers get routes at random."""
DRAWN = {
    4: ("10.50.0.1", "10.50.1.1", "10.50.1.200", "10.50.1.7", "10.61.2.9", "10.62.0.1", "192.0.2.1", "10.63.255.1"),
    6: ("fd50::1", "fd50:0:1::1", "fd50:0:1::7", "fd60::9"),
}
PAIRS = (
    ("a", "r1", "b"), ("a", "r3", "b"), ("b", "r2", "a"), ("b", "r3", "a"), ("c", "r1", "d"), ("d", "r2", "c"), ("e", "r2", "b"),
    ("e", "r1", "a"), ("a", "r1", "e"), ("b", "r2", "e"), ("a", "r1", "c"), ("d", "r3", "e"), ("b", "r2", "d"),
)  # fmt: skip
"""(host, its router, the other host)."""
CHATTER_EVERY_S = 0.2
SENT_PER_SECOND = 40.0


def between(sender: str, router: str, receiver: str, version: int = 4) -> Probe:
    one, other = HOSTS[sender], HOSTS[receiver]
    mac = port_on(router, one.bridge).mac
    return Probe(sender, one.mac, mac, one.address(version), other.address(version))


def towards(sender: str, router: str, dst: str) -> Probe:
    version = 6 if ":" in dst else 4
    one = HOSTS[sender]
    return Probe(sender, one.mac, port_on(router, one.bridge).mac, one.address(version), dst)


def of_a_pause(rng: random.Random, spoofed: bool) -> list[Probe]:
    """The plain ones between all hosts, and a drawn part of everything else; `spoofed`: also with routers' addresses."""
    found = [between(*pair, version=version) for pair in PAIRS for version in (4, 6)]
    found += [towards(*rng.choice(PAIRS)[:2], dst) for version in (4, 6) for dst in DRAWN[version]]
    for kind in (_ttls, _sizes, _fragments, _tags, _own, *((_from_own,) if spoofed else ())):
        found += rng.sample(made := kind(rng), min(6, len(made)))
    return found


def _ttls(rng: random.Random) -> list[Probe]:
    return [replace(between(*rng.choice(PAIRS), version=v), ttl=ttl) for v in (4, 6) for ttl in (1, 2, 3, 4, 5)]


def _sizes(rng: random.Random) -> list[Probe]:
    # From b0 and b1 towards b2, where r2's interface is narrower.
    pairs = [pair for pair in PAIRS if pair[2] in "bd" and pair[0] in "ace"]
    return [
        replace(between(*rng.choice(pairs), version=v), size=size, dont_fragment=rng.random() < 0.7)
        for v in (4, 6)
        for size in (1399, 1400, 1401, 1500)
    ]


def _fragments(rng: random.Random) -> list[Probe]:
    first = [replace(between(*rng.choice(PAIRS)), size=508, more=True) for _ in range(2)]
    return first + [replace(between(*rng.choice(PAIRS)), size=200, offset=488) for _ in range(2)]


def _tags(rng: random.Random) -> list[Probe]:
    return [replace(between(*rng.choice(PAIRS)), vlan=vlan) for vlan in (0, 10, 20, 100, 4094, 4095, 4095)]


def _own(rng: random.Random) -> list[Probe]:
    """To addresses of routers: they answer themselves."""
    owners = [p for r in ROUTERS.values() for p in r.ports]
    return [towards(*rng.choice(PAIRS)[:2], rng.choice(owners).address(v)) for v in (4, 4, 6)]


def _from_own(rng: random.Random) -> list[Probe]:
    """From addresses of routers: a router drops what comes from itself."""
    return [replace(between(*pair), src=port_on(pair[1], HOSTS[pair[0]].bridge).address(4)) for pair in rng.sample(PAIRS, 4)]


class Talk(threading.Thread):
    """Stations say that they are there, and packets flow, in both worlds alike, until `stop`."""

    def __init__(self, judge: Judge, worlds: tuple[World, ...], seed: int) -> None:
        super().__init__(daemon=True)
        self._judge, self._worlds, self._rng = judge, worlds, random.Random(seed)
        self._stopping = threading.Event()
        self._extra: list[Callable[[], None]] = []
        self.problem = ""

    def run(self) -> None:
        try:
            last = 0.0
            while not self._stopping.wait(1 / SENT_PER_SECOND):
                if time.monotonic() - last > CHATTER_EVERY_S:
                    self.chatter()
                    last = time.monotonic()
                version = self._rng.choice((4, 4, 6))
                self.send(between(*self._rng.choice(PAIRS), version=version))
                for also in tuple(self._extra):
                    also()
        except Exception as e:  # noqa: BLE001 - a thread's error is the test's
            self.problem = f"the traffic ended: {e!r}"

    def also(self, what: Callable[[], None]) -> Callable[[], None]:
        """Call `what` with every packet, until the answer is called."""
        self._extra.append(what)
        return lambda: self._extra.remove(what)

    def chatter(self) -> None:
        for port in PORTS.values():
            frame = chatter(port.mac, port.station)
            for world in self._worlds:
                devices, name = (world.hosts, port.station) if port.station in HOSTS else (world.routers[port.station], port.name)
                devices.send(name, frame)

    def send(self, probe: Probe) -> None:
        sent = self._judge.sent(probe)
        for world in self._worlds:
            world.hosts.send(probe.sender, sent.probe.frame())

    def stop(self) -> None:
        self._stopping.set()
        self.join()
