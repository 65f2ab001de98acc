"""How to search the flow table, on real packets: the cascade in Open vSwitch, collapsed rules, reactive exact matches."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

from fsctl.model.addresses import format_ip, format_mac
from fsctl.openflow.rules import RuleChange
from topologies.experiments import plots
from topologies.experiments.management import Management, Reactive
from topologies.experiments.methods import Collapsed, ReactiveWalk, cascade_rule, cascade_rules
from topologies.experiments.report import Report, Say, Settings, percentile
from topologies.experiments.search.fibs import HOSTS, SENDER_MAC, Chain, interface_mac, make_chain
from topologies.experiments.search.tables import Entry
from topologies.experiments.wire import TTL, Namespace, Wire
from topologies.ovs import LabError
from topologies.sandbox import Sandbox

LENGTHS = (1, 4, 16, 32, 64, 66)
TOTALS = (10, 100, 1_000, 10_000, 100_000)
PER_ROUTER, ROUTERS = 1_000, 4
CASCADE, COLLAPSED, REACTIVE = "cascade", "collapsed", "reactive"
METHODS = (CASCADE, COLLAPSED, REACTIVE)
REFERENCE = "collapsed, one router"
"""Measured beside every chain, burst by burst, so that lengths can be compared although they are measured one after the other."""
BURST = 128
STEADY = 64
"""Destinations that a steady stream goes to."""
Changed = Callable[[Entry, int], list[RuleChange]]
"""The rules that change when the last router's delegation leads to another host."""


class Track(NamedTuple):
    """One method at work."""

    wire: Wire
    manager: Management
    rules: int
    install_s: float
    changed: Changed


@dataclass(slots=True)
class Sample:
    """One method on one chain. Times in microseconds, rates in packets/s; `works` is false where packets got lost."""

    method: str
    routers: int
    entries: int
    works: bool = True
    rules: int = 0
    install_s: float = 0.0
    first_us: float = 0.0
    later_us: float = 0.0
    burst_first_us: float = 0.0
    burst_ratio: float = 0.0
    burst_later_us: float = 0.0
    lookups: int = 0
    datapath_flows: int = 0
    destinations: int = 0
    rates: list[float] = field(default_factory=list)
    update_rules: float = 0.0
    update_us: float = 0.0


def run(settings: Settings, say: Say) -> Report:
    """Over chain lengths, then over table sizes."""
    report = Report("firstpacket", "how to search the flow table: cascade, collapsed, reactive, on real packets")
    lengths = (1, 4, 66) if settings.quick else LENGTHS
    totals = TOTALS[:3] if settings.quick else TOTALS
    by_length = [_measure(make_chain(n, PER_ROUTER), settings, say) for n in lengths]
    by_size = [_measure(make_chain(ROUTERS, max(2, total // ROUTERS)), settings, say) for total in totals]
    report.samples = {name: [asdict(s) for group in found for s in group] for name, found in
                      (("by_length", by_length), ("by_size", by_size))}  # fmt: skip
    for sample in (s for group in by_length for s in group if s.method == COLLAPSED):
        what = f"collapsed: a first packet through {sample.routers} router(s) to one through 1"
        report.at_most(what, sample.burst_ratio, "x", 1.2, "side by side in bursts; 1 is flat")
    for group in (by_length[-1], by_size[-1]):
        for sample in group:
            _figures(report, sample)
    report.plots = [
        _plot("search-length", [s for g in by_length for s in g], "routers", f"routers ({PER_ROUTER} entries each)", settings),
        _plot("search-size", [s for g in by_size for s in g], "entries", f"entries at each of {ROUTERS} routers", settings),
    ]
    return report


def _figures(report: Report, s: Sample) -> None:
    what = f"{s.method}, {s.routers} routers, {s.entries:,} entries each"
    if not s.works:
        report.add(f"{what}: packets arrive", 0, "", "over Open vSwitch's resubmit limit")
        return
    report.add(f"{what}: first packet alone", s.first_us, "us", f"later ones {s.later_us:.0f} us, {s.lookups} look-ups")
    note = f"{s.burst_ratio:.2f} x one router's; later ones {s.burst_later_us:.1f} us"
    report.add(f"{what}: first packets in a burst", s.burst_first_us, "us each", note)
    report.add(f"{what}: steady", statistics.median(s.rates), "packets/s")
    report.add(f"{what}: rules", s.rules, "", f"{s.datapath_flows} datapath flows for {s.destinations} destinations")
    report.add(f"{what}: one change", s.update_us, "us", f"{s.update_rules:g} rules")


def _measure(chain: Chain, settings: Settings, say: Say) -> list[Sample]:
    """All three methods in turn, packet by packet."""
    say(f"{chain.routers} routers, {len(chain.prefixes):,} entries each")
    with ExitStack() as stack:
        space = stack.enter_context(Namespace())
        ovs = Sandbox(space.inside)
        stack.callback(ovs.stop)
        ovs.start()
        tracks = {
            CASCADE: stack.enter_context(_cascade(space, ovs, chain)),
            COLLAPSED: stack.enter_context(collapsed_track(space, ovs, chain)),
            REACTIVE: stack.enter_context(_reactive(space, ovs, chain)),
        }
        entries = len(chain.prefixes)
        samples = {m: Sample(m, chain.routers, entries, rules=t.rules, install_s=t.install_s) for m, t in tracks.items()}
        _latencies(chain, tracks, samples, settings.scaled(200, 40))
        for method, sample in samples.items():
            if sample.works:
                sample.lookups = _lookups(ovs, tracks[method].wire.bridge, chain)
        one = stack.enter_context(collapsed_track(space, ovs, make_chain(1, entries), "o"))
        _bursts(chain, tracks | {REFERENCE: one}, samples, settings.scaled(15, 5))
        _rates(chain, tracks, samples, settings)
        _updates(chain, tracks, samples, settings.scaled(20, 5))
        if samples[REACTIVE].works:
            samples[REACTIVE].rules = samples[REACTIVE].destinations
        return list(samples.values())


# The three methods


@contextmanager
def _track(
    space: Namespace, ovs: Sandbox, name: str, rules: list[RuleChange], changed: Changed, controller: Reactive | None = None
) -> Iterator[Track]:
    miss = "output:2" if controller is None else "controller:65535"
    with Wire(space, ovs, name) as wire, Management(ovs.management(name)) as manager:
        if controller is not None:
            # First of all: a bridge in fail mode secure forgets its rules when it gets a controller.
            ovs.vsctl("set-controller", name, f"unix:{controller.path}")
            controller.wait()
        ovs.ofctl("add-flow", name, "table=0,priority=1,in_port=1,actions=resubmit(,1)")
        ovs.ofctl("add-flow", name, f"table=1,priority=0,actions={miss}")
        took = manager.apply(rules)
        yield Track(wire, manager, len(rules), took, changed)


@contextmanager
def _cascade(space: Namespace, ovs: Sandbox, chain: Chain) -> Iterator[Track]:
    out = interface_mac(chain.routers, 1)

    def changed(entry: Entry, eth_dst: int) -> list[RuleChange]:
        return [cascade_rule(entry, out, eth_dst, is_new=False)]

    with _track(space, ovs, "c", list(cascade_rules(chain)), changed) as track:
        yield track


@contextmanager
def collapsed_track(space: Namespace, ovs: Sandbox, chain: Chain, name: str = "k") -> Iterator[Track]:
    """fsctl's rules for a chain, on one bridge."""
    collapsed = Collapsed(chain)

    def changed(entry: Entry, eth_dst: int) -> list[RuleChange]:
        return collapsed.change(chain.routers, entry, eth_dst)

    with _track(space, ovs, name, list(collapsed.rules()), changed) as track:
        yield track


@contextmanager
def _reactive(space: Namespace, ovs: Sandbox, chain: Chain) -> Iterator[Track]:
    walker = ReactiveWalk(chain)

    def changed(entry: Entry, eth_dst: int) -> list[RuleChange]:
        return walker.change(entry, interface_mac(chain.routers, 1), eth_dst)

    with (
        Reactive(ovs.directory / "reactive.sock", walker.decide) as controller,
        _track(space, ovs, "r", [], changed, controller) as track,
    ):
        yield track


# What is measured


def _latencies(chain: Chain, tracks: dict[str, Track], samples: dict[str, Sample], count: int) -> None:
    """First and later packets to the same destinations; what arrives must be the same whatever the method."""
    destinations = chain.destinations(count)
    firsts: dict[str, list[float]] = {method: [] for method in tracks}
    laters: dict[str, list[float]] = {method: [] for method in tracks}
    before = {method: track.wire.datapath_flows() for method, track in tracks.items()}
    for number, dst in enumerate(destinations):
        seen = set()
        for method in (*METHODS, *METHODS)[number % 3 :][:3]:  # nobody is always the one that wakes the switch up
            track = tracks[method]
            if not samples[method].works:
                continue
            for kept in (firsts, laters):
                arrived = track.wire.one(chain.entry_mac, SENDER_MAC, dst)
                if arrived is None:
                    samples[method].works = False
                    break
                took, packet = arrived
                kept[method].append(took * 1e6)
                seen.add((packet.eth_src, packet.eth_dst, packet.ttl))
        if len(seen) != 1 or next(iter(seen))[2] != TTL - chain.routers:
            raise LabError(f"{format_ip(4, dst)} arrived as {seen}, not once as after {chain.routers} routers")
    for method, sample in samples.items():
        if sample.works:
            sample.first_us, sample.later_us = percentile(firsts[method], 50), percentile(laters[method], 50)
            sample.destinations = len(destinations)
            sample.datapath_flows = tracks[method].wire.datapath_flows() - before[method]


def _bursts(chain: Chain, tracks: dict[str, Track], samples: dict[str, Sample], rounds: int) -> None:
    """Many first packets at once, then the same again: what each costs the switch, without the wake-ups between them."""
    taken: dict[tuple[str, bool], list[float]] = {(m, is_first): [] for m in tracks for is_first in (True, False)}
    ratios: dict[str, list[float]] = {method: [] for method in tracks}
    names = [name for name in tracks if name == REFERENCE or samples[name].works]
    for number in range(rounds):
        destinations = chain.destinations(BURST, seed=100 + number)
        firsts: dict[str, float] = {}
        turn = number % len(names)
        for name in (*names[turn:], *names[:turn]):
            wire = tracks[name].wire
            wire.forget()
            for is_first in (True, False):
                took = wire.burst(chain.entry_mac, SENDER_MAC, destinations)
                if took is not None:  # else the machine was too busy: a receive buffer ran over
                    taken[name, is_first].append(took * 1e6 / len(destinations))
                    if is_first:
                        firsts[name] = took
        for name, took in firsts.items():
            if REFERENCE in firsts:
                ratios[name].append(took / firsts[REFERENCE])
    for method, sample in samples.items():
        if taken[method, True] and taken[method, False] and ratios[method]:
            sample.burst_first_us = statistics.median(taken[method, True])
            sample.burst_later_us = statistics.median(taken[method, False])
            sample.burst_ratio = statistics.median(ratios[method])


def _lookups(ovs: Sandbox, bridge: str, chain: Chain) -> int:
    """Rules that a first packet hits on its way through the tables, the admission in table 0 not counted."""
    macs = f"dl_src={format_mac(SENDER_MAC)},dl_dst={format_mac(chain.entry_mac)}"
    dst = format_ip(4, chain.destinations(1)[0])
    trace = ovs.appctl("ofproto/trace", bridge, f"in_port=1,udp,{macs},nw_src=10.0.0.1,nw_dst={dst},nw_ttl={TTL}")
    return len(re.findall(r"^ *\d+\. ", trace, re.MULTILINE)) - 1


def _rates(chain: Chain, tracks: dict[str, Track], samples: dict[str, Sample], settings: Settings) -> None:
    destinations = chain.destinations(STEADY)
    for method, track in tracks.items():
        if samples[method].works:
            for dst in destinations:  # so that no first packet is among them
                track.wire.one(chain.entry_mac, SENDER_MAC, dst)
    for _ in range(settings.scaled(3, 1)):
        for method, track in tracks.items():
            if samples[method].works:
                rate = track.wire.rate(chain.entry_mac, SENDER_MAC, destinations, 0.5 if settings.quick else 1.0)
                samples[method].rates.append(rate)


def _updates(chain: Chain, tracks: dict[str, Track], samples: dict[str, Sample], count: int) -> None:
    """The last router's delegation for prefixes in use leads to the other host."""
    used = chain.destinations(count)
    entries = {entry.value >> 8: (entry, forward) for entry, forward in chain.entries(chain.routers) if entry.length == 24}
    chosen = [entries[dst >> 8] for dst in used if dst >> 8 in entries]
    for method, track in tracks.items():
        rules, times = [], []
        for entry, forward in chosen:
            changes = track.changed(entry, HOSTS[1 - HOSTS.index(forward.eth_dst)])
            times.append(track.manager.apply(changes) * 1e6 if changes else 0.0)
            rules.append(len(changes))
        if times:
            samples[method].update_rules, samples[method].update_us = statistics.mean(rules), statistics.median(times)


SHOWN = (
    ("burst_ratio", "first packet, times that through one router"),
    ("steady", "steady, packets/s"),
    ("update_rules", "OpenFlow rules touched by one change"),
    ("rules", "OpenFlow rules"),
)


def _plot(name: str, samples: list[Sample], axis: str, label: str, settings: Settings) -> str:
    panels = []
    for what, unit in SHOWN:
        lines = []
        for method in METHODS:
            chosen = [s for s in samples if s.method == method and s.works]
            values = [statistics.median(s.rates) if what == "steady" else float(getattr(s, what)) for s in chosen]
            lines.append(plots.Line(method, [getattr(s, axis) for s in chosen], values))
        panels.append(plots.Panel(label, unit, lines, from_zero=what == "steady"))
    return plots.draw(settings.out / f"{name}.png", "Searching the flow table in Open vSwitch", panels)
