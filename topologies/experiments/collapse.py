"""The compiler alone, on one core: no switch, no REST."""

from __future__ import annotations

import statistics
import time

from fsctl.collapse.compiler import Compiler
from fsctl.model.addresses import IPV4, parse_mac
from fsctl.model.delegations import Forward
from fsctl.model.fib import Change, Fib
from fsctl.model.network import Bridge, Interface, Network, Router
from topologies.experiments.report import Report, Say, Settings, percentile
from topologies.experiments.rig import FIRST_PREFIX, HOST_MAC, OTHER_HOST_MAC, mac

ROUTERS = 4
PART = ("eth0", IPV4, None)


def chain(routers: int, count: int) -> Network:
    """The network of `rig.Rig`: every router sends `count` prefixes to the next one."""
    bridges = {f"b{k}": Bridge(f"b{k}", {f"b{j}": 10 + j for j in range(routers + 1) if j != k}) for k in range(routers + 1)}
    made, fibs = {}, {}
    for k in range(1, routers + 1):
        name = f"r{k}"
        ends = [Interface(name, f"eth{n}", f"b{k - 1 + n}", f"{name}.{n}", parse_mac(mac(k, n)), ofport=2 - n) for n in (0, 1)]
        made[name] = Router(name, {end.name: end for end in ends})
        hop = Forward("eth1", parse_mac(HOST_MAC if k == routers else mac(k + 1, 0)))
        fibs[name] = Fib()
        for number in range(count):
            fibs[name].apply(Change(PART, _key(number), hop))
    return Network(bridges, made, fibs)


def _key(number: int) -> int:
    return (FIRST_PREFIX + (number << 8)) << 8 | 24


def run(settings: Settings, say: Say) -> Report:
    """Full, and one change of the last router's, which concerns all rules for its prefix."""
    report = Report("collapse", f"the compiler alone, {ROUTERS} routers in a chain, one core")
    for count in (settings.scaled(10_000, 1_000), settings.scaled(25_000, 2_500)):
        network = chain(ROUTERS, count)
        full = []
        for number in range(settings.repeats):
            say(f"{count:,} prefixes, {number + 1} of {settings.repeats}")
            start = time.process_time()
            compiler = Compiler(network)
            full.append(time.process_time() - start)
        walks = count * ROUTERS
        report.samples[f"full_{count}_s"] = full
        report.add(f"full collapse, {ROUTERS} x {count:,} prefixes", statistics.median(full) * 1e3, "ms")
        report.at_least(f"walks, {ROUTERS} x {count:,} prefixes", walks / statistics.median(full), "walks/s", 200_000,
                        "one for each prefix and ingress interface")  # fmt: skip
    _one_change(report, network, compiler, count, settings.scaled(500, 50))
    return report


def _one_change(report: Report, network: Network, compiler: Compiler, count: int, times: int) -> None:
    fib, taken = network.fibs[f"r{ROUTERS}"], []
    old, new = (Forward("eth1", parse_mac(text)) for text in (HOST_MAC, OTHER_HOST_MAC))
    for number in range(times):
        change = Change(PART, _key(number * 37 % count), new)
        start = time.process_time()
        fib.apply(change)
        emissions = [e for piece in compiler.update({f"r{ROUTERS}": [(change, old)]}) for e in piece]
        taken.append((time.process_time() - start) * 1e3)
        if len(emissions) != ROUTERS:
            raise RuntimeError(f"one change touched {len(emissions)} rules, not {ROUTERS}")
    report.samples["one_change_ms"] = taken
    report.add(f"one change among {count * ROUTERS:,} delegations, p50", percentile(taken, 50), "ms")
    report.add("... p99", percentile(taken, 99), "ms")
