"""The strategies reach what the laws are about: a law over examples that never get there would hold of anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from fsctl.openflow.rules import FLOW_SWITCH, LEARNED, MTU, SENDERS
from fsctl.pipeline.fixed_rules import PINNED
from fsctl.specification.walk import BRIDGED, DROPPED, SLOW_PATH, Outcome, Walk, walk
from tests.properties.laws import Bench
from tests.strategies import a_case, of_seed, some_senders

CASES = 300

WALKS: dict[str, Callable[[Walk], bool]] = {
    "a chain of three": lambda w: w.end == BRIDGED and w.forwards >= 3,
    "a drop behind a hop": lambda w: w.end == DROPPED and w.final.in_port < 50,
    "a loop": lambda w: "loop" in w.reason and len(w.hops) >= 2,
    "too long": lambda w: "chain longer" in w.reason,
    "a TTL too small": lambda w: "TTL" in w.reason,
    "over an MTU": lambda w: "MTU" in w.reason,
    "a punt behind a hop": lambda w: w.end == BRIDGED and "punt" in w.reason,
    "a router's own address behind a hop": lambda w: w.end == BRIDGED and "own address" in w.reason,
    "down behind a hop": lambda w: w.end == BRIDGED and "down" in w.reason,
    "spoofed": lambda w: "another port" in w.reason,
    "a VLAN port": lambda w: "VLAN configuration" in w.reason,
    "neighbour discovery": lambda w: "neighbour" in w.reason,
    "a sender's class behind a hop": lambda w: any(h.delegation and h.delegation.match.eth_src for h in w.hops[1:]),
    "a connection behind a hop": lambda w: any(h.delegation and h.delegation.match.connection for h in w.hops[1:]),
    "IPv6 over two hops": lambda w: w.forwards >= 2 and w.final.version == 6,
    "a fragment of a delegated connection": lambda w: w.end == SLOW_PATH and "fragment" in w.reason,
    "such a fragment behind a hop": lambda w: w.end == BRIDGED and "fragment" in w.reason,
    "a router's address as source": lambda w: "address of a router" in w.reason,
    "no delegation": lambda w: w.end == SLOW_PATH and "no delegation" in w.reason,
}


def _has(outcome: Outcome, field: str, value: int | None = None) -> bool:
    return any(
        h.rule.key.table == FLOW_SWITCH and any(f.name == field and value in (None, f.value) for f in h.rule.key.match)
        for h in outcome.hits
    )


def _sent_by(outcome: Outcome, priority: int) -> bool:
    return any((h.rule.key.table, h.rule.key.priority) == (SENDERS, priority) for h in outcome.hits)


LOOKUPS: dict[str, Callable[[Outcome], bool]] = {
    "a connection's rule": lambda o: _has(o, "nw_frag", 0),
    "a fragment's rule": lambda o: _has(o, "nw_frag", 1),
    "a pinned receiver": lambda o: _sent_by(o, PINNED),
    "a learned receiver": lambda o: _sent_by(o, LEARNED),
    "a sender learned": lambda o: bool(o.learned),
    "a sender's rule": lambda o: _has(o, "eth_src"),
    "the MTU table": lambda o: any(h.rule.key.table == MTU for h in o.hits),
    "another bridge": lambda o: len({h.bridge for h in o.hits}) == 2,
    "nothing delivered": lambda o: not o.deliveries,
}


def test_every_event_is_reached() -> None:
    times = Counter[str]()
    for seed in range(CASES):
        draw = of_seed(seed)
        network, packets = a_case(draw)
        bench = Bench.of(network, some_senders(draw, network))
        for packet in packets:
            outcome = bench.program.run(packet)
            times.update(event for event, happens in LOOKUPS.items() if happens(outcome))
        for packet in packets + [p for interface in bench.busy()[:1] for p in bench.arrivals(interface)]:
            found = walk(network, packet)
            times.update(event for event, happens in WALKS.items() if happens(found))
    assert times.keys() >= WALKS.keys() | LOOKUPS.keys(), sorted((WALKS.keys() | LOOKUPS.keys()) - times.keys())
