"""The controller stops, or is killed, and comes back: in step again, with no rule touched."""

from __future__ import annotations

import json
import re
import statistics
import time

from topologies.experiments.report import Report, Say, Settings
from topologies.experiments.rig import Rig
from topologies.ovs import LabError

ROUTERS = 4
IN_STEP = re.compile(r"bridge (\S+): in sync, (\d+) changes of (\d+) rules")


def run(settings: Settings, say: Say) -> Report:
    """Seconds from the start of the process until /readyz says so; rules younger than that were touched."""
    report = Report("restart", f"the controller restarts, {ROUTERS} routers with full tables installed")
    count = settings.scaled(10_000, 1_000)
    ready, touched, changes = [], [], []
    with Rig(ROUTERS) as rig:
        rig.put_all({k: json.dumps({"flows": rig.table(k, count)}).encode() for k in range(1, ROUTERS + 1)})
        installed = rig.rule_count()
        for number in range(settings.repeats):
            say(f"{number + 1} of {settings.repeats}")
            began = time.monotonic()
            (rig.control.kill if number % 2 else rig.control.stop)()
            size = rig.control.log.stat().st_size
            start = time.monotonic()
            rig.control.start()
            ready.append(time.monotonic() - start)
            changes.append(_changes(rig, size))
            if rig.rule_count() != installed:
                raise LabError(f"{installed} rules before, {rig.rule_count()} after a restart")
            touched.append(_younger_than(rig, time.monotonic() - began))
    report.samples = {"ready_s": ready, "touched": touched, "changes": changes, "rules": installed}
    report.add("rules installed", installed, "rules")
    report.at_most("from the start of the process to ready, median", statistics.median(ready), "s", 3)
    report.add("... the longest", max(ready), "s")
    report.at_most("rules changed by fsctl", max(changes), "rules", 0)
    report.at_most("rules younger than the restart", max(touched), "rules", 0)
    return report


def _changes(rig: Rig, log_offset: int) -> int:
    """What the controller says it has changed since then; LabError if it does not speak of every bridge."""
    found = IN_STEP.findall(rig.control.log.read_text(errors="replace")[log_offset:])
    if {bridge for bridge, _, _ in found} != set(rig.bridges):
        raise LabError(f"in step: {found}, not {rig.bridges}")
    return sum(int(changes) for _, changes, _ in found)


def _younger_than(rig: Rig, seconds: float) -> int:
    """Flow entries that Open vSwitch has had for less than that."""
    flows = (line for bridge in rig.bridges for line in rig.ovs.ofctl("dump-flows", bridge).splitlines())
    ages = (re.search(r"duration=([\d.]+)s", line) for line in flows)
    return sum(1 for age in ages if age and float(age[1]) < seconds)
