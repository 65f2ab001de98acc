"""rest_router and Faucet, whose switches are the routers, beside fsctl: the same number of routes at each of four routers."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from fsctl.model.addresses import parse_mac
from topologies.experiments.peer.contender import RESTART_LIMIT_S, Contender, Installed, RefusedError, Restarted
from topologies.experiments.peer.environment import FAUCET, REST_ROUTER, Peer, python_of
from topologies.experiments.peer.faucet import Faucet
from topologies.experiments.peer.ours import Ours
from topologies.experiments.peer.rest_router import RestRouter
from topologies.experiments.peer.traffic import Loss, Stream
from topologies.experiments.report import Report, Say, Settings, SkippedError
from topologies.experiments.rig import FIRST_PREFIX
from topologies.experiments.search.fibs import SENDER_MAC
from topologies.experiments.wire import TTL
from topologies.processes import LabError

ROUTERS = 4
SIZES, QUICK_SIZES = (100, 1_000, 10_000), (50, 200)
LIMIT_S, QUICK_LIMIT_S = 180.0, 60.0
BURST, STREAMED = 40, 25
"""Destinations of a burst of first packets, and of the stream while something happens. Never one that is changed."""
CONTENDERS: dict[type[Contender], Peer | None] = {Ours: None, RestRouter: REST_ROUTER, Faucet: FAUCET}

NOTES = (
    "rest_router and Faucet need no guests: the switch is the router, and no packet ever enters a virtual machine. fsctl only "
    "bypasses routers that exist. Faucet is a switch besides, with VLANs, ACLs, IPv6 and BGP; its routes outlive it in a file.",
    "One process per router for both peers: with one process for all, rest_router took longer, and Faucet installed twice "
    "the rules (`global_vlan` wants one router per configuration) and read the routes of all for each change.",
    "rest_router: a route's rule leads to the controller until its gateway has answered ARP; every request and every answer "
    "walks through all routes, so N routes cost N² steps. A route is changed by deleting it and adding another; for "
    "deleting, the whole flow table is read, which may fail when it takes more than a second (seen with one process for all "
    "routers). It keeps nothing on disk: after a restart the rules are still in the switches, and nobody knows whose they are.",
    "Faucet: a reload compares configurations by VLAN, and takes out and puts back all routes of a VLAN of which one was "
    "changed. It starts a switch cold when it starts itself. Next hops are asked for every 2 to 4 s, retries later still: "
    "this is most of the time with few routes. Its BGP, where routes come and go one by one, was not measured.",
)


@dataclass(slots=True)
class Sample:
    """One contender with `routes` at each router. `refused` are changes that it said it could not make, `late` over the limit."""

    name: str
    routes: int
    installed: Installed
    processes: int
    idle_kib: int
    loaded_kib: int = 0
    peak_kib: int = 0
    rules: int = 0
    arrives: bool = False
    lookups: int = 0
    first_us: float = 0.0
    change_s: list[float] = field(default_factory=list)
    refused: int = 0
    late: int = 0
    change_loss: Loss | None = None
    restarted: Restarted | None = None
    restart_loss: Loss | None = None


def run(settings: Settings, say: Say) -> Report:
    """Sizes from small to large, contenders in turn; a contender that has failed at a size is not asked for a larger one."""
    report = Report("peers", "rest_router and Faucet for the same routes, beside fsctl")
    sizes = QUICK_SIZES if settings.quick else SIZES
    limit_s = QUICK_LIMIT_S if settings.quick else LIMIT_S
    racing = _installable(report, say)
    found: list[Sample] = []
    for size in sizes:
        for kind in list(racing):
            say(f"{kind.name}, {ROUTERS} x {size:,} routes")
            sample = _measure(kind, size, limit_s, thorough=size != sizes[0])
            found.append(sample)
            _figures(report, sample, limit_s)
            if not sample.installed.complete:
                racing.remove(kind)
    _ratios(report, found)
    report.samples = {"samples": [asdict(sample) for sample in found]}
    report.notes += NOTES
    return report


def _installable(report: Report, say: Say) -> list[type[Contender]]:
    """Environments are made before anything is measured. SkippedError if no peer can be had."""
    racing = []
    for kind, peer in CONTENDERS.items():
        try:
            if peer is not None:
                say(f"an environment with {', '.join(peer.requirements)}")
                python_of(peer)
            racing.append(kind)
        except SkippedError as e:
            report.notes.append(f"{kind.name} was not measured: {e}")
    if len(racing) < 2:
        raise SkippedError("; ".join(report.notes))
    return racing


def _measure(kind: type[Contender], size: int, limit_s: float, thorough: bool) -> Sample:
    with kind(ROUTERS, limit_s) as contender:
        contender.calm_down()
        idle = contender.memory_kib()
        sample = Sample(kind.name, size, contender.install(size), len(contender.pids), idle)
        if not sample.installed.complete:
            sample.loaded_kib = contender.memory_kib()
            return sample
        contender.calm_down()
        sample.loaded_kib, sample.peak_kib = contender.memory_kib(), contender.memory_kib("VmHWM")
        sample.rules = contender.ground.count()
        _packets(contender, sample)
        if thorough:
            _changes(contender, sample)
            contender.calm_down()
            _restart(contender, sample)
        return sample


def destinations(size: int, count: int) -> list[int]:
    """Addresses in the upper half of the prefixes, as far apart as can be: the lower ones are changed."""
    numbers = sorted({size // 2 + n * (size - size // 2) // count for n in range(count)})
    return [FIRST_PREFIX + (number << 8) + 1 for number in numbers]


def _packets(contender: Contender, sample: Sample) -> None:
    """Do they arrive, with the right TTL; and what does a first one cost, among many?"""
    wire, entry = contender.ground.wire, parse_mac(contender.entry_mac)
    targets = destinations(sample.routes, BURST)
    probe = wire.one(entry, SENDER_MAC, targets[0]) or wire.one(entry, SENDER_MAC, targets[0])
    if probe is None or probe[1].ttl != TTL - ROUTERS:
        raise LabError(f"{sample.name}: a packet has arrived as {probe and vars(probe[1])}, not as after {ROUTERS} routers")
    sample.arrives = True
    sample.lookups = contender.ground.lookups(contender.entry_mac, f"16.0.{sample.routes // 2 % 256}.1")
    taken = []
    for _ in range(15):
        wire.forget()
        took = wire.burst(entry, SENDER_MAC, targets)
        if took is not None:
            taken.append(took * 1e6 / len(targets))
    sample.first_us = statistics.median(taken) if taken else 0.0


def _changes(contender: Contender, sample: Sample) -> None:
    """The last router's first routes lead to the other host, one after the other, while packets go to others."""
    with _stream(contender, sample.routes) as stream:
        for number in range(contender.changes):
            try:
                took = contender.change(number)
            except RefusedError:
                sample.refused += 1
                continue
            if took is None:
                sample.late += 1
                break
            sample.change_s.append(took)
    sample.change_loss = stream.result


def _restart(contender: Contender, sample: Sample) -> None:
    with _stream(contender, sample.routes) as stream:
        sample.restarted = contender.restart()
    sample.restart_loss = stream.result


def _stream(contender: Contender, size: int) -> Stream:
    return Stream(contender.ground, parse_mac(contender.entry_mac), destinations(size, STREAMED))


# What is told


def _figures(report: Report, s: Sample, limit_s: float) -> None:
    what = f"{s.name}: {ROUTERS} x {s.routes:,}"
    if not s.installed.complete:
        note = f"of {s.installed.wanted:,}; not within {limit_s:g} s"
        report.add(f"{what} routes, rules that were there", s.installed.rules, "rules", note)
        return
    report.add(f"{what} routes in Open vSwitch", s.installed.seconds, "s", f"{s.rules:,} rules in all")
    report.add(f"{what}, first packets in a burst", s.first_us, "us each", f"{s.lookups} rules hit on the way")
    growth = f"{s.processes} process(es); {s.idle_kib / 1024:.0f} MiB before, {s.peak_kib / 1024:.0f} MiB at most"
    report.add(f"{what}, memory", s.loaded_kib / 1024, "MiB", growth)
    if s.change_loss is not None:
        _change_figure(report, what, s)
    if s.restart_loss is not None:
        _restart_figures(report, what, s)


def _change_figure(report: Report, what: str, s: Sample) -> None:
    assert s.change_loss is not None
    done, tried = len(s.change_s), len(s.change_s) + s.refused + s.late
    note = f"{done} of {tried} made; {s.change_loss.lost} of {s.change_loss.sent} packets to other prefixes lost"
    if s.change_s:
        report.add(f"{what}, one route changed, p50", statistics.median(s.change_s) * 1e3, "ms", note)
    else:
        report.add(f"{what}, routes that could be changed", 0, "", note)


def _restart_figures(report: Report, what: str, s: Sample) -> None:
    assert s.restart_loss is not None
    lost = f"{s.restart_loss.lost} of {s.restart_loss.sent}, none for {s.restart_loss.gap_s:.1f} s"
    report.add(f"{what}, packets lost while its controller restarts", s.restart_loss.lost, "packets", lost)
    if s.restarted is None:
        report.add(f"{what}, restarted within {RESTART_LIMIT_S:g} s", 0, "")
        return
    note = f"{s.restarted.fewest:,} rules at the worst moment; it knows {s.restarted.knows:,} routes"
    report.add(f"{what}, restarted", s.restarted.ready_s, "s", note)


def _ratios(report: Report, samples: Sequence[Sample]) -> None:
    """Each peer's times to fsctl's at its largest size."""
    ours = {s.routes: s for s in samples if s.name == Ours.name}
    largest = {s.name: s for s in samples if s.installed.complete and s.name != Ours.name}
    for name, theirs in largest.items():
        mine, size = ours[theirs.routes], f"{ROUTERS} x {theirs.routes:,}"
        report.add(f"{name}'s time for {size} to fsctl's", theirs.installed.seconds / mine.installed.seconds, "x")
        if theirs.change_s and mine.change_s:
            ratio = statistics.median(theirs.change_s) / statistics.median(mine.change_s)
            report.add(f"{name}'s time for one change of {size} to fsctl's", ratio, "x")
