"""What must hold while a chain is bypassed: MTU, learning, ports, checksums."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest
from packets import PORT, Listener, caught, family_of, forwarded, send_udp, stream

from tests.waiting import eventually
from topologies.lab import Lab
from topologies.plan import RoutedTopo
from topologies.topos import Chain

BOTH = pytest.mark.parametrize("version", [4, 6])
StartLab = Callable[[RoutedTopo], Lab]
MTU = 1400
AGEING_S = 15
"""The shortest mac-aging-time that Open vSwitch takes (ovs-vswitchd.conf.db(5))."""


class Listening(Chain):
    """A chain with a third port on A's bridge.

    ::

        A --- [b0] --- r1 --- [b1] --- r2 --- [b2] --- B
        C ------+
    """

    def build(self) -> None:
        super().build(n=2)
        self.host("c", "b0", 0, number=20)


# MTU


@pytest.fixture(scope="module")
def narrow(start_lab: StartLab) -> Lab:
    """The last router's egress takes 1400 bytes; all else 1500."""
    lab = start_lab(Chain(n=2, mtu=MTU))
    lab.delegate()
    return lab


@BOTH
def test_over_mtu_is_answered_by_the_router_whose_mtu_it_is(narrow: Lab, version: int) -> None:
    headers = 28 if version == 4 else 48
    r2 = narrow.address("r2", version)
    ping = f"ping -{version} -n -c 1 -W 2 -M do -s {MTU + 1 - headers} {narrow.address('b', version)}"
    answer = narrow["a"].execute("sh", "-c", f"{ping} 2>&1 || true")
    assert f"From {r2} " in answer.replace(f"{r2}:", f"{r2} ")
    assert f"mtu={MTU}" in answer.replace(" ", "").lower()


def test_over_mtu_that_may_be_fragmented_arrives_whole(narrow: Lab) -> None:
    ping = ("ping", "-n", "-c", "1", "-W", "2", "-M", "dont", "-s", "1472", narrow.address("b"))
    assert " 0% packet loss" in narrow["a"].execute(*ping)


@BOTH
def test_up_to_the_mtu_the_routers_are_bypassed(narrow: Lab, version: int) -> None:
    headers = 28 if version == 4 else 48
    before = forwarded(narrow, "r1"), forwarded(narrow, "r2")
    with Listener(narrow["b"]) as listener:
        send_udp(narrow["a"], narrow.address("b", version), b"x" * (MTU - headers))
        frame = next((f for f in listener.frames(3) if f.protocol == socket.IPPROTO_UDP), None)
    assert frame is not None
    assert (frame.ttl, frame.checksum_ok) == (62, True)
    assert (forwarded(narrow, "r1"), forwarded(narrow, "r2")) == before


# Learning


@pytest.fixture(scope="module")
def listening(start_lab: StartLab) -> Lab:
    lab = start_lab(Listening())
    for bridge in lab.topo.managed:
        lab.ovs.vsctl("set", "bridge", lab.bridge(bridge), f"other_config:mac-aging-time={AGEING_S}")
    return lab


def heard_by_c(lab: Lab) -> int:
    """How many of ten packets from B to A are flooded to C as well."""
    with Listener(lab["a"]) as at_a, Listener(lab["c"]) as at_c:
        for _ in range(10):
            send_udp(lab["b"], lab.address("a"), b"back to a")
            time.sleep(0.05)
        a_mac = lab.topo.stations["a"].ports[0].mac
        assert [f for f in at_a.frames() if f.payload.endswith(b"back to a")], "nothing came back"
        return len([f for f in at_c.frames() if f.eth_dst == a_mac])


@pytest.mark.slow
@pytest.mark.parametrize("way_back", ["routed", "bypassed"])
def test_return_traffic_to_a_bypassed_sender_never_floods(listening: Lab, way_back: str) -> None:
    """A only sends, and all that it sends is bypassed: the bridge must go on knowing where A is."""
    topo = listening.topo
    for router in topo.routers():
        flows = topo.flows(router)
        onward = [f for f in flows if f["match"]["in"] == "eth0"]
        listening.put(router.name, onward if way_back == "routed" else flows)
    bypassed = forwarded(listening, "r1")
    with stream(listening, "a", "b", rate_pps=20) as sent:
        time.sleep(AGEING_S + 4)
        assert heard_by_c(listening) == 0
    assert sent.lost == []
    assert forwarded(listening, "r1") - bypassed <= 10, "A's packets were not bypassed at all"


@pytest.mark.slow
def test_a_silent_host_is_forgotten(listening: Lab) -> None:
    """The listener would hear a flood: once A has been silent for longer than the ageing time, it does."""
    listening.withdraw()
    time.sleep(AGEING_S + 4)
    assert heard_by_c(listening) > 0


# Ports


@pytest.fixture(scope="module")
def chain(start_lab: StartLab) -> Lab:
    lab = start_lab(Chain(n=2))
    lab.delegate()
    return lab


def hops_to_b(lab: Lab) -> list[int]:
    """How many routers the rule for B at A's side stands for; empty where there is no such rule."""
    rules = lab.control.client.rules(lab.bridge("b0")) if lab.control else []
    return [len(r["chain"]) for r in rules if r["match"].get("ipv4_dst") == lab.address("b") and r["chain"]]


def test_port_down_withdraws_and_up_restores(chain: Lab) -> None:
    port = chain.port("r2", 1)
    assert hops_to_b(chain) == [2]
    chain.net.get("b2").cmd("ip link set", port, "down")
    eventually(lambda: 2 not in hops_to_b(chain), "still bypassing a port that is down")
    assert caught(chain, "a", "b") is None
    chain.net.get("b2").cmd("ip link set", port, "up")
    eventually(lambda: hops_to_b(chain) == [2])
    before = forwarded(chain, "r2")
    frame = caught(chain, "a", "b")
    assert frame is not None
    assert frame.ttl == 62
    assert forwarded(chain, "r2") == before


def test_port_removed_and_added_again(chain: Lab) -> None:
    port, bridge = chain.port("r2", 1), chain.bridge("b2")
    eventually(lambda: hops_to_b(chain) == [2])
    chain.ovs.vsctl("del-port", bridge, port)
    eventually(lambda: 2 not in hops_to_b(chain), "still bypassing a port that is gone")
    chain.ovs.vsctl("add-port", bridge, port)
    eventually(lambda: hops_to_b(chain) == [2])
    frame = caught(chain, "a", "b")
    assert (frame and frame.ttl) == 62


# Checksums


@BOTH
def test_tcp_and_udp_checksums_are_right_at_the_receiver(chain: Lab, version: int) -> None:
    """Both ways, a whole TCP connection and a UDP packet, every segment verified by hand."""
    eventually(lambda: hops_to_b(chain) == [2])
    before = forwarded(chain, "r1"), forwarded(chain, "r2")
    address, data = chain.address("b", version), bytes(range(256)) * 200
    with (
        Listener(chain["a"]) as at_a,
        Listener(chain["b"]) as at_b,
        chain["b"].open_socket(family_of(version), socket.SOCK_STREAM) as server,
        chain["a"].open_socket(family_of(version), socket.SOCK_STREAM) as client,
    ):
        server.bind((address, PORT))
        server.listen()
        client.settimeout(10)
        client.connect((address, PORT))
        peer, _ = server.accept()
        with peer:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            received = b"".join(iter(lambda: peer.recv(65536), b""))
        send_udp(chain["a"], address, b"a datagram")
        frames = [*at_b.frames(), *at_a.frames()]
    assert received == data
    checked = [f for f in frames if f.checksum_ok is not None and f.version == version]
    assert {f.protocol for f in checked} == {socket.IPPROTO_TCP, socket.IPPROTO_UDP}
    assert all(f.checksum_ok for f in checked)
    assert {f.ttl for f in checked} == {62}
    assert (forwarded(chain, "r1"), forwarded(chain, "r2")) == before
