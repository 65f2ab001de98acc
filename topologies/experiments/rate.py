"""Packets per second between two hosts: bypassed chains beside plain L2 bridging of the same hosts, which is the ceiling."""

from __future__ import annotations

import statistics

from topologies import measure
from topologies.experiments import plots
from topologies.experiments.report import Report, Say, Settings, median_ratio
from topologies.lab import Lab
from topologies.topos import Measured

MODES = ("routed", "bypassed", "plain L2")
TARGET = 0.95


def run(settings: Settings, say: Say) -> Report:
    """64-byte UDP. Modes take turns, so that what else the machine does falls on all of them."""
    report = Report("rate", "64-byte UDP packets per second: a chain bypassed beside plain L2 bridging of the same hosts")
    lengths = (1, 4) if settings.quick else range(1, 9)
    medians: dict[str, list[float]] = {mode: [] for mode in MODES}
    for routers in lengths:
        samples = _measure(routers, settings, say)
        report.samples[str(routers)] = samples
        for mode in MODES:
            medians[mode].append(statistics.median(samples[mode]))
        ratio = median_ratio(samples["bypassed"], samples["plain L2"])
        note = f"{medians['bypassed'][-1] / 1e3:.1f} kpkt/s"
        report.at_least(f"{routers} router(s): bypassed to plain L2", ratio, "x", TARGET, note)
        report.add(f"{routers} router(s): bypassed to routed", median_ratio(samples["bypassed"], samples["routed"]), "x")
    lines = [plots.Line(mode, list(lengths), [value / 1e3 for value in medians[mode]]) for mode in MODES]
    panel = plots.Panel("routers in the chain", "1000 packets/s", lines, is_log=False)
    report.plots.append(plots.draw(settings.out / "rate.png", "64-byte UDP from A to B", [panel]))
    return report


def _measure(routers: int, settings: Settings, say: Say) -> dict[str, list[float]]:
    """Packets per second by mode; one of each per round."""
    samples: dict[str, list[float]] = {mode: [] for mode in MODES}
    seconds = 0.5 if settings.quick else 1.0
    with Lab(Measured(n=routers)) as lab:
        lab.start_controller()
        # The private bridge of both hosts has seen nothing yet: one packet each way teaches it.
        measure.round_trip_ms(lab["a"], lab.address("b", number=1), count=5)
        for number in range(settings.repeats):
            say(f"{routers} router(s), {number + 1} of {settings.repeats}")
            lab.withdraw()
            samples["routed"].append(_rate(lab, seconds))
            lab.delegate()
            # In turn first and last: whatever drifts within a round drifts both ways.
            for mode in ("bypassed", "plain L2") if number % 2 else ("plain L2", "bypassed"):
                samples[mode].append(_rate(lab, seconds, number=int(mode == "plain L2")))
    return samples


def _rate(lab: Lab, seconds: float, number: int = 0) -> float:
    return measure.udp_rate(lab["a"], lab["b"], lab.address("b", number=number), seconds)
