"""Faults that were found in the data plane, with real packets: what must not arrive, and what must."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from packets import (
    Listener,
    RawListener,
    ethernet,
    forwarded,
    ipv4_packet,
    send_frames,
    send_udp,
    stream,
    udp,
)

from topologies.lab import Lab
from topologies.plan import RoutedTopo
from topologies.topos import Chain

StartLab = Callable[[RoutedTopo], Lab]
BROADCAST = "ff:ff:ff:ff:ff:ff"
LOCAL_EXPERIMENT = 0x88B5
"""An EtherType for experiments (IEEE 802), that no station answers."""


class Neighbours(Chain):
    """A chain with a second host on the bridge of either end.

    ::

        A --- [b0] --- r1 --- [b1] --- r2 --- [b2] --- B
        C ------+                               +----- D
    """

    def build(self) -> None:
        super().build(n=2)
        self.host("c", "b0", 0, number=20)
        self.host("d", "b2", 2, number=20)


@pytest.fixture(scope="module")
def lab(start_lab: StartLab) -> Lab:
    lab = start_lab(Neighbours())
    lab.delegate()
    return lab


def mac(lab: Lab, station: str, number: int = 0) -> str:
    return lab.topo.stations[station].ports[number].mac


@contextmanager
def sending(what: Callable[[], None], pause_s: float) -> Iterator[None]:
    """Again and again, beside the block."""
    stopping = threading.Event()

    def run() -> None:
        while not stopping.wait(pause_s):
            what()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def overheard(lab: Lab, listener: Listener) -> int:
    """Packets from A to B that somebody else got."""
    return len([f for f in listener.frames() if (f.src, f.dst) == (lab.address("a"), lab.address("b"))])


@contextmanager
def bypassed_past_c(lab: Lab) -> Iterator[None]:
    """While the block runs, A sends to B: everything arrives, by the bypass, and C overhears nothing."""
    before = forwarded(lab, "r1")
    with Listener(lab["c"]) as at_c:
        with stream(lab, "a", "b", rate_pps=200) as sent:
            yield
        assert overheard(lab, at_c) == 0
    assert sent.lost == []
    assert forwarded(lab, "r1") == before, "they were not bypassed"


# A1


def test_fault_A1_who_spoofs_a_neighbour_overhears_nothing(lab: Lab) -> None:
    """C sends as many frames with A's MAC as A itself. A copy of nearly every packet of A's went to C."""
    spoofed = ethernet(mac(lab, "r1"), mac(lab, "a"), b"", LOCAL_EXPERIMENT)
    with bypassed_past_c(lab), sending(lambda: send_frames(lab["c"], spoofed), 0.005):
        time.sleep(2)


def test_fault_A1_when_the_bridge_forgets_nobody_overhears(lab: Lab) -> None:
    """Packets were flooded until the sender was learned again."""
    bridge = lab.bridge("b0")
    with bypassed_past_c(lab), sending(lambda: lab.ovs.appctl("fdb/flush", bridge) and None, 0.02):
        time.sleep(1.5)


def test_fault_A1_where_the_bridge_does_not_learn_nobody_overhears(lab: Lab) -> None:
    """flood_vlans=0: the bridge floods everything of VLAN 0 and learns nothing there."""
    bridge = lab.bridge("b0")
    lab.ovs.vsctl("set", "bridge", bridge, "flood_vlans=0")
    try:
        with bypassed_past_c(lab):
            time.sleep(1)
    finally:
        lab.ovs.vsctl("clear", "bridge", bridge, "flood_vlans")


def test_fault_A1_a_static_entry_elsewhere_draws_no_copies(lab: Lab) -> None:
    """An entry made by hand says that A is where C is."""
    bridge = lab.bridge("b0")
    lab.ovs.appctl("fdb/add", bridge, lab.port("c"), "0", mac(lab, "a"))
    try:
        with bypassed_past_c(lab):
            time.sleep(1)
    finally:
        lab.ovs.appctl("fdb/del", bridge, "0", mac(lab, "a"))


def test_fault_A1_the_slow_path_to_a_router_is_never_flooded(lab: Lab) -> None:
    """A packet that the router has to answer goes to the router alone, also when the bridge has forgotten it."""
    lab.ovs.appctl("fdb/flush", lab.bridge("b0"))
    with Listener(lab["c"]) as at_c:
        send_udp(lab["a"], lab.address("b"), b"x", ttl=1)
        assert overheard(lab, at_c) == 0


def test_fault_A1_a_host_that_moves_takes_its_packets_along(lab: Lab) -> None:
    """One frame from its new place is enough, as for any bridge: here from C's port."""
    hello = ethernet(BROADCAST, mac(lab, "a"), b"", LOCAL_EXPERIMENT)
    sources = {"a": 1, "c": 0}
    try:
        for place in ("c", "a"):
            send_frames(lab[place], hello)
            with Listener(lab["c"]) as at_c:
                send_udp(lab["b"], lab.address("a"), b"where are you?")
                found = [f for f in at_c.frames() if f.dst == lab.address("a")]
            assert len(found) == 1 - sources[place]
    finally:
        send_frames(lab["a"], hello)


# D1


@contextmanager
def foreign_rules(lab: Lab, rule: str | None) -> Iterator[None]:
    """Somebody else's rule on all bridges."""
    bridges = [lab.bridge(name) for name in lab.topo.managed] if rule else []
    for bridge in bridges:
        lab.ovs.ofctl("add-flow", bridge, f"cookie=0xf,{rule}")
    try:
        yield
    finally:
        for bridge in bridges:
            lab.ovs.ofctl("del-flows", bridge, "cookie=0xf/-1")


@pytest.mark.parametrize("rule", [None, "priority=100,actions=NORMAL"], ids=["alone", "beside foreign rules"])
def test_fault_D1_no_frame_of_a_guest_crosses_into_another_segment(lab: Lab, rule: str | None) -> None:
    """VLAN 4095 is the tag of the patch ports: such frames were flooded into them, and delivered on the last bridge
    where they bore the MAC of a router there."""
    marker = b"a forged ARP reply" * 3
    frames = [
        ethernet(eth_dst, eth_src, marker, 0x0806, vid)
        for vid in (4095, 0xFFFF)
        for eth_dst in (BROADCAST, mac(lab, "b"), mac(lab, "r2", 1))
        for eth_src in (mac(lab, "r2", 1), mac(lab, "r1", 1), mac(lab, "c"))
    ]
    with foreign_rules(lab, rule), RawListener(lab["b"]) as at_b, RawListener(lab["d"]) as at_d, RawListener(lab["a"]) as at_a:
        time.sleep(0.2)
        send_frames(lab["c"], *frames)
        assert [f for listener in (at_b, at_d) for f in listener.raw() if marker in f] == []
        if rule is None:
            assert [f for f in at_a.raw() if marker in f] == [], "nobody is in the reserved VLAN"


def test_fault_D1_other_vlans_are_bridged_as_ever(lab: Lab) -> None:
    with RawListener(lab["a"]) as at_a:
        send_frames(lab["c"], ethernet(BROADCAST, mac(lab, "c"), b"vlan 7" * 9, LOCAL_EXPERIMENT, 7))
        assert any(b"vlan 7" in f for f in at_a.raw())


# A13, A14


def fragments_of(lab: Lab, payload: bytes) -> list[bytes]:
    """A's datagram to B in three fragments of 1024, 1024 and the rest."""
    datagram = udp(payload)
    pieces = [datagram[at : at + 1024] for at in range(0, len(datagram), 1024)]
    return [
        ethernet(mac(lab, "r1"), mac(lab, "a"), ipv4_packet(
            lab.address("a"), lab.address("b"), piece,
            fragment=(0x2000 if n < len(pieces) - 1 else 0) | n * 128, ident=77,
        ))
        for n, piece in enumerate(pieces)
    ]  # fmt: skip


def test_fault_A13_fragments_of_a_connection_go_to_its_router(lab: Lab) -> None:
    """r1 drops one connection from A to B. Fragments, which do not show whose they are, were forwarded past it."""
    flows = lab.topo.flows(lab.topo.stations["r1"])
    connection = {"ipv4_src": lab.address("a"), "ipv4_dst": lab.address("b"), "ip_proto": 17, "udp_src": 5, "udp_dst": 6}
    try:
        lab.put("r1", [*flows, {"match": {"in": "eth0", **connection}, "action": "drop"}])
        before = forwarded(lab, "r1"), forwarded(lab, "r2")
        send_frames(lab["a"], *fragments_of(lab, b"f" * 3000))
        time.sleep(0.3)
        assert (forwarded(lab, "r1") - before[0], forwarded(lab, "r2") - before[1]) == (3, 0)
    finally:
        lab.put("r1", flows)
    before = forwarded(lab, "r1"), forwarded(lab, "r2")
    send_frames(lab["a"], *fragments_of(lab, b"f" * 3000))
    time.sleep(0.3)
    assert (forwarded(lab, "r1"), forwarded(lab, "r2")) == before, "no connection left, and not bypassed"


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("router", ["r1", "r2"])
def test_fault_A14_what_claims_to_be_from_a_router_arrives_nowhere(lab: Lab, router: str, number: int) -> None:
    """A router drops packets from its own addresses (martian source); they were bypassed."""
    sources = (lab.address(router, number=number), lab.address("a"))
    packets = [ipv4_packet(source, lab.address("b"), udp(b"from a router")) for source in sources]
    with Listener(lab["b"]) as at_b:
        send_frames(lab["a"], *[ethernet(mac(lab, "r1"), mac(lab, "a"), packet) for packet in packets] * 3)
        assert [f.src for f in at_b.frames() if f.payload.endswith(b"from a router")] == [sources[1]] * 3
