"""The OpenFlow port bears everything that connects to it (D4, D5)."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fsctl.openflow import const as c
from fsctl.openflow.encode import message
from tests.waiting import eventually

from .host import Host

HELLO = message(c.HELLO, 1, struct.pack("!HHI", 1, 8, 1 << c.VERSION))
FEATURES_REQUEST, PORT_REQUEST = 5, c.MULTIPART_REQUEST
LOCAL = 0xFFFF_FFFE
CLOSED_S = 5.0


def port(name: str, number: int = LOCAL, properties: bytes = b"") -> bytes:
    size = 40 + len(properties)
    return struct.pack("!IH2x6s2x16sII", number, size, b"\2\0\0\0\0\1", name.encode(), 0, 0) + properties


class Fake:
    """What says that it is a switch."""

    def __init__(self, host: Host) -> None:
        self.socket = socket.create_connection(("127.0.0.1", host.control.openflow_port), timeout=CLOSED_S)

    def receive(self) -> bytes:
        header = self._exactly(8)
        (length,) = struct.unpack_from("!H", header, 2)
        return header + self._exactly(length - 8)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def become(self, bridge: str, datapath_id: int) -> None:
        """The whole handshake."""
        self.send(HELLO)
        while True:
            request = self.receive()
            xid = int.from_bytes(request[4:8], "big")
            if request[1] == FEATURES_REQUEST:
                self.send(message(c.FEATURES_REPLY, xid, struct.pack("!QIBB2xII", datapath_id, 0, 254, 0, 0, 0)))
            elif request[1] == PORT_REQUEST:
                self.send(message(c.MULTIPART_REPLY, xid, struct.pack("!HH4x", c.MP_PORT_DESC, 0) + port(bridge)))
                return

    def is_closed(self) -> bool:
        """By the other side, before the time is up."""
        try:
            while self.socket.recv(1 << 16):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True


@contextmanager
def fake(host: Host) -> Iterator[Fake]:
    made = Fake(host)
    try:
        yield made
    finally:
        made.socket.close()


HANGS = {
    "a hello with an element of length 0": message(c.HELLO, 1, struct.pack("!HHI", 1, 0, 0)),
    "a port status with a property of length 0": HELLO + message(c.PORT_STATUS, 2, bytes(8) + port("p", 1, bytes(8))),
    "a message of length 0": struct.pack("!BBHI", c.VERSION, c.ECHO_REQUEST, 0, 1),
}


@pytest.mark.parametrize("name", HANGS)
def test_d4_what_no_switch_sends_ends_its_connection_alone(host: Host, name: str) -> None:
    host.chain()
    with fake(host) as other:
        other.send(HANGS[name])
        assert other.is_closed()
    host.delegate("r1", "r2.eth0", "10.0.4.0/24")
    assert host.is_bypassed()
    assert host.is_ready()


def test_d4_thousands_of_connections_and_of_mutations_stop_nothing(host: Host) -> None:
    host.chain()
    rng = random.Random(4)
    originals = [HELLO, message(c.PORT_STATUS, 2, bytes(8) + port("p", 1)), message(c.FEATURES_REPLY, 3, bytes(24)),
                 message(c.MULTIPART_REPLY, 4, struct.pack("!HH4x", c.MP_PORT_DESC, 0) + port("b0")),
                 message(c.ERROR, 5, bytes(12)), message(c.ECHO_REQUEST, 6, b"x" * 50)]  # fmt: skip
    for n in range(600):
        with fake(host) as other:
            if n % 3 == 0:
                other.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST
                continue
            data = bytearray(b"".join([HELLO, *rng.choices(originals, k=5)]))
            for _ in range(rng.randint(1, 6)):
                data[rng.randrange(8, len(data))] = rng.choice((0, 1, 5, 8, 255))
            other.send(data)
    idle = [Fake(host) for _ in range(200)]
    host.delegate("r1", "r2.eth0", "10.0.4.0/24")
    assert host.is_ready()
    for other in idle:
        other.socket.close()


def test_d4_a_connection_that_says_nothing_is_closed(host: Host) -> None:
    with fake(host) as other:
        other.socket.settimeout(20.0)
        assert other.is_closed()


def test_d5_a_fake_switch_gets_nothing_and_takes_nothing(host: Host) -> None:
    host.chain()
    real = next(b["datapath_id"] for b in host.client.bridges() if b["name"] == "b0")
    for datapath_id in (0xBAD, int(real, 16)):
        with fake(host) as other:
            other.become("b0", datapath_id)
            begun = time.monotonic()
            received = []
            while time.monotonic() < begun + CLOSED_S:
                try:
                    received.append(other.receive()[1])
                except (EOFError, OSError):
                    break
            assert c.BUNDLE_ADD not in received
            assert c.FLOW_MOD not in received
    host.delegate("r1", "r2.eth0", "10.0.4.0/24")
    assert host.is_bypassed()
    assert [b["datapath_id"] for b in host.client.bridges() if b["name"] == "b0"] == [real]


def test_d5_a_bridge_that_gets_another_datapath_id_is_followed(host: Host) -> None:
    host.chain()
    host.ovs.ofctl("del-flows", "b0")
    host.ovs.vsctl("set", "bridge", "b0", "other-config:datapath-id=00000000000000aa")
    eventually(lambda: any(b["datapath_id"] == "00000000000000aa" for b in host.client.bridges()), within_s=20.0)
    eventually(lambda: host.is_ready() and host.is_bypassed(), within_s=20.0)
