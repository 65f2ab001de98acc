"""A good tenant among hostile ones: are its writes confirmed in time, its leases kept, and is the controller still small?"""

from __future__ import annotations

import json
import multiprocessing
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

from topologies.experiments.hostile import KINDS, Target, attack
from topologies.experiments.openflow_peer import EchoProbe
from topologies.experiments.report import Report, Say, Settings, percentile
from topologies.experiments.rig import Connection, Rig, mac, memory_kib, prefix
from topologies.ovs import LabError
from topologies.sandbox import SWITCH

LEASE_S, BEAT_S, WRITE_S = 2.0, 0.5, 0.1
P99_MS, ECHO_MS, MEMORY_MIB = 250, 1000, 512
ALL = "all at once"
TABLE = 100
GOOD = 1
"""The router of the good tenant, r1; all others are hostile."""


class Seen(NamedTuple):
    """What the good tenant has seen during one kind of attack. `kept`: its session has never been withdrawn."""

    writes_s: list[float]
    echoes_s: list[float]
    memory_kib: int
    switch_kib: int
    kept: bool


def run(settings: Settings, say: Say) -> Report:
    """Each kind by itself, then all at once; every hostile router is a process with many threads."""
    report = Report("tenants", "a good tenant's writes, leases and OpenFlow while others are hostile")
    seconds = settings.scaled(8, 3)
    with Rig(3) as rig, Good(rig) as good:
        scenes: dict[str, Sequence[str]] = {"nobody": (), **{kind: (kind,) for kind in KINDS}, ALL: list(KINDS)}
        for name, kinds in scenes.items():
            say(f"{name}, {seconds} s")
            seen = good.during(kinds, seconds)
            report.samples[name] = seen._asdict()
            p99 = percentile(seen.writes_s, 99) * 1e3
            median = f"p50 {percentile(seen.writes_s, 50) * 1e3:.1f} ms, {len(seen.writes_s)} writes"
            report.at_most(f"{name}: confirmed writes, p99", p99, "ms", P99_MS, median)
            report.at_most(f"{name}: latest echo reply", max(seen.echoes_s) * 1e3, "ms", ECHO_MS)
            report.at_most(f"{name}: the controller's memory", seen.memory_kib / 1024, "MiB", MEMORY_MIB)
            report.at_most(f"{name}: ovs-vswitchd's memory", seen.switch_kib / 1024, "MiB", MEMORY_MIB)
            report.at_least(f"{name}: lease kept", float(seen.kept), "", 1)
    return report


class Good:
    """The good tenant: heartbeats from a thread of its own, as an agent sends them, and writes."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._over = threading.Event()
        self._beats = threading.Thread(target=self._beat, daemon=True)
        self._path = f"/v1/routers/r{GOOD}"
        self._number = 0

    def __enter__(self) -> Good:
        self._connection = Connection(self._rig.control)
        self._session(self._connection)
        flows = json.dumps({"flows": self._rig.table(GOOD, TABLE)}).encode()
        self._connection.request("PUT", f"{self._path}/flows?session=good", flows)
        self._beats.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._beats.join()
        self._connection.close()

    def _session(self, connection: Connection) -> None:
        connection.request("PUT", f"{self._path}/session", json.dumps({"id": "good", "lease": LEASE_S}).encode())

    def _beat(self) -> None:
        connection = Connection(self._rig.control)
        while not self._over.wait(BEAT_S):
            try:
                self._session(connection)
            except (OSError, LabError):
                connection.close()
                connection = Connection(self._rig.control)
        connection.close()

    def during(self, kinds: Sequence[str], seconds: float) -> Seen:
        """What is seen while these attacks go on."""
        writes: list[float] = []
        memory = switch = 0
        with EchoProbe(self._rig.control.openflow_port) as probe, _attacked(self._target(), kinds):
            ends = time.monotonic() + seconds
            while time.monotonic() < ends:
                begun = time.monotonic()
                self._write()
                writes.append(time.monotonic() - begun)
                memory = max(memory, memory_kib(self._rig.control.pid))
                switch = max(switch, memory_kib(self._rig.ovs.pid(SWITCH)))
                time.sleep(max(0.0, WRITE_S - writes[-1]))
        shown = self._connection.request("GET", self._path)
        session = shown.get("session") or {}
        return Seen(writes, probe.delays_s, memory, switch, kept=bool(session.get("synced")) and session.get("id") == "good")

    def _write(self) -> None:
        """One flow more, or less; the answer says that the switches have confirmed."""
        flow = self._rig.flow(GOOD, prefix(1000 + self._number // 2))
        body = {"add": [flow]} if self._number % 2 == 0 else {"remove": [flow["match"]]}
        answer = self._connection.request("PATCH", f"{self._path}/flows?session=good", json.dumps(body).encode())
        if answer["failed"] or not answer["stored"]:
            raise LabError(f"a write of the good tenant failed: {answer}")
        self._number += 1

    @property
    def expected(self) -> int:
        """How many flows it has, as all its writes were confirmed."""
        return TABLE + self._number % 2

    def flows(self) -> int:
        """How many the controller has of it."""
        return int(self._connection.request("GET", self._path)["flows"])

    def _target(self) -> Target:
        control = self._rig.control
        parts = urlsplit(control.url)
        hostile = {name: token for name, token in control.tokens.items() if name.startswith("r") and name != f"r{GOOD}"}
        return Target(parts.hostname or "", parts.port or 0, control.openflow_port, hostile, (mac(3, 0), mac(9, 0)))


@contextmanager
def _attacked(target: Target, kinds: Sequence[str]) -> Iterator[None]:
    processes = [multiprocessing.get_context("spawn").Process(target=attack, args=(target, kind), daemon=True) for kind in kinds]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()
