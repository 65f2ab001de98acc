"""What it costs to be sure: an idle controller that compares what is wanted with what is there, and how soon it repairs."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

from topologies.experiments.report import Report, Say, Settings, percentile
from topologies.experiments.rig import Rig, mac, prefix
from topologies.processes import LabError
from topologies.sandbox import flow_count

ROUTERS = 9
RULES = 40_000
SEED = 20261126
IDLE_S = 240.0
"""Long enough for a full comparison of every bridge."""
REPAIR_TIMEOUT_S = 30.0
PAUSE_S = 1.0
"""Between two repairs: somebody who keeps changing rules is held off on purpose."""
OURS = "cookie=0x667363746c000000/-1"


def run(settings: Settings, say: Say) -> Report:
    """CPU of an idle controller with 40,000 rules on 10 bridges; the time until foreign changes are repaired."""
    report = Report("assured", f"being sure: {ROUTERS + 1} bridges, {RULES:,} rules")
    count = settings.scaled(RULES // ROUTERS + 1, 200)
    with Rig(ROUTERS) as rig:
        say(f"installing {count * ROUTERS:,} delegations")
        rig.put_all({k: json.dumps({"flows": rig.table(k, count)}).encode() for k in range(1, ROUTERS + 1)})
        report.add("rules on all bridges", rig.rule_count(), "")
        idle_s = IDLE_S if not settings.quick else 10.0
        say(f"doing nothing for {idle_s:.0f} s")
        report.at_most("CPU of the idle controller", _cpu_share(rig.control.pid, idle_s) * 100, "% of a core", 1.0)
        _repairs(report, rig, count, settings, say)
    return report


def _cpu_share(pid: int, seconds: float) -> float:
    """Which part of one core a process uses while nobody asks it anything."""
    before, began = _cpu_s(pid), time.monotonic()
    time.sleep(seconds)
    return (_cpu_s(pid) - before) / (time.monotonic() - began)


def _cpu_s(pid: int) -> float:
    """utime and stime of proc(5)'s stat, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _repairs(report: Report, rig: Rig, count: int, settings: Settings, say: Say) -> None:
    """Rules deleted and changed on bridges drawn at random; milliseconds until they are there again."""
    dice = random.Random(SEED)
    times: dict[str, list[float]] = {"one rule deleted": [], "one rule changed": [], "all rules deleted": []}
    each = settings.scaled(40, 3)
    for number in range(each):
        say(f"repairs, {number + 1} of {each}")
        for what, taken in times.items():
            router = 1 + dice.randrange(ROUTERS)
            bridge = rig.bridges[router - 1]
            rule = f"table=1,priority=1048,ip,dl_dst={mac(router, 0)},nw_dst={prefix(dice.randrange(count))}"
            taken.append(_until_repaired(rig, what, bridge, rule) * 1e3)
            time.sleep(PAUSE_S)
    report.samples["repair_ms"] = times
    for what, taken in times.items():
        report.add(f"{what}: repaired after, p50 of {each}", percentile(taken, 50), "ms")
    everything = [ms for one in times.values() for ms in one]
    report.at_most(f"repaired after, p99 of {len(everything)}", percentile(everything, 99), "ms", 1_000)


def _until_repaired(rig: Rig, what: str, bridge: str, rule: str) -> float:
    """Seconds from the end of the command that does the harm."""
    rules, there = flow_count(rig.ovs, bridge, OURS), rig.ovs.ofctl("dump-flows", bridge, rule.replace("priority=1048,", ""))
    if "goto_table:3" not in there:
        raise LabError(f"{bridge} has no rule {rule}")
    if what == "one rule changed":
        rig.ovs.ofctl("mod-flows", bridge, f"{rule},actions=drop", "--strict")

        def found() -> bool:
            return "goto_table:3" in rig.ovs.ofctl("dump-flows", bridge, rule.replace("priority=1048,", ""))
    else:
        rig.ovs.ofctl("del-flows", bridge, *((rule, "--strict") if what == "one rule deleted" else ()))

        def found() -> bool:
            return flow_count(rig.ovs, bridge, OURS) == rules

    began = time.monotonic()
    while not found():
        if time.monotonic() - began > REPAIR_TIMEOUT_S:
            raise LabError(f"{bridge}: {what}, and not repaired after {REPAIR_TIMEOUT_S:.0f} s")
    return time.monotonic() - began
