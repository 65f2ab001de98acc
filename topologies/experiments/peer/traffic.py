"""A thin stream of packets through the chain while something happens to its controller: how many are lost, how long none came."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from topologies.experiments.peer.ground import Ground
from topologies.experiments.search.fibs import SENDER_MAC
from topologies.experiments.wire import Arrived, frame

INTERVAL_S = 0.005
LINGER_S = 0.5
"""How long after the last packet arrivals still count."""
MARGIN_S = 0.5
"""The stream begins so much before whatever happens, and ends so much after it."""


@dataclass(frozen=True, slots=True)
class Loss:
    """`gap_s` is the longest time in which every packet was lost."""

    sent: int
    lost: int
    gap_s: float


def loss(sent: int, arrived: set[int], interval_s: float = INTERVAL_S) -> Loss:
    """From the numbers of the packets that have arrived, out of 0..sent-1."""
    run = longest = 0
    for number in range(sent):
        run = 0 if number in arrived else run + 1
        longest = max(longest, run)
    return Loss(sent, sum(1 for n in range(sent) if n not in arrived), longest * interval_s)


def unwrapped(ident: int, last: int) -> int:
    """A packet's number from the 16 bits of its IP identification: the one nearest to the packet before."""
    return last + ((ident - last + 0x8000) & 0xFFFF) - 0x8000


class Stream:
    """Sends to each destination in turn for as long as it is open; afterwards `result` says what became of it."""

    def __init__(self, ground: Ground, entry_mac: int, destinations: Sequence[int]) -> None:
        self._ground, self._entry, self._destinations = ground, entry_mac, list(destinations)
        self._end = threading.Event()
        self._sent = 0
        self._arrived: set[int] = set()
        self.result = Loss(0, 0, 0.0)

    def __enter__(self) -> Self:
        self._sender, self._receiver = (self._ground.space.raw_socket(end) for end in self._ground.ends)
        self._receiver.settimeout(LINGER_S)
        self._threads = [threading.Thread(target=work) for work in (self._receive, self._send)]
        for thread in self._threads:
            thread.start()
        time.sleep(MARGIN_S)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        time.sleep(MARGIN_S)
        self._end.set()
        for thread in reversed(self._threads):
            thread.join()
        for end in (self._sender, self._receiver):
            end.close()
        self.result = loss(self._sent, self._arrived)

    def _send(self) -> None:
        start = time.monotonic()
        while not self._end.is_set():
            destination = self._destinations[self._sent % len(self._destinations)]
            self._sender.send(frame(self._entry, SENDER_MAC, destination, self._sent))
            self._sent += 1
            time.sleep(max(0.0, start + self._sent * INTERVAL_S - time.monotonic()))

    def _receive(self) -> None:
        wanted = set(self._destinations)
        last = 0
        while True:
            try:
                raw = self._receiver.recv(2048)
            except TimeoutError:
                if self._end.is_set():
                    return
                continue
            packet = Arrived(raw)
            if packet.dst in wanted:
                last = unwrapped(packet.ident, last)
                self._arrived.add(last)
