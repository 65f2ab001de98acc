"""The walk in software with five ways to search the flow table, over chain lengths and table sizes.

Python's nanoseconds say little of a kernel's, their growth does, and so do the probes (`search.tables`).
"""

from __future__ import annotations

import gc
import statistics
import time
import tracemalloc
from dataclasses import asdict, dataclass

from topologies.experiments import plots
from topologies.experiments.report import Report, Say, Settings
from topologies.experiments.search.cascade import Cascade
from topologies.experiments.search.fibs import Chain, make_chain
from topologies.experiments.search.tables import METHODS, LinearList

LENGTHS = (1, 2, 4, 8, 16, 32, 64)
SIZES = (10, 100, 1_000, 10_000, 100_000)
ONE_HOP, ONE_SIZE = 1, 1_000
LINEAR_BUDGET = 3_000_000
"""Comparisons that a linear list may make in one measurement."""
UPDATES = 200


@dataclass(frozen=True, slots=True)
class Sample:
    """One method on one chain. `entries` is per router; probes and nanoseconds are per packet that is walked."""

    method: str
    routers: int
    entries: int
    probes: float
    first_ns: float
    steady_ns: float
    bytes_per_entry: float
    update_us: float


def run(settings: Settings, say: Say) -> Report:
    """Two sweeps: sizes at one router, lengths at a thousand entries for each router."""
    report = Report("lookup", "the cascade in software: five ways to search the flow table")
    sizes = SIZES[:3] if settings.quick else SIZES
    lengths = LENGTHS[:4] if settings.quick else LENGTHS
    samples: list[Sample] = []
    for routers, entries in [*((ONE_HOP, size) for size in sizes), *((n, ONE_SIZE) for n in lengths if n != ONE_HOP)]:
        chain = make_chain(routers, entries)
        for method in METHODS:
            say(f"{method}, {routers} routers, {entries:,} entries each")
            samples.append(measure(chain, method, settings.scaled(2_000, 200)))
    report.samples["walks"] = [asdict(s) for s in samples]
    largest = max(sizes)
    for sample in samples:
        if (sample.routers, sample.entries) == (ONE_HOP, largest):
            what = f"{sample.method}, one router, {largest:,} entries"
            report.add(f"{what}: probes", sample.probes, "a packet")
            report.add(f"{what}: steady", sample.steady_ns / 1e3, "us", f"first packet {sample.first_ns / 1e3:.3g} us")
            report.add(f"{what}: memory", sample.bytes_per_entry, "bytes/entry")
            report.add(f"{what}: one change", sample.update_us, "us")
    report.plots = _plots(samples, settings)
    return report


def measure(chain: Chain, method: str, packets: int) -> Sample:
    """Walk `packets` destinations (fewer with a long linear list) twice: first packets, then the same again."""
    entries = len(chain.prefixes)
    if METHODS[method] is LinearList:
        packets = max(10, min(packets, LINEAR_BUDGET // (entries * chain.routers * chain.routers)))
    cascade, size = _built(chain, method)
    destinations = chain.destinations(packets)
    first = _timed(cascade, destinations)
    cascade.table.probes = 0
    steady = statistics.median(_timed(cascade, destinations) for _ in range(3))
    probes = cascade.table.probes / (3 * len(destinations))
    update = _update_us(cascade)
    return Sample(method, chain.routers, entries, probes, first, steady, size / (entries * chain.routers), update)


def _built(chain: Chain, method: str) -> tuple[Cascade, int]:
    """The table, and the bytes that it takes beside its verdicts."""
    gc.collect()
    tracemalloc.start()
    cascade = Cascade(chain, METHODS[method])
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return cascade, size


def _timed(cascade: Cascade, destinations: list[int]) -> float:
    """Nanoseconds per packet."""
    walk = cascade.walk
    start = time.process_time_ns()
    for dst in destinations:
        walk(dst)
    return (time.process_time_ns() - start) / len(destinations)


def _update_us(cascade: Cascade) -> float:
    """Take an entry of the last router out and put it in again: microseconds for each of both."""
    entries = cascade.chain.entries(cascade.chain.routers)
    some = entries[:: max(1, len(entries) // UPDATES)]
    start = time.process_time_ns()
    for entry, forward in some:
        cascade.table.remove(entry)
        cascade.table.insert(entry, cascade.number(forward))
    return (time.process_time_ns() - start) / (2 * len(some)) / 1e3


SHOWN = (("probes", "probes per packet"), ("steady_ns", "ns per packet (Python)"), ("update_us", "us per change"))


def _plots(samples: list[Sample], settings: Settings) -> list[str]:
    by_size = [s for s in samples if s.routers == ONE_HOP]
    by_length = [s for s in samples if s.entries == ONE_SIZE]
    found = []
    for name, chosen, axis, label in (
        ("lookup-size", by_size, "entries", "entries in the table"),
        ("lookup-length", by_length, "routers", f"routers in the chain ({ONE_SIZE:,} entries each)"),
    ):
        panels = [plots.Panel(label, unit, [_line(chosen, method, axis, what) for method in METHODS]) for what, unit in SHOWN]
        found.append(plots.draw(settings.out / f"{name}.png", "Searching the flow table in software", panels))
    return found


def _line(samples: list[Sample], method: str, axis: str, what: str) -> plots.Line:
    of_method = [s for s in samples if s.method == method]
    return plots.Line(method, [getattr(s, axis) for s in of_method], [getattr(s, what) for s in of_method])
