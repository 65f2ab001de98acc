"""A router's kernel gets many routes, then one: until fsctl-agent, controller and Open vSwitch have followed."""

from __future__ import annotations

import random
import re
import time
from functools import partial
from ipaddress import IPv4Address

from topologies import watch
from topologies.agents import Agent
from topologies.experiments.report import Report, Say, Settings, percentile
from topologies.lab import Lab
from topologies.sandbox import flow_count
from topologies.topos import Uplink

FIRST_PREFIX = int(IPv4Address("16.0.0.0"))
ROUTER, BRIDGE = "r1", "b0"
SEED = 20260803
FOLLOW_S = 300.0
ONE_S = 10.0


def run(settings: Settings, say: Say) -> Report:
    """All routes of a full table, and one among them, by the clocks of ip-monitor(8) and ovs-ofctl(8)."""
    report = Report("agent", "fsctl-agent: from the kernel's route to the rule in Open vSwitch")
    sizes = [settings.scaled(10_000, 1_000), settings.scaled(50_000, 2_000)]
    for count in sizes:
        with Lab(Uplink()) as lab:
            lab.start_controller()
            agent = Agent(lab, ROUTER)
            agent.start()
            try:
                _load(report, lab, agent, count, say)
                if count == sizes[0]:
                    _one_by_one(report, lab, count, settings.scaled(300, 30), say)
            finally:
                agent.stop()
    return report


def _prefix(number: int) -> str:
    return f"{IPv4Address(FIRST_PREFIX + (number << 8))}/24"


def _gateway(lab: Lab) -> str:
    return lab.topo.stations["gw"].ports[0].address(4, 1)


def _rules(lab: Lab) -> int:
    """How many rules of the flow switch the first bridge has."""
    return flow_count(lab.ovs, lab.bridge(BRIDGE), "table=1")


def _load(report: Report, lab: Lab, agent: Agent, count: int, say: Say) -> None:
    say(f"{count:,} routes into the kernel")
    watch.wait_for("the first delegations are in force", lambda: _rules(lab) > 3, FOLLOW_S)
    before = _rules(lab)
    batch = "\n".join(f"route add {_prefix(n)} via {_gateway(lab)}" for n in range(count))
    begin = time.monotonic()
    lab[ROUTER].execute("ip", "-batch", "-", stdin=batch, timeout_s=FOLLOW_S)
    loaded = time.monotonic() - begin
    # Each prefix is a rule of its own: all lead the same way, but no shorter one covers them.
    watch.wait_for("all are in force", lambda: _rules(lab) >= before + count, FOLLOW_S)
    report.add(f"{count:,} routes: ip -batch to all in force", time.monotonic() - begin, "s", f"ip -batch alone {loaded:.1f} s")
    report.add(f"{count:,} routes: memory of the agent (RSS)", agent.memory_bytes / 2**20, "MiB")


def _one_by_one(report: Report, lab: Lab, count: int, total: int, say: Say) -> None:
    """One route more or less; the first event of its rule after the event of its route."""
    dice = random.Random(SEED)
    taken: list[float] = []
    with watch.routes(lab, ROUTER) as routes, watch.rules(lab, BRIDGE) as rules:
        for number in range(total):
            if number % 20 == 0:
                say(f"one route among {count:,}, {number} of {total}")
            prefix = _prefix(dice.randrange(count))
            for verb, event in (("del", "DELETED"), ("add", "ADDED")):
                at = time.time() - 0.001  # ovs-ofctl's clock shows whole milliseconds
                lab[ROUTER].execute("ip", "route", verb, prefix, "via", _gateway(lab))
                pattern = rf"event={event} .*table=1 .*nw_dst={re.escape(prefix)} "
                rule = watch.wait_for(f"rule {prefix}", partial(rules.first, pattern, at), ONE_S, every_s=0.002)
                route = watch.wait_for(f"route {prefix}", partial(routes.first, re.escape(prefix), at), ONE_S)
                taken.append((rule.at - route.at) * 1e3)
                rules.events.clear()
                routes.events.clear()
    report.samples["one_route_ms"] = {"del and add in turn": taken}
    report.add(f"one route among {count:,}: kernel to rule in force, p50 of {len(taken)}", percentile(taken, 50), "ms")
    report.at_most(f"one route among {count:,}: kernel to rule in force, p99 of {len(taken)}", percentile(taken, 99), "ms", 50)
