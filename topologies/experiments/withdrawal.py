"""How soon a withdrawal ends the bypass: from the request until the switch leaves the packets to the routers.

    host --- [b0] --- r1 --- [b1] --- r2 --- [b2] --- r3 --- [b3] --- host

r2 withdraws; what is bypassed past it begins at r1 too. r3 is a stranger whose whole table is written again and again meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator

from topologies.experiments.report import Report, Say, Settings, percentile
from topologies.experiments.rig import Connection, Rig, mac, prefix
from topologies.processes import LabError

ROUTERS, WITHDRAWS, STRANGER = 3, 2, 3
SIZES = 100, 10_000, 100_000
PATIENCE_S = 120.0
REST_S = 1.0
"""After the table was written: a switch is busy for a while after 100,000 changes."""


def run(settings: Settings, say: Say) -> Report:
    """The same withdrawal with tables of three sizes, and beside a stranger's writes."""
    report = Report("withdrawal", "a router withdraws its delegations: the request until its packets take the slow path")
    sizes = [settings.scaled(size, min(size, 2_000)) for size in SIZES]
    for size in dict.fromkeys(sizes):
        with Rig(ROUTERS) as rig:
            ended, confirmed = _withdrawals(rig, size, settings.repeats * 2, say)
            report.samples[f"ended_ms_{size}"] = ended
            report.at_most(f"{size:,} prefixes: bypass ended, p50", percentile(ended, 50), "ms", 50)
            report.at_most(f"{size:,} prefixes: bypass ended, longest", max(ended), "ms", 250)
            report.add(f"{size:,} prefixes: all rules gone and confirmed, p50", percentile(confirmed, 50), "ms")
    with Rig(ROUTERS) as rig, _busy(rig, sizes[-1]):
        ended, _ = _withdrawals(rig, sizes[1], settings.repeats * 2, say)
        report.samples["ended_ms_busy"] = ended
        report.add(f"{sizes[1]:,} prefixes, beside writes of {sizes[-1]:,}: bypass ended, p50", percentile(ended, 50), "ms")
        report.add(f"{sizes[1]:,} prefixes, beside writes of {sizes[-1]:,}: bypass ended, longest", max(ended), "ms")
    return report


def _withdrawals(rig: Rig, size: int, times: int, say: Say) -> tuple[list[float], list[float]]:
    """Milliseconds until the bypass has ended at r1 and r2, and until the withdrawal was confirmed."""
    bodies = {k: json.dumps({"flows": rig.table(k, size)}).encode() for k in (WITHDRAWS - 1, WITHDRAWS)}
    rig.put_all({WITHDRAWS - 1: bodies[WITHDRAWS - 1]})
    ended, confirmed = [], []
    for number in range(times):
        say(f"{size:,} prefixes, {number + 1} of {times}")
        rig.connection.request("PUT", f"/v1/routers/r{WITHDRAWS}/flows", bodies[WITHDRAWS])
        written = time.monotonic()
        while _hops(rig, WITHDRAWS - 1) < 2 or not _is_bypassed(rig, WITHDRAWS):
            if time.monotonic() > written + PATIENCE_S:
                raise LabError("the prefixes are not bypassed")
        time.sleep(REST_S)
        took: list[float] = []
        start = time.monotonic()
        asking = threading.Thread(target=_withdraw, args=(rig, took))
        asking.start()
        # r1's packets are bypassed on to r2 in the end; until then past it.
        while _is_bypassed(rig, WITHDRAWS) or _hops(rig, WITHDRAWS - 1) > 1:
            if time.monotonic() > start + PATIENCE_S:
                raise LabError("the bypass has not ended")
        ended.append((time.monotonic() - start) * 1e3)
        asking.join()
        confirmed.append(took[0])
    return ended, confirmed


def _withdraw(rig: Rig, took: list[float]) -> None:
    connection = Connection(rig.control)
    start = time.monotonic()
    connection.request("DELETE", f"/v1/routers/r{WITHDRAWS}/flows")
    took.append((time.monotonic() - start) * 1e3)
    connection.close()


def _trace(rig: Rig, router: int) -> str:
    """What the switch does with a packet for one of the prefixes."""
    bridge, eth_dst = rig.bridges[router - 1], mac(router, 0)
    destination = prefix(7).partition("/")[0][:-1] + "9"
    packet = f"in_port=1,dl_src=02:00:00:00:00:99,dl_dst={eth_dst},udp,nw_src=10.9.9.9,nw_dst={destination},nw_ttl=64"
    return rig.ovs.appctl("ofproto/trace", bridge, packet)


def _hops(rig: Rig, router: int) -> int:
    """By how much the switch counts the TTL down: the routers that are bypassed."""
    return _trace(rig, router).count("dec_ttl\n")


def _is_bypassed(rig: Rig, router: int) -> bool:
    return _hops(rig, router) > 0


@contextlib.contextmanager
def _busy(rig: Rig, size: int) -> Iterator[None]:
    """The stranger's whole table is written again and again."""
    done = threading.Event()
    hops = ("02:00:00:ff:00:05", "02:00:00:ff:00:06")
    flows = [{"flows": [rig.flow(STRANGER, prefix(100_000 + n), hop) for n in range(size)]} for hop in hops]
    bodies = [json.dumps(table).encode() for table in flows]

    def write() -> None:
        connection, number = Connection(rig.control, f"r{STRANGER}"), 0
        while not done.is_set():
            connection.request("PUT", f"/v1/routers/r{STRANGER}/flows", bodies[number % 2])
            number += 1
        connection.close()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
