"""netlink bytes: what is truncated or strange is no event and no crash; what we write, the reader reads."""

from __future__ import annotations

import struct
import subprocess
import sys
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from fsctl.agent import codec
from fsctl.agent.events import Event, Host, Leg, Nexthop
from fsctl.agent.facts import read_chain
from fsctl.agent.follow import RESYNC_EVERY_SECONDS, RESYNC_PAUSE_SECONDS
from fsctl.agent.safety import Chain

from .kernel import ETH1, neigh, route

attribute, u32 = codec.attribute, struct.Struct("=I").pack


def told(kind: int, body: bytes, flags: int = 0) -> list[Event | None]:
    return [codec.event(m) for m in codec.messages(codec.request(kind, flags, 7, body))]


def rtmsg(
    dst_len: int, family: int = 2, src_len: int = 0, tos: int = 0, table: int = 254, kind: int = 1, flags: int = 0
) -> bytes:
    return struct.pack("=BBBBBBBBI", family, dst_len, src_len, tos, table, 0, 0, kind, flags)


TO = attribute(1, bytes([10, 9, 0, 0]))
VIA = attribute(4, u32(ETH1)) + attribute(5, bytes([10, 0, 1, 9]))


def test_route_and_its_removal_and_replacement() -> None:
    expected = route("10.9.0.0/16", Leg(ETH1, Host(4, 0x0A000109)), metric=5)
    body = rtmsg(16) + TO + VIA + attribute(6, u32(5))
    assert told(codec.RTM_NEWROUTE, body) == [Event(expected)]
    assert told(codec.RTM_NEWROUTE, body, codec.NLM_F_REPLACE) == [Event(expected, replace=True)]
    assert told(codec.RTM_DELROUTE, body) == [Event(expected, gone=True)]


def test_multipath_and_flags_of_legs() -> None:
    def hop(index: int, last: int, flags: int = 0) -> bytes:
        inner = attribute(5, bytes([10, 0, 1, last]))
        return struct.pack("=HBBi", 8 + len(inner), flags, 0, index) + inner

    body = rtmsg(16) + TO + attribute(9, hop(3, 8) + hop(4, 9, codec.RTNH_F_DEAD))
    legs = Leg(3, Host(4, 0x0A000108)), Leg(4, Host(4, 0x0A000109), dead=True)
    assert told(codec.RTM_NEWROUTE, body) == [Event(route("10.9.0.0/16", *legs))]


def test_what_makes_a_route_special() -> None:
    def only(body: bytes) -> codec.Route:
        (event,) = told(codec.RTM_NEWROUTE, body)
        assert event is not None
        assert isinstance(event.value, codec.Route)
        return event.value

    assert only(rtmsg(16, src_len=8) + TO + VIA).special == "from"
    assert only(rtmsg(16) + TO + VIA + attribute(11, u32(3))).special == "realm"
    assert only(rtmsg(16) + TO + VIA + attribute(21, b"\1\0") + attribute(22, b"")).legs[0].encap
    assert only(rtmsg(16) + TO + VIA + attribute(8, attribute(2, u32(1400)))).mtu == 1400
    assert only(rtmsg(16) + TO + VIA + attribute(30, u32(9))).nhid == 9
    assert only(rtmsg(16) + TO + VIA + attribute(15, u32(1000))).table == 1000
    for seconds, soon in ((0, False), (-1, True), (10, True), (codec.EXPIRES_SOON_SECONDS, False), (1800, False)):
        lifetime = attribute(12, struct.pack("=8i", 0, 0, seconds * codec.USER_HZ, *[0] * 5))
        assert only(rtmsg(16) + TO + VIA + lifetime).expiring is soon
    assert told(codec.RTM_NEWROUTE, rtmsg(16, flags=codec.RTM_F_CLONED) + TO + VIA) == [None], "a cached route"


def test_next_hop_group() -> None:
    body = (
        struct.pack("=BBBBI", 0, 0, 0, 0, 0)
        + attribute(1, u32(3))
        + attribute(2, struct.pack("=IBBHIBBH", 1, 0, 0, 0, 2, 0, 0, 0))
    )
    assert told(codec.RTM_NEWNEXTHOP, body) == [Event(Nexthop(3, group=(1, 2)))]


def test_a_managed_neighbour() -> None:
    """NDA_FLAGS_EXT with NTF_EXT_MANAGED: the kernel keeps it alive for somebody."""
    there = neigh(ETH1, "fd01::9")
    body = struct.pack("=BxxxiHBB", 10, ETH1, 2, 0, 0) + attribute(1, there.value.to_bytes(16, "big")) + attribute(15, u32(1))
    assert told(codec.RTM_NEWNEIGH, body) == [Event(replace(there, mac=None, managed=True))]


def test_a_netdev_chain() -> None:
    hook = attribute(1, bytes(4)) + attribute(3, b"eth0\0")
    body = bytes([5, 0, 0, 0]) + attribute(1, b"t\0") + attribute(3, b"c\0") + attribute(4, hook) + attribute(5, bytes(4))
    expected = Chain((), "nftables t c", "ingress", drops=True, devices=("eth0",))
    assert read_chain(memoryview(body)) == expected


def test_a_netdev_chain_for_a_pattern_of_names() -> None:
    """Both ways to say it: a name without its zero (Linux 6.16), and an attribute of its own."""
    devices = attribute(1, b"eth0\0") + attribute(1, b"ens") + attribute(2, b"vif\0")
    hook = attribute(1, bytes(4)) + attribute(4, devices)
    chain = read_chain(memoryview(bytes([5, 0, 0, 0]) + attribute(1, b"t\0") + attribute(3, b"c\0") + attribute(4, hook)))
    assert chain is not None
    assert chain.devices == ("eth0", "ens*", "vif*")


def test_a_dump_comes_before_a_route_that_does_not_expire_soon_is_over() -> None:
    assert codec.EXPIRES_SOON_SECONDS > RESYNC_EVERY_SECONDS + RESYNC_PAUSE_SECONDS


@given(st.binary(max_size=200))
def test_no_bytes_make_messages_run_away(data: bytes) -> None:
    assert sum(codec.HEADER.size + len(m.payload) for m in codec.messages(data)) <= len(data)
    assert sum(4 + len(v) for v in codec.attributes(memoryview(data), 0).values()) <= len(data)


def test_the_agent_loads_nothing_that_a_guest_does_not_have() -> None:
    code = "import sys, fsctl.agent.__main__; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"ryu", "eventlet", "ovs", "falcon", "yaml", "rich", "pyroute2", "sqlite3"} & set(loaded)
