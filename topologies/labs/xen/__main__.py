"""`python -m topologies.labs.xen`: the chain on a real, emulated Xen host, measured; results below results/xen-lab.

With --docs also docs/measurements/xen.md and its plots. The set-up host is kept in the cache (FSCTL_LAB_CACHE, else
~/.cache/fsctl-lab) and resumed the next time; --setup only sees to that.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from topologies.labs import report
from topologies.labs.cache import TREE
from topologies.labs.measure import Run, Spec, measure
from topologies.labs.plan import DIRECT, MAX_CHAIN, Plan
from topologies.labs.remote import LabError, end_in_order
from topologies.labs.xen import cost, lifecycle, snapshot
from topologies.labs.xen.lab import XenLab
from topologies.labs.xen.page import write_page

SETTINGS = (
    ("credit2", 1000, "credit2, rate limit 1 ms (Xen's default)"),
    ("credit2", 0, "credit2, rate limit 0"),
    ("credit", 0, "credit, rate limit 0"),
)
SWEEP = Spec(message_bytes=(256, 1024, 8192, 65536), frame_bytes=(64, 256, 700, 1500), seconds=1.0)
QUICK = Spec(chains=(1,), message_bytes=(65536,), frame_bytes=(64,), seconds=2.0)
POINTS = Spec(message_bytes=(65536,), frame_bytes=(64,), seconds=1.0, rounds=3)


def say(text: str) -> None:
    print(f"xen-lab: {text}", file=sys.stderr, flush=True)


def set_rate_limit(lab: XenLab, scheduler: str, microseconds: int) -> None:
    """xl sched-credit2 -r, xl sched-credit -r; credit takes none below its minimum but 0."""
    command = f"xl sched-{scheduler} -s -r {microseconds}"
    lab.station.run(f"{command} {'-t 30' if scheduler == 'credit' else ''}")


def switches(lab: XenLab) -> list[dict[str, Any]]:
    """Domain switches per packet for every path; leaves the bypass on."""
    found = []
    for bypass in (False, True):
        lab.bypass(bypass)
        for chain in range(DIRECT if not bypass else 1, lab.plan.length + 1):
            found.append(cost.switches_per_packet(lab, chain, bypass))
            say(f"{found[-1]}")
    return found


def conditions(lab: XenLab, started: float) -> dict[str, Any]:
    info = dict(line.split(":", 1) for line in lab.station.run("xl info").splitlines() if ":" in line)
    facts = {key.strip(): value.strip() for key, value in info.items()}
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Xen": facts["xen_version"],
        "dom0": f"Debian 12, Linux {facts['release']}, PV, 1 vCPU",
        "domUs": f"PV, Linux {lab.on(lab.plan.nodea, 'uname -r').strip()}, 1 vCPU each",
        "Open vSwitch": lab.station.run("ovs-vsctl --version").split()[3] + ", kernel datapath",
        "machine": "QEMU TCG, -icount shift=1,sleep=off: one processor, 2 ns per instruction, idle time skipped",
        "load average of the computer that emulates": round(os.getloadavg()[0], 1),
        "whole run (s)": round(time.monotonic() - started),
    }


def run_quick(started: float) -> tuple[list[Run], dict[str, Any]]:
    """One router with Xen's defaults: two minutes on an idle computer, once the snapshot is there."""
    scheduler, limit, name = SETTINGS[0]
    with snapshot.lab(scheduler, Plan(MAX_CHAIN), say) as lab:
        set_rate_limit(lab, scheduler, limit)
        run = measure(lab, name, QUICK, say)
        return [run], conditions(lab, started)


def run_all(schedulers: Sequence[str], started: float) -> Iterator[tuple[list[Run], dict[str, Any]]]:
    """All settings, all chains, the sweeps in the first setting; after it what becomes of routers that end.

    Yields what there is so far after every setting: a run takes long, and what it has measured shall not be lost.
    """
    runs: list[Run] = []
    facts: dict[str, Any] = {"lifecycle": []}
    for scheduler in schedulers:
        with snapshot.lab(scheduler, Plan(MAX_CHAIN), say) as lab:
            for _, limit, name in [s for s in SETTINGS if s[0] == scheduler]:
                set_rate_limit(lab, scheduler, limit)
                runs.append(measure(lab, name, POINTS if runs else SWEEP, say))
                runs[-1].facts["switches"] = switches(lab)
                facts |= conditions(lab, started)
                yield runs, facts
            if not facts["lifecycle"]:
                set_rate_limit(lab, scheduler, SETTINGS[0][1])
                facts["lifecycle"] = [asdict(_followed(lab, event)) for event in lifecycle.EVENTS]
                yield runs, facts


def _followed(lab: XenLab, event: Callable[[XenLab], lifecycle.Event]) -> lifecycle.Event:
    seen = event(lab)
    say(f"{seen.what}: {seen.seconds:.1f} s, {seen.seen}")
    return seen


def set_up(schedulers: Sequence[str]) -> int:
    """See to it that the snapshots are there and come up."""
    for scheduler in schedulers:
        with snapshot.lab(scheduler, Plan(MAX_CHAIN), say) as lab:
            say(lab.station.run("xl list"))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m topologies.labs.xen", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one router, Xen's defaults, one size of each, no lifecycle")
    parser.add_argument("--docs", action="store_true", help="write docs/measurements/xen.md as well")
    parser.add_argument("--schedulers", nargs="+", default=snapshot.SCHEDULERS, choices=snapshot.SCHEDULERS)
    parser.add_argument("--setup", action="store_true", help="no measurement: only see to it that the snapshots are there")
    options = parser.parse_args()
    end_in_order()
    started = time.monotonic()
    try:
        if options.setup:
            return set_up(options.schedulers)
        for runs, facts in [run_quick(started)] if options.quick else run_all(options.schedulers, started):
            say(f"results: {report.save(runs, facts, TREE / 'results' / 'xen-lab', 'xen')}")
            if options.docs and not options.quick:
                write_page(runs, facts, TREE / "docs" / "measurements", say)
    except LabError as e:
        say(f"failed: {e}")
        return 1
    for run in runs:
        print(f"{run.setting}\n\n{report.summary(run)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
