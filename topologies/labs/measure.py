"""What both labs measure, in one run: the routers on the path, bypassed, and plain L2 as the ceiling.

Figure 6 of the paper is TCP throughput over message sizes, figure 7 the UDP packet rate over packet sizes.
Everything is counted at the receiver. Between start and end of a measurement nobody polls: where one
processor carries all guests, asking how far it is would slow it down.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from topologies.labs.plan import DIRECT, Guest, Plan, destination, way_back
from topologies.labs.remote import LabError

TCP, UDP, RTT = "tcp", "udp", "rtt"
UNITS = {TCP: "Mbit/s", UDP: "packets/s", RTT: "ms"}
MESSAGE_BYTES = (64, 256, 1024, 4096, 16384, 65536)
FRAME_BYTES = (64, 128, 256, 512, 1024, 1500)
FRAME_OVERHEAD = 46
"""Ethernet header and FCS, IPv4 and UDP headers: a 64-byte frame carries 18 bytes."""
PORT = 9000
SLACK_S = 60.0


class Lab(Protocol):
    """A running lab."""

    plan: Plan

    def on(self, guest: Guest, command: str, timeout_s: float = 60) -> str:
        """A command's output in a guest; LabError if it fails."""
        ...

    def bypass(self, enabled: bool) -> None:
        """Let the routers delegate, or not; returns when the bridges are in step."""
        ...


@dataclass(frozen=True, slots=True)
class Spec:
    """How much to measure. `rounds`: how often everything is repeated, in turn; the median counts."""

    chains: Sequence[int] = (1, 2, 3)
    message_bytes: Sequence[int] = MESSAGE_BYTES
    frame_bytes: Sequence[int] = FRAME_BYTES
    seconds: float = 3.0
    rounds: int = 1


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement. `size` is the message or frame in bytes; `forwarded` counts packets that routers forwarded meanwhile."""

    kind: str
    chain: int
    bypass: bool
    size: int
    value: float
    forwarded: int = 0
    ttl: tuple[int, int] | None = None


@dataclass(slots=True)
class Run:
    """All samples under one setting of the host (its scheduler), and what was seen beside them."""

    setting: str
    samples: list[Sample] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def median(self, kind: str, chain: int, bypass: bool, size: int) -> float:
        """The median over the rounds; LabError where nothing was measured."""
        values = [
            s.value for s in self.samples
            if (s.kind, s.chain, s.bypass, s.size) == (kind, chain, bypass, size)
        ]  # fmt: skip
        if not values:
            raise LabError(f"no {kind} sample for chain {chain}, bypass {bypass}, size {size}")
        return statistics.median(values)

    def ratio(self, kind: str, chain: int, size: int) -> float:
        """Bypassed to routed; for round-trip times routed to bypassed, so that more is better."""
        routed, bypassed = (self.median(kind, chain, on, size) for on in (False, True))
        return routed / bypassed if kind == RTT else bypassed / routed

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Run:
        samples = [Sample(**{**s, "ttl": tuple(s["ttl"]) if s["ttl"] else None}) for s in value["samples"]]
        return cls(value["setting"], samples, value["facts"])


def _forwarded(lab: Lab, chain: int) -> int:
    """How many packets the chain's routers have forwarded so far (RFC 4293: ipForwDatagrams)."""
    total = 0
    for router in lab.plan.routers[:chain]:
        names, values = lab.on(router, "grep ^Ip: /proc/net/snmp").split("\n")[:2]
        total += int(dict(zip(names.split(), values.split(), strict=True))["ForwDatagrams"])
    return total


def tcp_mbit(lab: Lab, chain: int, size: int, seconds: float) -> float:
    """iperf3's throughput at the receiver, written in messages of `size` bytes."""
    out = lab.on(lab.plan.nodea, f"iperf3 -c {destination(chain)} -t {seconds:g} -l {size} -f k", seconds + SLACK_S)
    found = re.search(r"([\d.]+) Kbits/sec\s+receiver", out)
    if not found:
        raise LabError(f"iperf3 said: {out}")
    return float(found.group(1)) / 1000


def udp_rate(lab: Lab, chain: int, size: int, seconds: float) -> tuple[float, tuple[int, int]]:
    """Packets per second and the TTLs seen at nodeb, frames of `size` bytes sent as fast as nodea can."""
    lab.on(lab.plan.nodeb, f"(blast recv {PORT} {seconds + SLACK_S:g} > /tmp/received &)")
    payload = size - FRAME_OVERHEAD
    lab.on(lab.plan.nodea, f"blast send {destination(chain)} {PORT} {payload} {seconds:g}; sleep 2", seconds + SLACK_S)
    out = lab.on(lab.plan.nodeb, "cat /tmp/received")
    try:
        received = json.loads(out)
    except ValueError as e:
        raise LabError(f"nodeb counted nothing: {out!r}") from e
    low, high = received["ttl"]
    return received["packets"] / received["seconds"], (low, high)


def rtt_ms(lab: Lab, chain: int) -> float:
    """The median round-trip time of 20 pings: one that meets fsctl or an agent at work on the only processor says nothing."""
    return median_rtt(lab.on(lab.plan.nodea, f"ping -c 20 -i 0.1 {destination(chain)}", SLACK_S))


def median_rtt(ping: str) -> float:
    """Of what ping(8) wrote; LabError if a packet was lost."""
    found = re.findall(r"time=([\d.]+) ms", ping)
    if not found or " 0% packet loss" not in ping:
        raise LabError(f"ping said: {ping}")
    return statistics.median(map(float, found))


def _samples(lab: Lab, chain: int, bypass: bool, spec: Spec) -> Iterator[Sample]:
    lab.on(lab.plan.nodeb, way_back(chain))
    lab.on(lab.plan.nodea, f"ping -c 2 -q {destination(chain)}")  # addresses resolved, bridges have learned
    base = Sample(RTT, chain, bypass, 0, 0.0)

    def taken(measure: Callable[[], Sample]) -> Sample:
        before = _forwarded(lab, chain)
        sample = measure()
        return replace(sample, forwarded=_forwarded(lab, chain) - before)

    def udp(size: int) -> Sample:
        rate, ttl = udp_rate(lab, chain, size, spec.seconds)
        return replace(base, kind=UDP, size=size, value=rate, ttl=ttl)

    yield taken(lambda: replace(base, value=rtt_ms(lab, chain)))
    for size in spec.message_bytes:
        yield taken(lambda size=size: replace(base, kind=TCP, size=size, value=tcp_mbit(lab, chain, size, spec.seconds)))  # type: ignore[misc]
    for size in spec.frame_bytes:
        yield taken(lambda size=size: udp(size))  # type: ignore[misc]


def measure(lab: Lab, setting: str, spec: Spec, say: Callable[[str], None] = lambda _: None) -> Run:
    """Everything in `spec`: routed, bypassed and direct in turn, `rounds` times."""
    run = Run(setting)
    for number in range(spec.rounds):
        for bypass, chains in ((False, (*spec.chains, DIRECT)), (True, spec.chains)):
            lab.bypass(bypass)
            for chain in chains:
                for sample in _samples(lab, chain, bypass, spec):
                    run.samples.append(sample)
                    say(describe(sample) + f"  (round {number + 1} of {spec.rounds}, {setting})")
    return run


def describe(sample: Sample) -> str:
    """One line about a sample."""
    path = "direct" if sample.chain == DIRECT else f"{sample.chain} router(s), {'bypassed' if sample.bypass else 'routed'}"
    size = f" {sample.size} bytes" if sample.size else ""
    value = f"{sample.value:,.0f}" if sample.kind == UDP else f"{sample.value:,.2f}"
    return f"{path}: {sample.kind}{size} {value} {UNITS[sample.kind]}, {sample.forwarded} packets forwarded by routers"
