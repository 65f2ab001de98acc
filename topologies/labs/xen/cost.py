"""What a packet costs the host beside time: domain switches and wake-ups, counted by xentrace."""

from __future__ import annotations

import json
from typing import Any

from topologies.labs.measure import FRAME_OVERHEAD, PORT
from topologies.labs.plan import Guest, destination, way_back
from topologies.labs.remote import LabError
from topologies.labs.xen.lab import XenLab

PACKETS = 5_000
FRAME = 64
XENTRACE = "/usr/lib/xen-4.17/bin/xentrace"
TRACE = "/tmp/xentrace.bin"
VERBOSE_SCHEDULER_EVENTS = 0x00028000
"""TRC_SCHED_VERBOSE: switches (…0a) and wake-ups (…04); xen/include/public/trace.h."""


def switches_per_packet(lab: XenLab, chain: int, bypass: bool) -> dict[str, Any]:
    """Per packet that reached nodeb: domain switches, and wake-ups of each domain, for 5,000 small packets in a burst."""
    nodea, nodeb = lab.plan.nodea, lab.plan.nodeb
    lab.on(nodeb, way_back(chain))
    lab.on(nodea, f"ping -c 2 -q {destination(chain)}")
    lab.on(nodeb, f"(blast recv {PORT} 60 > /tmp/received &)")
    trace = f"{XENTRACE} -D -S 1024 -e 0x{VERBOSE_SCHEDULER_EVENTS:x} {TRACE}"
    lab.station.run(f"{trace} > /tmp/xentrace.log 2>&1 & echo $! > /tmp/xentrace.pid; sleep 1")
    lab.on(nodea, f"blast count {destination(chain)} {PORT} {FRAME - FRAME_OVERHEAD} {PACKETS}", 120)
    lab.station.run("sleep 1; kill -INT $(cat /tmp/xentrace.pid); sleep 1")
    counted = json.loads(lab.station.run(f"python3 /opt/lab/switches.py {TRACE}; rm {TRACE}", 300))
    if counted["lost"]:
        raise LabError(f"xentrace lost {counted['lost']} records")
    received = json.loads(lab.on(nodeb, "sleep 2; cat /tmp/received"))["packets"]
    names = {"0": "dom0"} | {str(lab.domain_id(guest)): guest.name for guest in _seen(lab)}
    return {
        "chain": chain,
        "bypass": bypass,
        "packets": received,
        "switches": counted["switches"] / received,
        "wakes": {names.get(domain, domain): count / received for domain, count in counted["wakes"].items()},
    }


def _seen(lab: XenLab) -> tuple[Guest, ...]:
    return lab.plan.guests
