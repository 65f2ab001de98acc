"""One change with full tables present, from the request to the confirmation."""

from __future__ import annotations

import json
import random
import statistics
import time

from topologies.experiments.report import Report, Say, Settings, median_ratio, percentile
from topologies.experiments.rig import HOST_MAC, OTHER_HOST_MAC, Rig, prefix

ROUTERS = 4
MIDDLE = 2
SEED = 20260801


def run(settings: Settings, say: Say) -> Report:
    """A delegation, a next hop's MAC, a middle router's default route."""
    report = Report("change", f"one change, {ROUTERS} routers with full tables: request to confirmation")
    count = settings.scaled(10_000, 1_000)
    with Rig(ROUTERS) as rig:
        bodies = {k: json.dumps({"flows": rig.table(k, count)}).encode() for k in range(1, ROUTERS + 1)}
        say(f"installing {count * ROUTERS:,} delegations")
        rig.put_all(bodies)
        _delegations(report, rig, count, settings, say)
        say("a next hop's MAC")
        _next_hop(report, rig, count, settings.scaled(100, 20))
        rig.clear()
        _default_route(report, rig, count, settings, say)
    return report


def _delegations(report: Report, rig: Rig, count: int, settings: Settings, say: Say) -> None:
    """Each changes one prefix of one router (in turn), which touches the rules of all routers before it too."""
    dice = random.Random(SEED)
    aside = OTHER_HOST_MAC
    taken: dict[int, list[float]] = {k: [] for k in range(1, ROUTERS + 1)}
    for router in taken:  # the first use of a new next hop makes its ways and links
        _timed_patch(rig, router, rig.flow(router, prefix(0), aside))
    total = settings.scaled(400, 40)
    for number in range(total):
        if number % 50 == 0:
            say(f"one delegation, {number} of {total}")
        router = number % ROUTERS + 1
        taken[router].append(_timed_patch(rig, router, rig.flow(router, prefix(1 + dice.randrange(count - 1)), aside)))
    everything = [ms for one in taken.values() for ms in one]
    report.samples["delegation_ms"] = taken
    report.at_most(f"one delegation changed, p50 of {total}", percentile(everything, 50), "ms", 8)
    report.at_most(f"one delegation changed, p99 of {total}", percentile(everything, 99), "ms", 25)
    for router, values in taken.items():
        report.add(f"... at r{router}: p50", percentile(values, 50), "ms", f"rules on {router} bridge(s) follow")


def _timed_patch(rig: Rig, router: int, *flows: object) -> float:
    """Milliseconds."""
    body = json.dumps({"add": flows}).encode()
    start = time.monotonic()
    rig.connection.request("PATCH", f"/v1/routers/r{router}/flows", body)
    return (time.monotonic() - start) * 1e3


def _next_hop(report: Report, rig: Rig, count: int, times: int) -> None:
    """The last router's neighbour gets another MAC and back; all rules of all routers lead there."""
    taken = []
    old, new = HOST_MAC, "02:00:00:ff:00:03"
    for _ in range(times):
        body = json.dumps({"out": "eth1", "eth_dst": old, "new_eth_dst": new}).encode()
        start = time.monotonic()
        rig.connection.request("PATCH", f"/v1/routers/r{ROUTERS}/nexthops", body)
        taken.append((time.monotonic() - start) * 1e3)
        old, new = new, old
    report.samples["next_hop_ms"] = taken
    report.add(f"a next hop's MAC changed, {count * ROUTERS:,} rules lead there: p50", percentile(taken, 50), "ms")


def _default_route(report: Report, rig: Rig, count: int, settings: Settings, say: Say) -> None:
    """r1 knows the prefixes, r2 only a default route: all rules of r1 depend on it."""
    table = json.dumps({"flows": rig.table(MIDDLE - 1, count)}).encode()
    hops = (rig.next_hop(MIDDLE), OTHER_HOST_MAC)
    rig.put(MIDDLE, [rig.flow(MIDDLE, "0.0.0.0/0", hops[0])])
    _timed_patch(rig, MIDDLE, rig.flow(MIDDLE, "0.0.0.0/0", hops[1]))
    installs, changes = [], []
    for number in range(settings.repeats * 2):
        say(f"a default route, {number + 1} of {settings.repeats * 2}")
        installs.append(rig.put_all({MIDDLE - 1: table}) * 1e3)
        changes.append(_timed_patch(rig, MIDDLE, rig.flow(MIDDLE, "0.0.0.0/0", hops[number % 2])))
        rig.put(MIDDLE - 1, [])
    report.samples |= {"default_route_ms": changes, "install_ms": installs}
    report.add(f"{count:,} rules installed", statistics.median(installs), "ms")
    report.add("the default route that they depend on changed", statistics.median(changes), "ms")
    report.at_most("change to installation", median_ratio(changes, installs), "x", 1.2, "median of ratios")
