"""Laws of the fold, over random histories of a kernel.

A history is legal (no kernel sends two routes for one slot without saying replace, nor deletes what is not
there); it is then told whole, split, squashed, duplicated, and as a dump in any order.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from fsctl.agent.events import Addr, Event, Leg, Link, Neigh, Nexthop, Route, Value
from fsctl.agent.fib import Fold

from .kernel import ETH0, ETH1, ETH2, KNOWN, MACS, addr, host, leg, link, local, neigh, route
from .oracle import Kernel, lookup

PREFIXES = [
    *("0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "10.1.1.128/25", "10.1.1.9/32", "10.2.0.0/16"),
    *("169.254.0.0/16", "::/0", "fd00::/8", "fd01::/64", "fd01::9/128", "fe80::/64"),
]
ADDRESSES = [
    "10.1.1.9",
    "10.1.1.129",
    "10.1.2.3",
    "10.2.0.1",
    "10.3.0.1",
    "9.9.9.9",
    "fd01::9",
    "fd01::a",
    "fd02::1",
    "2001:db8::1",
]
MACS_THERE = ["02:00:00:00:00:0a", "02:00:00:00:00:0b"]

Wishes = list[tuple[Value, bool]]


class Dice(random.Random):
    """Draws what might happen; what matters often, is drawn often (plain Hypothesis strategies hit too little)."""

    def address(self, version: int) -> str:
        return self.choice([a for a in ADDRESSES if host(a).version == version])

    def interface(self) -> int:
        return self.choice([ETH0, ETH1, ETH1, ETH1, ETH2])

    def leg(self, version: int) -> Leg:
        via = self.choice([None, self.address(version), self.address(version)])
        return leg(self.interface(), via, **self.choice([{}] * 12 + [{"encap": True}, {"dead": True}]))

    def route(self) -> Route:
        dst = self.choice(PREFIXES)
        version = 6 if ":" in dst else 4
        if self.random() < 0.1:
            return local(dst)
        kind = self.choice(["unicast"] * 9 + ["blackhole", "throw"])
        nhid = self.choice([0, 0, 0, 1, 2, 3]) if kind == "unicast" else 0
        ways = () if nhid or kind != "unicast" else tuple(self.leg(version) for _ in range(self.choice([1, 1, 1, 2])))
        metric, tos, mtu = self.choice([0, 0, 100]), self.choice([0] * 19 + [16]), self.choice([0] * 19 + [1400])
        special = self.choice([""] * 19 + ["from"])
        return route(dst, *ways, kind=kind, nhid=nhid, metric=metric, tos=tos, mtu=mtu, special=special)

    def neigh(self) -> Neigh:
        state = self.choice(["reachable", "reachable", "stale", "failed"])
        return neigh(self.interface(), self.choice(ADDRESSES), self.choice(MACS_THERE), state)

    def link(self) -> Link:
        up, mtu, master = self.random() < 0.8, self.choice([1500, 1500, 1400]), self.choice([0, 0, 0, 0, 9])
        return link(self.interface(), up=up, mtu=mtu, master=master)

    def nexthop(self) -> Nexthop:
        if self.random() < 0.3:
            return self.choice([Nexthop(2, blackhole=True), Nexthop(3, group=(1,)), Nexthop(3, group=(1, 2))])
        return Nexthop(self.choice([1, 2]), self.leg(4))

    def addr(self) -> Addr:
        return addr(self.interface(), self.choice(["10.1.1.1/24", "10.1.1.9/24", "10.2.0.1/16", "fd01::9/64", "10.3.0.1/32"]))

    def wishes(self, length: int) -> Wishes:
        kinds = [self.route] * 9 + [self.neigh] * 6 + [self.link, self.nexthop, self.addr]
        return [(self.choice(kinds)(), self.random() < 0.3) for _ in range(length)]


wishes = st.builds(lambda seed, length: Dice(seed).wishes(length), st.integers(0, 2**32), st.integers(0, 80))


@dataclass
class History:
    """Turns wishes into what a kernel would say, and keeps the state it would be in."""

    kernel: Kernel = field(default_factory=lambda: Kernel(KNOWN))
    events: list[Event] = field(default_factory=list)

    def wish(self, value: Value, remove: bool) -> None:
        if isinstance(value, Route):
            self._route(value, remove)
            return
        k = self.kernel
        if isinstance(value, (Link, Neigh, Nexthop)):
            at: dict[Any, Any] = {Link: k.links, Neigh: k.neighs, Nexthop: k.nexthops}[type(value)]
            key = tuple(value.key) if isinstance(value, Neigh) else value.id if isinstance(value, Nexthop) else value.index
            if remove and key in at:
                self.events.append(Event(at.pop(key), gone=True))
            elif not remove:
                at[key] = value
                self.events.append(Event(value))
        elif remove and value in k.addrs:
            k.addrs.discard(value)  # type: ignore[arg-type]
            self.events.append(Event(value, gone=True))
        elif not remove:
            k.addrs.add(value)  # type: ignore[arg-type]
            self.events.append(Event(value))

    def _route(self, value: Route, remove: bool) -> None:
        same = [r for r in self.kernel.routes if (r.version, r.key, r.slot) == (value.version, value.key, value.slot)]
        for old in same:
            self.kernel.routes.remove(old)
        if not remove:
            self.kernel.routes.append(value)
            self.events.append(Event(value, replace=bool(same)))
        elif same:
            self.events.append(Event(same[0], gone=True))

    def final(self) -> list[Event]:
        """What a dump would say."""
        k = self.kernel
        return [Event(v) for v in [*k.links.values(), *k.neighs.values(), *k.nexthops.values(), *k.addrs, *k.routes]]


def history(of: Wishes) -> History:
    made = History()
    for index in MACS:
        made.wish(link(index), False)
    for value, remove in of:
        made.wish(value, remove)
    return made


def fib(fold: Fold) -> dict[Any, Any]:
    return {part: entries for part, entries in fold.fib.items() if entries}


def told(batches: list[list[Event]]) -> Fold:
    fold = Fold(KNOWN)
    for batch in batches:
        for event in batch:
            fold.apply(event)
        fold.resynced()
        fold.settle()
    return fold


def split(events: list[Event], seed: int) -> Iterator[list[Event]]:
    rng, left = random.Random(seed), list(events)
    while left:
        n = rng.randint(1, 5)
        yield left[:n]
        left = left[n:]


@settings(max_examples=300, deadline=None)
@given(wishes)
@example(Dice(620).wishes(21))  # an IPv6 route over two gateways that have the same MAC address
def test_fib_says_what_the_kernel_would_do(of: Wishes) -> None:
    made = history(of)
    delegations = list(told([made.events]).delegations())
    for text in ADDRESSES:
        version, value = host(text)
        expected = made.kernel.answer(version, value)
        for index in (ETH0, ETH1):
            there = made.kernel.links.get(index)
            usable = there is not None and there.up and not there.master
            assert lookup(delegations, KNOWN[MACS[index]], version, value) == (expected if usable else None), text


@settings(max_examples=300, deadline=None)
@given(wishes, st.integers(0, 1000))
def test_split_squashed_duplicated_dumped_in_any_order_give_one_fib(of: Wishes, seed: int) -> None:
    made = history(of)
    truth = fib(told([made.events]))
    assert fib(told(list(split(made.events, seed)))) == truth, "split"
    assert fib(told([[e] for e in made.events for _ in (1, 2)])) == truth, "duplicated"
    shuffled = made.final()
    assert fib(told([list(reversed(shuffled))])) == truth, "reversed"
    random.Random(seed).shuffle(shuffled)
    assert fib(told(list(split(shuffled, seed)))) == truth, "squashed"


@settings(max_examples=300, deadline=None)
@given(wishes, st.integers(0, 1000))
def test_settling_step_by_step_equals_recomputing_all(of: Wishes, seed: int) -> None:
    fold, mirror = Fold(KNOWN), dict[Any, Any]()
    for batch in split(history(of).events, seed):
        for event in batch:
            fold.apply(event)
        fold.resynced()
        for part, key, verdict in fold.settle():
            mirror[part, key] = verdict
        again = Fold(KNOWN, state=fold.state)
        again.settle()
        assert fib(again) == fib(fold)
    now = {(part, key): v for part, entries in fold.fib.items() for key, v in entries.items()}
    assert {k: v for k, v in mirror.items() if v is not None} == now


@settings(max_examples=200, deadline=None)
@given(wishes, wishes)
def test_mark_and_sweep_repairs_anything(of: Wishes, instead: Wishes) -> None:
    """The messages of another history, then a dump: as if the dump had been all."""
    made, fold = history(of), told([history(instead).events])
    for kind in (Link, Nexthop, Neigh):
        fold.resync(kind, [e.value for e in made.final() if isinstance(e.value, kind)])
    fold.resync(type(addr(1, "10.0.0.1/8")), made.kernel.addrs)
    for version in (4, 6):
        fold.resync(Route, [r for r in made.kernel.routes if r.version == version], version)
    fold.resynced()
    fold.settle()
    assert fib(fold) == fib(told([made.final()]))
