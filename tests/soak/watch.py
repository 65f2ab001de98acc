"""What is watched all the time: how long the controller takes to answer, and when leases end."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from fsctl.client import Client
from fsctl.errors import FsctlError
from tests.soak.plan import HOSTS, LEASED, ROUTERS
from topologies.control import Control

POLL_S = 0.02
LEASE_S = 1.0
LATE_S = 1.0
"""By how much a lease may be kept too long."""


@dataclass
class Outage:
    """Somebody is not there, on purpose. `adds`: seconds by which it postpones the end of leases."""

    what: str
    begins: float
    ends: float = float("inf")
    adds: float = 0.0


class Outages:
    """When the adversary had stopped or killed something that the watched things need."""

    def __init__(self) -> None:
        self.all: list[Outage] = []

    @contextmanager
    def during(self, what: str, adds: float = 0.0) -> Iterator[None]:
        outage = Outage(what, time.monotonic(), adds=adds)
        self.all.append(outage)
        try:
            yield
        finally:
            outage.ends = time.monotonic()

    def overlap(self, begins: float, ends: float, what: tuple[str, ...]) -> list[Outage]:
        return [o for o in self.all if o.what in what and o.begins < ends and o.ends > begins]


class Stall(threading.Thread):
    """Asks /healthz every 20 ms; `worst` is the longest that an answer took while the controller was not stopped."""

    def __init__(self, control: Control, outages: Outages) -> None:
        super().__init__(daemon=True)
        self._control, self._outages = control, outages
        self._stopping = threading.Event()
        self.worst, self.asked = 0.0, 0
        self.late = 0.0
        """How late this thread itself has been: the machine's share in `worst`."""

    def run(self) -> None:
        parts = urlsplit(self._control.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        while not self._stopping.is_set():
            begins = time.monotonic()
            try:
                connection.request("GET", "/healthz")
                connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                connection.close()
                self._stopping.wait(0.1)
                continue
            now = time.monotonic()
            self.asked += 1
            if now - begins > self.worst and not self._outages.overlap(begins, now, ("controller",)):
                self.worst = now - begins
            self._stopping.wait(POLL_S)
            self.late = max(self.late, time.monotonic() - now - POLL_S)

    def stop(self) -> None:
        self._stopping.set()
        self.join()


class Leases(threading.Thread):
    """Again and again: a session with a lease of a second, one delegation, silence. `late` is how long each outlived it."""

    def __init__(self, control: Control, outages: Outages, is_there: Callable[[str], bool]) -> None:
        super().__init__(daemon=True)
        self._control, self._outages, self._is_there = control, outages, is_there
        self._stopping = threading.Event()
        self.none = threading.Lock()
        """Held by whoever wants no lease to be running."""
        self.late: list[float] = []
        self.problems: list[str] = []

    def run(self) -> None:
        number = 0
        while not self._stopping.wait(0.5):
            number += 1
            try:
                with self.none:
                    self._one(number)
            except FsctlError:
                self._stopping.wait(0.5)  # the controller is away, or an older lease runs on after a restart
            except Exception as e:  # noqa: BLE001 - a thread's error is the test's
                self.problems.append(f"the leases' thread: {e!r}")
                return

    def _one(self, number: int) -> None:
        prefix, session = f"10.77.{number % 250}.0/24", f"soak{number}"
        with Client(self._control.url, self._control.tokens[LEASED], timeout_s=10) as client:
            client.call("PUT", f"/v1/routers/{LEASED}/session", _session(session))
            client.call("PUT", f"/v1/routers/{LEASED}/flows", {"flows": [_flow(prefix)]}, {"session": session, "seq": "1"})
        begins = time.monotonic()
        ends = begins + LEASE_S
        gone = self._gone(prefix, ends + 30.0)
        held_up = self._outages.overlap(begins, gone, ("controller", "switch"))
        allowed = max([ends, *(o.ends + o.adds for o in held_up)])
        self.late.append(gone - allowed)
        if gone > allowed + LATE_S:
            self.problems.append(f"a lease of {LEASE_S:g} s has been in force {gone - allowed:.1f} s longer than it may")

    def _gone(self, prefix: str, latest: float) -> float:
        while time.monotonic() < latest and not self._stopping.is_set():
            if not self._is_there(prefix):
                return time.monotonic()
            self._stopping.wait(0.05)
        return time.monotonic()

    def stop(self) -> None:
        self._stopping.set()
        self.join()


def _session(name: str) -> dict[str, object]:
    return {"id": name, "lease": LEASE_S, "graceful_restart": 0, "reasons": []}


def _flow(prefix: str) -> dict[str, object]:
    ingress, out = ROUTERS[LEASED].ports
    return {
        "match": {"in": ingress.device, "ipv4_dst": prefix},
        "action": "forward",
        "set": {"eth_dst": HOSTS["e"].mac},
        "out": out.device,
    }
