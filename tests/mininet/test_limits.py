"""What the bypass does differently from the routers: exactly what docs/limits.md says."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from odd_frames import OddFrames, marker
from packets import PORT, Listener, RawListener, send_frames, send_udp

from fsctl.openflow.rules import LEARNED_COOKIE, LEARNED_MASK
from tests.waiting import eventually
from topologies.lab import Lab
from topologies.plan import RoutedTopo
from topologies.topos import Chain

PAGE = Path(__file__).resolve().parents[2] / "docs" / "limits.md"
DIFFERENT = {
    "IPv4 header checksum", "IPv4 version 5", "IPv4 version 6", "IPv4 trailing bytes", "IPv4 option: record route",
    "IPv4 option: timestamp", "IPv4 option: loose source route", "IPv4 option: strict source route",
    "IPv4 option: security (CIPSO)", "IPv4 option: broken option", "LLC/SNAP", "IPv6 version 4", "IPv6 trailing bytes",
    "IPv6 hop-by-hop option: unknown, drop", "IPv6 hop-by-hop option: unknown, answer",
}  # fmt: skip
"""Nothing of this can be seen by OpenFlow."""


class Overheard(Chain):
    """A chain with a second host beside B.

    ::

        A --- [b0] --- r1 --- [b1] --- r2 --- [b2] --- B
                                                +----- D
    """

    def build(self) -> None:
        super().build(n=2)
        self.host("d", "b2", 2, number=20)


@pytest.fixture(scope="module")
def lab(start_lab: Callable[[RoutedTopo], Lab]) -> Lab:
    return start_lab(Overheard())


def received(lab: Lab, frames: dict[str, bytes]) -> dict[str, list[bytes]]:
    """What B gets of each."""
    with RawListener(lab["b"]) as at_b:
        for frame in frames.values():
            send_frames(lab["a"], frame)
        found = at_b.raw(1)
    return {name: [f for f in found if marker(name) in f] for name in frames}


def test_fault_A20_what_openflow_can_see_is_left_to_the_routers(lab: Lab) -> None:
    frames = OddFrames(lab).frames
    routed = received(lab, frames)
    lab.delegate()
    bypassed = received(lab, frames)
    assert routed["nothing odd"], "the routers forward nothing"
    assert {name for name in frames if routed[name] != bypassed[name]} == DIFFERENT


def test_fault_A20_the_rest_stands_in_the_page() -> None:
    page = PAGE.read_text()
    assert [name for name in sorted(DIFFERENT) if f"`{name}`" not in page] == []


@pytest.mark.parametrize("pinned", [False, True], ids=["unknown", "attached-mac"])
def test_fault_A16_a_host_that_never_sends_is_found_where_ovsdb_knows_its_port(lab: Lab, pinned: bool) -> None:
    """B only receives, and its bridge has forgotten it. Without an agent nothing makes B speak."""
    lab.delegate()
    port, bridge = lab.port("b"), lab.bridge("b2")
    mac = lab.topo.stations["b"].ports[0].mac
    if pinned:
        lab.ovs.vsctl("set", "interface", port, f'external_ids:attached-mac="{mac}"')
        eventually(lambda: f"priority=20,dl_dst={mac}" in lab.ovs.ofctl("dump-flows", bridge, "table=7"))
    try:
        lab.ovs.ofctl("del-flows", bridge, f"cookie={LEARNED_COOKIE:#x}/{LEARNED_MASK:#x},table=7")
        lab.ovs.appctl("fdb/flush", bridge)
        # A socket that takes the packets: an answer that nobody listens would be a frame of B's.
        with (
            Listener(lab["d"]) as at_d,
            Listener(lab["b"]) as at_b,
            lab["b"].open_socket(socket.AF_INET, socket.SOCK_DGRAM) as sink,
        ):
            sink.bind((lab.address("b"), PORT))
            for _ in range(10):
                send_udp(lab["a"], lab.address("b"), b"one way")
            assert len([f for f in at_b.frames() if f.payload.endswith(b"one way")]) == 10
            overheard = [f for f in at_d.frames() if f.payload.endswith(b"one way")]
        assert len(overheard) == (0 if pinned else 10)
    finally:
        lab.ovs.vsctl("remove", "interface", port, "external_ids", "attached-mac")
