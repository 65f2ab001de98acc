"""Full tables from nothing: one PUT per router until Open vSwitch has confirmed every rule."""

from __future__ import annotations

import json
import statistics
import time

from topologies.experiments.ofctl import Yardstick, dump
from topologies.experiments.report import Report, Say, Settings, median_ratio
from topologies.experiments.rig import Rig, memory_kib

ROUTERS = 4
REST_S = 0.5
"""Between measurements: Open vSwitch frees removed rules later."""


def run(settings: Settings, say: Say) -> Report:
    """Rules per second beside ovs-ofctl's, how time grows with the tables, memory per delegation."""
    report = Report("install", f"{ROUTERS} routers in a chain, one PUT each, all sent at once, until every rule is confirmed")
    small, large = settings.scaled(10_000, 1_000), settings.scaled(25_000, 2_500)
    _beside_ofctl(report, small, settings, say)
    _growth(report, small, large, settings, say)
    report.samples["prefixes"] = [small, large]
    return report


def _bodies(rig: Rig, count: int) -> dict[int, bytes]:
    return {k: json.dumps({"flows": rig.table(k, count)}).encode() for k in range(1, rig.routers + 1)}


def _beside_ofctl(report: Report, count: int, settings: Settings, say: Say) -> None:
    at_once, far_first, script, together = [], [], [], []
    with Rig(ROUTERS) as rig:
        bodies = _bodies(rig, count)
        rig.put_all(bodies)  # also makes the patch ports, which are there ever after
        yardstick = Yardstick(rig.ovs, {b: dump(rig.ovs, b) for b in rig.bridges}, rig.directory)
        rig.clear()
        for number in range(settings.repeats):
            say(f"{count:,} prefixes, {number + 1} of {settings.repeats}")
            time.sleep(REST_S)
            script.append(yardstick.measure())
            time.sleep(REST_S)
            at_once.append(rig.put_all(bodies))
            rig.clear()
            time.sleep(REST_S)
            far_first.append(sum(rig.put_all({k: bodies[k]}) for k in range(rig.routers, 0, -1)))
            rig.clear()
            time.sleep(REST_S)
            together.append(yardstick.measure(together=True))
        rules = yardstick.rules
    report.samples |= {"at_once_s": at_once, "far_first_s": far_first, "ofctl_s": script, "ofctl_together_s": together,
                       "rules": rules}  # fmt: skip
    report.add("rules installed", rules, "rules")
    report.add("all PUTs at once", rules / statistics.median(at_once), "rules/s")
    report.add("one PUT after the other, far end first", rules / statistics.median(far_first), "rules/s")
    report.add("ovs-ofctl --bundle add-flows, one bridge after the other", rules / statistics.median(script), "rules/s")
    report.add("ovs-ofctl --bundle add-flows, all bridges at once", rules / statistics.median(together), "rules/s")
    report.at_least("fsctl (all at once) to ovs-ofctl (one after the other)", median_ratio(script, at_once), "x", 0.8,
                    "median of ratios")  # fmt: skip
    report.add("fsctl (far end first) to ovs-ofctl (one after the other)", median_ratio(script, far_first), "x")
    report.add("fsctl (all at once) to ovs-ofctl (all at once)", median_ratio(together, at_once), "x")


def _growth(report: Report, small: int, large: int, settings: Settings, say: Say) -> None:
    """The first tables of a controller: memory can be told of these alone, and sizes compare only like with like."""
    times: dict[int, list[float]] = {small: [], large: []}
    peaks = []
    for number in range(settings.repeats):
        for count in (small, large):
            say(f"{count:,} prefixes, first tables, {number + 1} of {settings.repeats}")
            with Rig(ROUTERS) as rig:
                bodies = _bodies(rig, count)
                rig.put_all(_bodies(rig, 1))
                idle = memory_kib(rig.control.pid)
                times[count].append(rig.put_all(bodies))
                peaks.append((memory_kib(rig.control.pid, "VmHWM") - idle) / (count * ROUTERS))
    report.samples |= {"first_small_s": times[small], "first_large_s": times[large], "peak_kib_per_delegation": peaks}
    report.add(f"{large * ROUTERS:,} delegations", statistics.median(times[large]), "s")
    report.at_most("controller's peak memory over idle, per delegation, at most", max(peaks), "KiB", 1.5)
    growth = median_ratio(times[large], times[small]) / (large / small)
    report.at_most(f"time for {large:,} over {small:,} prefixes, per prefix", growth, "x", 1.15, "1 is linear; first tables both")
