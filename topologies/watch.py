"""What happens in a lab, and when: numbered packets, the kernel's routes, a bridge's rules. Times are wall clock, seconds."""

from __future__ import annotations

import re
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from topologies.lab import Lab
from topologies.processes import LabError, die_with_parent

PORT = 7000
SO_RCVBUFFORCE = 33
QUIET_S = 0.5
START_S = 0.3
"""Enough for a watching command that does not say when it has begun."""
T = TypeVar("T")


def wait_for(what: str, probe: Callable[[], T | None], timeout_s: float = 60.0, every_s: float = 0.05) -> T:
    """The first answer of `probe` that is true; LabError after `timeout_s`, with the last answer."""
    deadline = time.monotonic() + timeout_s
    while not (answer := probe()):
        if time.monotonic() > deadline:
            raise LabError(f"waited {timeout_s:.0f} s for this in vain: {what}; last seen: {answer!r}")
        time.sleep(every_s)
    return answer


@dataclass(slots=True)
class Stream:
    """What became of numbered packets: when each was sent and when it arrived."""

    sent: list[float] = field(default_factory=list)
    arrived: dict[int, float] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        return len(self.sent) - len(self.arrived)

    @property
    def last_arrival(self) -> float:
        return max(self.arrived.values())


@contextmanager
def stream(lab: Lab, sender: str, receiver: str, rate_pps: int = 500, port: int = PORT) -> Iterator[Stream]:
    """Numbered UDP packets at a steady rate while the block runs; after it, the result is complete."""
    result, stopping = Stream(), threading.Event()
    address = lab.address(receiver)
    with (
        lab[sender].open_socket(socket.AF_INET, socket.SOCK_DGRAM) as source,
        lab[receiver].open_socket(socket.AF_INET, socket.SOCK_DGRAM) as sink,
    ):
        sink.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
        sink.bind((address, port))
        sink.settimeout(QUIET_S)

        def send() -> None:
            start = time.monotonic()
            while not stopping.is_set():
                ahead = len(result.sent) / rate_pps - (time.monotonic() - start)
                if ahead > 0:
                    time.sleep(ahead)
                    continue
                source.sendto(struct.pack("!I", len(result.sent)), (address, port))
                result.sent.append(time.time())

        def receive() -> None:
            while True:
                try:
                    (number,) = struct.unpack("!I", sink.recv(64))
                    result.arrived[number] = time.time()
                except TimeoutError:
                    if stopping.is_set():
                        return

        threads = [threading.Thread(target=receive), threading.Thread(target=send)]
        for thread in threads:
            thread.start()
        try:
            yield result
        finally:
            stopping.set()
            for thread in reversed(threads):
                thread.join()


@dataclass(frozen=True, slots=True)
class Event:
    """A line that a watching command printed, and its own time stamp."""

    at: float
    text: str


class Watch:
    """A command that prints what happens, with time stamps, while the `with` block runs."""

    def __init__(self, command: list[str], stamp: re.Pattern[str], is_utc: bool, greets: bool = False,
                 env: dict[str, str] | None = None) -> None:  # fmt: skip
        """`greets`: the command prints something as soon as it watches."""
        self._command, self._stamp, self._is_utc, self._greets, self._env = command, stamp, is_utc, greets, env
        self.events: list[Event] = []

    def __enter__(self) -> Watch:
        # Line by line, although it is a pipe.
        self._process = subprocess.Popen(
            ["stdbuf", "-oL", *self._command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, start_new_session=True, preexec_fn=die_with_parent, env=self._env,  # noqa: PLW1509 - sets a flag, no more
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        try:
            if self._greets:
                wait_for("the watch is ready", lambda: self.events, timeout_s=10.0, every_s=0.01)
            else:
                time.sleep(START_S)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        at = 0.0
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if (found := self._stamp.search(line)) is not None:
                when = datetime.fromisoformat(found[1].replace(" ", "T"))
                at = (when.replace(tzinfo=UTC) if self._is_utc else when.astimezone()).timestamp()
            self.events.append(Event(at, line.strip()))

    def first(self, pattern: str, after: float) -> Event | None:
        """The first event since `after` that matches."""
        return next((e for e in self.events if e.at >= after and re.search(pattern, e.text)), None)


def routes(lab: Lab, router: str) -> Watch:
    """The kernel's messages of links and routes in a router: ip-monitor(8)."""
    command = lab[router].inside("ip", "-ts", "monitor", "link", "route")
    return Watch(command, re.compile(r"^\[(\S+)\]"), is_utc=False)


def rules(lab: Lab, bridge: str) -> Watch:
    """A bridge's rules as Open vSwitch puts them in force: ovs-ofctl(8), monitor, watch."""
    socket_path = f"unix:{lab.ovs.rundir}/{lab.bridge(bridge)}.mgmt"
    command = ["ovs-ofctl", "-O", "OpenFlow14", "--timestamp", "monitor", socket_path, "watch:!initial"]
    return Watch(command, re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+)"), is_utc=True, greets=True, env=lab.ovs.env)
