"""The host's own address on a bridge (its LOCAL port) as a sender and receiver of bypassed packets."""

from __future__ import annotations

import os
import random
import shutil
import socket
import time
from functools import partial
from pathlib import Path

import pytest

from tests.agent.netns import inside
from tests.soak.harness import Soak
from tests.soak.judge import BYPASSED, ROUTED, Sent
from tests.soak.plan import HOSTS, ROUTERS, port_on
from tests.soak.wire import Probe
from tests.soak.world import SWITCH_NS, World
from tests.waiting import waited_for
from topologies.sandbox import available

DOM0, DOM0_MAC = "10.0.1.99", "02:00:00:00:00:63"
PORTS = (7000, 7001)
ARRIVAL_S = 3.0

pytestmark = [
    pytest.mark.ovs,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces"),
    pytest.mark.skipif(not available() or shutil.which("ethtool") is None, reason="Open vSwitch or ethtool is not installed"),
]


def settle_in(world: World) -> socket.socket:
    """Give b0's own device an address, let the routers know it; a UDP socket of the host."""
    world.switch.ctl("set", "bridge", "b0", f'other_config:hwaddr="{DOM0_MAC}"')
    gateway, ns = port_on("r1", "b0"), world.ns[SWITCH_NS]
    waited_for(lambda: ns.mac("b0") == DOM0_MAC, ARRIVAL_S)
    lines = [
        f"addr add {DOM0}/24 dev b0",
        "link set dev b0 up",
        f"neigh replace {gateway.address(4)} lladdr {gateway.mac} dev b0 nud permanent",
        f"route add 10.0.3.0/24 via {gateway.address(4)} dev b0",
    ]
    world.batch(ns, lines)
    for router in ROUTERS.values():
        for port in router.ports:
            if port.bridge == "b0":
                neighbour = f"neigh replace {DOM0} lladdr {DOM0_MAC} dev {port.device} nud permanent"
                world.batch(world.ns[router.name], [neighbour])
    with inside(ns.name):
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((DOM0, PORTS[1]))
    made.settimeout(ARRIVAL_S)
    return made


def has_arrived(sent: Sent) -> bool:
    """Somewhere, in both worlds."""
    return bool(sent.heard[BYPASSED] and sent.heard[ROUTED])


def test_fault_F11_dom0s_own_bridge_address_as_host(tmp_path: Path) -> None:
    with Soak(tmp_path, random.Random(11)) as soak:
        sockets = {BYPASSED: settle_in(soak.bypassed), ROUTED: settle_in(soak.routed)}
        soak.tables_changed()
        soak.delegate()
        time.sleep(0.5)
        there, back = HOSTS["b"], port_on("r2", "b2")
        for _ in range(5):
            sent = soak.judge.sent(Probe("a", DOM0_MAC, port_on("r1", "b0").mac, DOM0, there.address(4)))
            for sock in sockets.values():
                sock.sendto(b"soak:%08x " % sent.probe.mark, (there.address(4), PORTS[1]))
            arrived = waited_for(partial(has_arrived, sent), ARRIVAL_S)
            assert arrived, sent.heard
            by_world = {w: [(station, raw[:14], raw[22]) for station, raw in sent.heard[w]] for w in (BYPASSED, ROUTED)}
            assert by_world[BYPASSED] == by_world[ROUTED]
            assert [station for station, _ in sent.heard[BYPASSED]] == ["b"]
            assert not sent.routers[BYPASSED], "bypassed"
            assert sent.routers[ROUTED] == {"r1.0", "r2.0"}
            answer = soak.judge.sent(Probe("b", there.mac, back.mac, there.address(4), DOM0))
            for world, sock in zip((soak.bypassed, soak.routed), sockets.values(), strict=True):
                world.hosts.send("b", answer.probe.frame())
                assert b"soak:%08x" % answer.probe.mark in sock.recv(2048)
            assert not answer.routers[BYPASSED], "bypassed"
            assert not answer.heard[BYPASSED], "nobody else hears it"
        time.sleep(1.0)
        # The host's kernel makes packets that the judge has not seen: he cannot know them when B gets them.
        assert [leak for leak in soak.judge.leaks() if " at b " not in leak] == []
        for sock in sockets.values():
            sock.close()
