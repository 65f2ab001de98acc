"""The REST side: reading a large body, and many small requests while OpenFlow keeps being answered."""

from __future__ import annotations

import json
import threading
import time

from fsctl.schema.bodies import read_replacement
from fsctl.schema.text import loads
from topologies.experiments.collapse import chain
from topologies.experiments.openflow_peer import EchoProbe
from topologies.experiments.report import Report, Say, Settings, percentile
from topologies.experiments.rig import Connection, Rig, prefix
from topologies.ovs import LabError

ROUTERS = 4
CLIENTS = 16
RATE = 500
OWN_PREFIXES = 1000
"""Prefixes that a client adds, and then removes, beside those of all others."""


def run(settings: Settings, say: Say) -> Report:
    """Parse and validate; sustained small requests with full tables present; echo replies during it all."""
    report = Report("rest", "REST, and OpenFlow echo replies meanwhile")
    count = settings.scaled(10_000, 1_000)
    _parse(report, count, settings.repeats * 2)
    with Rig(ROUTERS) as rig:
        bodies = {k: json.dumps({"flows": rig.table(k, count)}).encode() for k in range(1, ROUTERS + 1)}
        with EchoProbe(rig.control.openflow_port) as probe:
            say(f"installing {count * ROUTERS:,} delegations")
            rig.put_all(bodies)
        report.samples["echo_installing_s"] = probe.delays_s
        report.at_most(f"latest echo reply while {count * ROUTERS:,} delegations come", max(probe.delays_s) * 1e3, "ms", 1000)
        for kind in ("GET", "PATCH"):
            say(f"{RATE} {kind}s a second")
            _sustained(report, rig, kind, count, settings.scaled(10, 2))
    return report


def _parse(report: Report, count: int, repeats: int) -> None:
    router = chain(ROUTERS, 0).routers["r1"]
    body = json.dumps({"flows": Rig(ROUTERS).table(1, count)}).encode()
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        read_replacement(router, loads(body))
        taken.append((time.process_time() - start) * 1e3)
    report.samples["parse_ms"] = taken
    report.at_most(f"PUT of {count:,} flows ({len(body) // 1024:,} KiB) parsed and validated", percentile(taken, 50), "ms", 150)


class Client(threading.Thread):
    """Sends one request every `interval_s`, as soon as it can if it has fallen behind, until `until` (monotonic)."""

    def __init__(self, rig: Rig, number: int, kind: str, count: int, interval_s: float, until: float) -> None:
        super().__init__()
        self._rig, self._router, self._kind = rig, number % ROUTERS + 1, kind
        self._first_prefix = count + number * OWN_PREFIXES
        self._interval_s, self._until = interval_s, until
        self.delays_s: list[float] = []
        self.error: Exception | None = None

    def run(self) -> None:
        connection = Connection(self._rig.control)
        try:
            due, number = time.monotonic(), 0
            while due < self._until:
                time.sleep(max(0.0, due - time.monotonic()))
                self._one(connection, number)
                self.delays_s.append(time.monotonic() - due)  # being late counts
                due += self._interval_s
                number += 1
        except (OSError, LabError) as e:
            self.error = e
        finally:
            connection.close()

    def _one(self, connection: Connection, number: int) -> None:
        path = f"/v1/routers/r{self._router}"
        if self._kind == "GET":
            connection.request("GET", path)
        else:
            flow = self._rig.flow(self._router, prefix(self._first_prefix + number % OWN_PREFIXES))
            body = {"add": [flow]} if number // OWN_PREFIXES % 2 == 0 else {"remove": [flow["match"]]}
            connection.request("PATCH", f"{path}/flows", json.dumps(body).encode())


def _sustained(report: Report, rig: Rig, kind: str, count: int, seconds: int) -> None:
    until = time.monotonic() + seconds
    clients = [Client(rig, k, kind, count, CLIENTS / RATE, until) for k in range(CLIENTS)]
    with EchoProbe(rig.control.openflow_port) as probe:
        start = time.monotonic()
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        took = time.monotonic() - start
    for client in clients:
        if client.error is not None:
            raise LabError(f"{kind}: {client.error}") from client.error
    delays = [delay for client in clients for delay in client.delays_s]
    what = "small reads" if kind == "GET" else "one-flow writes, each confirmed by the switches"
    report.samples |= {f"{kind}_s": delays, f"echo_{kind}_s": probe.delays_s}
    report.at_least(f"{what}, offered {RATE}/s for {seconds} s", len(delays) / took, "requests/s", 0.98 * RATE)
    report.add(f"{what}: p99", percentile(delays, 99) * 1e3, "ms", "from when it was due")
    report.at_most(f"{what}: latest echo reply meanwhile", max(probe.delays_s) * 1e3, "ms", 1000)
