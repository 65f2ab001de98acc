"""Every frame that a host or listener has heard, judged: would the routers or plain bridging have given it to him?

Frames of the bypassed world are judged some time after they came, when the routed world has had its say too.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.soak.plan import BY_MAC, HOSTS
from tests.soak.walk import Outcome, Tables, walk
from tests.soak.wire import CHATTER, NOBODYS_VLAN, Probe, comparable, is_icmp, is_rationed, mark_of, parse, renumbered

PATIENCE_S = 0.6
"""How long after its arrival a frame is judged: the routed world may be slower."""
KEPT_S = 15.0
OVERLAP_S = 2.0
"""A packet may meet the routes of this long ago, or those that came soon after it was sent."""
SOON_S = 0.5
CHATTER_S = 3.0
"""What stations say again and again counts as heard in the routed world when it was so about that time."""
_BETWEEN_BRIDGES = bytes.fromhex("0180c20000")
"""Destinations of spanning tree and the like (IEEE 802.1D, 7.12.6): said by bridges themselves."""
BYPASSED, ROUTED = "bypassed", "routed"


@dataclass(frozen=True, slots=True)
class Heard:
    when: float
    station: str
    raw: bytes


@dataclass
class Sent:
    probe: Probe
    when: float
    heard: dict[str, list[tuple[str, bytes]]] = field(default_factory=lambda: {BYPASSED: [], ROUTED: []})
    """World -> (station, frame as it compares)."""
    routers: dict[str, set[str]] = field(default_factory=lambda: {BYPASSED: set(), ROUTED: set()})
    """World -> the router ports that it came to."""

    def received(self, world: str) -> Counter[tuple[str, bytes]]:
        return Counter(item for item in self.heard[world] if not is_rationed(item[1]))


@dataclass
class Excuse:
    """Where bridges may not know where stations are (or where `eth_dst` is) and flood, as bridges do."""

    bridges: frozenset[str]
    eth_dst: str | None
    begins: float
    ends: float


class Judge:
    """Books of what was sent and heard. `excuse` says where a bridge may flood for a while."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: deque[Heard] = deque()
        self._sent: dict[int, Sent] = {}
        self._chatter: dict[tuple[str, bytes], float] = {}
        """What else is heard in the routed world, and when last."""
        self._marks = 0
        self._eras: list[tuple[float, dict[str, Tables]]] = []
        self._excused: list[Excuse] = []
        self.judged = 0

    # --- what the threads tell ----------------------------------------------------------------------------

    def sent(self, probe: Probe) -> Sent:
        """A probe that is about to be sent in both worlds gets its mark."""
        with self._lock:
            self._marks += 1
            made = self._sent[self._marks] = Sent(renumbered(probe, self._marks), time.monotonic())
        return made

    def heard(self, world: str, station: str, raw: bytes) -> None:
        sent = self._sent.get(mark_of(raw) or 0)
        if sent is not None:
            sent.heard[world].append((station, comparable(raw)))
        elif world == ROUTED:
            self._chatter[station, raw] = time.monotonic()
        if world == BYPASSED:
            self._queue.append(Heard(time.monotonic(), station, raw))

    def overheard(self, world: str, port: str, raw: bytes) -> None:
        """At a router."""
        sent = self._sent.get(mark_of(raw) or 0)
        if sent is not None and not is_icmp(raw):
            sent.routers[world].add(port)

    # --- what the harness tells ---------------------------------------------------------------------------

    def new_era(self, tables: dict[str, Tables]) -> None:
        """The routers' tables have changed."""
        self._eras.append((time.monotonic(), tables))

    @property
    def tables(self) -> dict[str, Tables]:
        return self._eras[-1][1]

    def excuse(self, bridges: frozenset[str], seconds: float, eth_dst: str | None = None) -> Excuse:
        """From now on, for so long; the answer may be shortened."""
        now = time.monotonic()
        self._excused.append(Excuse(bridges, eth_dst, now - 0.1, now + seconds))
        return self._excused[-1]

    @property
    def last_excuse(self) -> float:
        """When a bridge has forgotten something last."""
        return max((e.begins for e in self._excused), default=0.0)

    # --- judgement ----------------------------------------------------------------------------------------

    def leaks(self) -> list[str]:
        """What somebody heard who should not have; frames are judged once."""
        found, ready = [], time.monotonic() - PATIENCE_S
        while self._queue and self._queue[0].when < ready:
            heard = self._queue.popleft()
            self.judged += 1
            problem = self._problem(heard)
            if problem:
                found.append(f"{problem}: {describe(heard.raw)} at {heard.station} ({HOSTS[heard.station].bridge})")
        self._forget()
        return found

    def _forget(self) -> None:
        old = time.monotonic() - KEPT_S
        with self._lock:
            for mark in [m for m, s in self._sent.items() if s.when < old]:
                del self._sent[mark]
        while len(self._eras) > 1 and self._eras[1][0] < old:
            self._eras.pop(0)
        self._excused = [e for e in self._excused if e.ends > old]

    def _problem(self, heard: Heard) -> str:
        frame, here = parse(heard.raw), HOSTS[heard.station]
        if frame.kind == CHATTER:
            home = BY_MAC.get(frame.eth_src)
            is_at_home = home is not None and home.bridge == here.bridge and not here.vlan
            is_tagged_rightly = (frame.vlan is not None) == bool(home and home.vlan)
            also = abs(self._chatter.get((heard.station, heard.raw), 0.0) - heard.when) < CHATTER_S
            # While a port's settings change, its own bridge's cached flows may still tag as before; no other bridge may hear it.
            is_changing = home is not None and home.bridge == here.bridge and self._is_excused(here.bridge, None, heard.when)
            return "" if (is_at_home and is_tagged_rightly) or also or is_changing else "a broadcast has left its segment"
        sent = self._sent.get(mark_of(heard.raw) or 0)
        if sent is None:
            return self._unmarked(heard)
        if (heard.station, comparable(heard.raw)) in sent.heard[ROUTED]:
            return ""
        if sent.probe.vlan == NOBODYS_VLAN and here.bridge == HOSTS[sent.probe.sender].bridge:
            return ""  # where the adversary says NORMAL, the sender's own bridge floods it; no other bridge may
        on_the_way = bool({heard.raw, _out_of_its_vlan(heard.raw)} & set(self._frames(sent, here.bridge)))
        if frame.eth_dst == here.mac:
            is_answer = sent.probe.sender == heard.station and is_icmp(heard.raw)
            return "" if on_the_way or is_answer else "no router would have sent this"
        if self._is_excused(here.bridge, frame.eth_dst, heard.when) and (on_the_way or is_icmp(heard.raw)):
            return ""
        return "overheard" if on_the_way else "overheard, and no router would have sent this"

    def _unmarked(self, heard: Heard) -> str:
        frame, here = parse(heard.raw), HOSTS[heard.station]
        home = BY_MAC.get(frame.eth_src)
        if frame.raw[:5] == _BETWEEN_BRIDGES:
            return ""
        if frame.is_multicast:
            ok = home is not None and home.bridge == here.bridge and not here.vlan
            return "" if ok else "a multicast has left its segment"
        return "" if frame.eth_dst == here.mac else "overheard, unmarked"

    def _frames(self, sent: Sent, bridge: str) -> Iterator[bytes]:
        """All that the routers of that time put on a bridge for a packet."""
        for outcome in self.outcomes(sent):
            for at, raw in outcome.frames:
                if at == bridge:
                    yield raw
                    if sent.probe.vlan == 0:
                        yield raw[:12] + raw[16:]  # a bridge may leave a mere priority out

    def outcomes(self, sent: Sent) -> Iterator[Outcome]:
        """By the tables that it may have met."""
        ends = [when for when, _ in self._eras[1:]] + [float("inf")]
        for (begins, tables), end in zip(self._eras, ends, strict=True):
            if begins < sent.when + SOON_S and end > sent.when - OVERLAP_S:
                yield walk(tables, sent.probe)

    def _is_excused(self, bridge: str, eth_dst: str | None, when: float) -> bool:
        return any(bridge in e.bridges and e.eth_dst in (None, eth_dst) and e.begins <= when <= e.ends for e in self._excused)


def _out_of_its_vlan(raw: bytes) -> bytes:
    """As a router's frame was before it came in at an access port; one in nobody's VLAN stays what it is."""
    frame = parse(raw)
    return raw if frame.vlan in (None, NOBODYS_VLAN) else raw[:12] + raw[16:]


def describe(raw: bytes) -> str:
    """A frame for people."""
    frame = parse(raw)

    def name(mac: str) -> str:
        return BY_MAC[mac].name if mac in BY_MAC else mac

    tag = "" if frame.vlan is None else f" vlan {frame.vlan}"
    ttl = {0x0800: raw[22], 0x86DD: raw[21]}.get(frame.kind, 0) if frame.vlan is None and len(raw) > 22 else 0
    return f"{name(frame.eth_src)} > {name(frame.eth_dst)}{tag} 0x{frame.kind:04x} to {frame.dst} ttl {ttl}, {len(raw)} bytes"
