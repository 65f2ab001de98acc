"""Who gets which reply, without a switch. With one: tests/ovs/test_southbound.py."""

from __future__ import annotations

import logging
import struct
import time
from types import SimpleNamespace
from typing import Any

import pytest
from ryu.ofproto import ofproto_parser, ofproto_v1_3, ofproto_v1_4

from fsctl.errors import UnavailableError
from fsctl.openflow import message
from fsctl.southbound.replies import Connection, bridge_name

BARRIER_REPLY, ERROR, ECHO_REPLY = 21, 1, 3


class Datapath:
    """As much of Ryu's as Connection uses."""

    def __init__(self, xid: int = 100) -> None:
        self.xid, self.state, self.address, self.ports = xid, "main", ("192.0.2.1", 1), {}
        self.ofproto: Any = ofproto_v1_4
        self.sent: list[bytes] = []
        self.alive = True

    def send(self, buf: bytes) -> bool:
        self.sent.append(buf)
        return self.alive

    def arrives(self, raw: bytes) -> Any:
        """A message comes in, the way Ryu's receive loop handles it."""
        version, kind, length, xid = ofproto_parser.header(raw)
        return ofproto_parser.msg(self, version, kind, length, xid, bytearray(raw))


def test_each_gets_the_replies_to_its_own_and_ryu_the_rest() -> None:
    datapath = Datapath()
    connection = Connection(datapath, "br-a")
    with connection.conversation(3) as one, connection.conversation() as other:
        assert (one.first, one.last, other.first, datapath.xid) == (101, 103, 104, 104)
        for xid in (104, 103):
            assert datapath.arrives(message(BARRIER_REPLY, xid)) is None
        assert one.receive(time.monotonic()) == message(BARRIER_REPLY, 103)
        assert other.receive(time.monotonic()) == message(BARRIER_REPLY, 104)
        assert datapath.arrives(message(ECHO_REPLY, 105, b"x")).data == b"x"
    assert datapath.arrives(message(BARRIER_REPLY, 104)).xid == 104


def test_xids_in_a_row_do_not_wrap() -> None:
    connection = Connection(Datapath(ofproto_v1_4.MAX_XID - 2), "br-a")
    assert connection.conversation(40_000).first == 1


def test_waiting_ends_at_the_deadline() -> None:
    connection = Connection(Datapath(), "br-a")
    with connection.conversation() as talk, pytest.raises(UnavailableError, match="no answer in time") as caught:
        talk.receive(time.monotonic() + 0.01)
    assert caught.value.value == "br-a"


def test_waiting_ends_when_the_connection_is_closed() -> None:
    connection = Connection(Datapath(), "br-a")
    with connection.conversation() as talk:
        connection.close()
        with pytest.raises(UnavailableError, match="closed"):
            talk.receive(time.monotonic() + 60)
    with pytest.raises(UnavailableError, match="not connected"):
        connection.send(b"")


def test_what_ryu_does_not_send_is_an_error() -> None:
    datapath = Datapath()
    connection = Connection(datapath, "br-a")
    datapath.alive = False
    with pytest.raises(UnavailableError, match="not connected"):
        connection.send(b"")


def test_another_version_says_what_to_do() -> None:
    datapath = Datapath()
    datapath.ofproto = ofproto_v1_3
    with pytest.raises(UnavailableError, match="protocols=OpenFlow14"):
        Connection(datapath, "br-a")


def test_an_error_nobody_waits_for_is_logged_and_ryu_gets_it(caplog: pytest.LogCaptureFixture) -> None:
    datapath = Datapath()
    Connection(datapath, "br-a")
    with caplog.at_level(logging.WARNING):
        assert datapath.arrives(message(ERROR, 7, struct.pack("!HH", 5, 1) + bytes(64))).code == 1
    assert "br-a: OFPFMFC_TABLE_FULL for xid 0x7" in caplog.text


def test_the_bridge_is_named_by_its_local_port() -> None:
    datapath = Datapath()
    with pytest.raises(UnavailableError, match="no local port"):
        bridge_name(datapath)
    datapath.ports = {ofproto_v1_4.OFPP_LOCAL: SimpleNamespace(name=b"br-a\0\0\0")}
    assert bridge_name(datapath) == "br-a"
