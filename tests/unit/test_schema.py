"""Packets, rules, strict JSON: the rest of the JSON <-> model code."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsctl.errors import InvalidError, MalformedError, TooLargeError
from fsctl.model.addresses import Prefix, parse_mac
from fsctl.model.packet import Packet
from fsctl.openflow.rules import (  # fmt: skip
    Action,
    CheckLarger,
    DecTtl,
    Field,
    GotoTable,
    Learn,
    Normal,
    Output,
    Resubmit,
    RuleKey,
    SetField,
    match_of,
)
from fsctl.schema.packets import packet_json, read_packet
from fsctl.schema.pieces import AT_ONCE, loads_pieces
from fsctl.schema.rules import actions_json, actions_text, rule_text
from fsctl.schema.rules import match_json as rule_match_json
from fsctl.schema.text import MAX_SHOWN, loads, shown
from fsctl.status import BridgeStatus

BRIDGE = BridgeStatus("br-a", True, True, ports=("vif1.0", "vifA"), ofports={"vif1.0": 1, "vifA": 2})
MAC = "02:00:00:00:01:01"
ASKED: dict[str, Any] = {"bridge": "br-a", "in_port": "vifA", "eth_dst": MAC, "ipv4_dst": "10.0.2.5"}


def test_a_packet_with_nothing_but_its_destination() -> None:
    packet = read_packet(ASKED, [BRIDGE])
    assert packet == Packet(
        "br-a", 2, parse_mac("02:66:73:63:74:6c"), parse_mac(MAC), 4,
        src=Prefix.parse("192.0.2.1").value, dst=Prefix.parse("10.0.2.5").value, ttl=64, length=84,
    )  # fmt: skip


def test_a_packet_with_everything() -> None:
    asked = {
        "bridge": "br-a", "in_port": 2, "eth_src": "02:00:00:00:00:0a", "eth_dst": "ff:ff:ff:ff:ff:ff", "ipv6_src": "fd00::1",
        "ipv6_dst": "fd00::2", "ttl": 1, "length": 1280, "ip_proto": 58, "icmpv6_type": 135, "fragment": True, "vlan": True,
    }  # fmt: skip
    packet = read_packet(asked, [BRIDGE])
    assert (packet.in_port, packet.version, packet.eth_dst, packet.icmpv6_type) == (2, 6, (1 << 48) - 1, 135)
    assert packet_json(packet) == asked


def test_ports_imply_the_protocol() -> None:
    packet = read_packet(ASKED | {"tcp_dst": 80}, [BRIDGE])
    assert (packet.ip_proto, packet.sport, packet.dport) == (6, 0, 80)


@given(
    st.builds(
        Packet,
        bridge=st.just("br-a"),
        in_port=st.sampled_from((1, 2)),
        eth_src=st.integers(0, (1 << 48) - 1),
        eth_dst=st.integers(0, (1 << 48) - 1),
        version=st.just(6),
        src=st.integers(0, (1 << 128) - 1),
        dst=st.integers(0, (1 << 128) - 1),
        ttl=st.integers(0, 255),
        length=st.integers(40, 65575),
        ip_proto=st.sampled_from((6, 17)),
        sport=st.integers(0, 65535),
        dport=st.integers(0, 65535),
        fragment=st.booleans(),
        vlan=st.booleans(),
    )
)
def test_packets_come_back(packet: Packet) -> None:
    assert read_packet(json.loads(json.dumps(packet_json(packet, BRIDGE))), [BRIDGE]) == packet


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"bridge": "br-z"}, "bridge", "br-a"),
        ({"bridge": ["br-a"]}, "bridge", "br-a"),
        ({"in_port": "vifZ"}, "in_port", "vif1.0: 1, vifA: 2"),
        ({"in_port": 4711}, "in_port", "vif1.0: 1, vifA: 2"),  # E14: answered
        ({"in_port": 0}, "in_port", "whole number"),
        ({"in_port": 0xFFFFFFFE}, "in_port", "whole number"),
        ({"eth_dst": "02:00"}, "eth_dst", "MAC address"),
        ({"eth_src": 5}, "eth_src", "MAC address"),
        ({"ipv6_dst": "fd00::1"}, "ipv4_dst", "either"),
        ({"ipv6_src": "fd00::1"}, "ipv6_src", "expected ipv4_src"),
        ({"ipv4_dst": "10.0.0.0/8"}, "ipv4_dst", "one address"),
        ({"ttl": 256}, "ttl", "from 0 to 255"),
        ({"length": 19}, "length", "from 20"),
        ({"ip_proto": 1, "tcp_src": 5}, "tcp_src", "ip_proto 1"),
        ({"tcp_src": 5, "udp_dst": 5}, "udp_dst", "ip_proto 6"),
        ({"fragment": 1}, "fragment", "true or false"),
        ({"tll": 5}, "tll", "did you mean ttl"),
    ],
)
def test_packets_that_cannot_be(changes: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InvalidError, match=words) as caught:
        read_packet(ASKED | changes, [BRIDGE])
    assert caught.value.field == field


ACTIONS: list[tuple[Action, Any, str]] = [
    (DecTtl(2), {"dec_ttl": 2}, "dec_ttl,dec_ttl"),
    (SetField("eth_src", parse_mac(MAC)), {"set_field": {"eth_src": MAC}}, f"set_field:{MAC}->eth_src"),
    (SetField("reg1", 5), {"set_field": {"reg1": 5}}, "set_field:0x5->reg1"),
    (SetField("in_port", 5), {"set_field": {"in_port": 5}}, "set_field:5->in_port"),
    (Output(7), {"output": 7}, "output:7"),
    (Normal(), {"output": "NORMAL"}, "NORMAL"),
    (SetField("pkt_mark", 5), {"set_field": {"pkt_mark": 5}}, "set_field:0x5->pkt_mark"),
    (
        Learn(1, 300, 256),
        {"learn": {"hard_timeout": 300, "limit": 256}},
        "learn(hard_timeout=300,limit=256,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[])",
    ),
    (CheckLarger(1514), {"check_pkt_larger": 1514}, "check_pkt_larger(1514)->NXM_NX_REG0[0]"),
    (Resubmit(3), {"resubmit": 3}, "resubmit(,3)"),
    (GotoTable(1), {"goto_table": 1}, "goto_table:1"),
]


@pytest.mark.parametrize(("action", "as_json", "as_text"), ACTIONS, ids=[type(a[0]).__name__ for a in ACTIONS])
def test_actions(action: Action, as_json: Any, as_text: str) -> None:
    assert actions_json([action]) == [as_json]
    assert actions_text([action]) == as_text


def test_every_action_has_a_text() -> None:
    assert {type(a[0]) for a in ACTIONS} == set(Action.__args__)


def test_rules_as_ovs_ofctl_writes_them() -> None:
    v6 = Prefix.parse("fd00:1::/64")
    fields = match_of(
        Field("eth_dst", parse_mac(MAC)), Field("eth_type", 0x86DD), Field("ipv6_dst", v6.value, ((1 << 64) - 1) << 64),
        Field("nw_frag", 0), Field("reg0", 1, 1), Field("in_port", 3),
    )  # fmt: skip
    key = RuleKey(1, 1128, fields)
    text = f"in_port=3,dl_dst={MAC},dl_type=0x86dd,ipv6_dst=fd00:1::/64,nw_frag=0,reg0=0x1/0x1"
    assert rule_text(key, ()) == f"table=1,priority=1128,{text} actions=drop"
    assert rule_match_json(key)["ipv6_dst"] == "fd00:1::/64"


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"a":1,"a":1}', b"[NaN]", b"\xff", b"[" * 100_000, b"1" * 5_000, b"\xef\xbb\xbf{}", b"{}{}"]
)
def test_strict_json(body: bytes) -> None:
    with pytest.raises(MalformedError):
        loads(body)


def test_repeated_keys_are_named() -> None:
    with pytest.raises(MalformedError) as caught:
        loads(b'{"flows": [{"match": {"in": "eth0", "x": 1, "in": "eth1"}}]}')
    assert (caught.value.field, caught.value.value) == ("in", ["eth0", "eth1"])


@given(st.recursive(st.floats() | st.text() | st.none(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_shown_values_are_short_json(value: Any) -> None:
    assert len(json.dumps(shown(value), allow_nan=False)) <= 12 * MAX_SHOWN


def test_a_long_body_lets_others_run() -> None:
    paused: list[bool] = []
    body = b'{"flows": [' + b"{}, " * 20_000 + b'{"a": [{"b": 1}]}]}'
    assert loads_pieces(body, {"flows": 30_000}, lambda: paused.append(True)) == loads(body)
    assert 20 <= len(paused) <= 50


LONG = b" " * AT_ONCE
PIECES: dict[str, tuple[bytes, str]] = {
    "an element that is too long": (b'{"flows": [{"a": "' + b"x" * 70_000 + b'"}]}', "longer than 4096 bytes"),
    "a number that is too long": (b'{"flows": [' + b"1" * 70_000 + b"]}", "more than 20 digits"),
    "a long text elsewhere": (b'{"other": "' + b"x" * 70_000 + b'"}', "longer than 4096 bytes"),
    "deep nesting": (b'{"flows": ' + b"[" * 70_000, "not a value"),
    "a key twice": (LONG + b'{"flows": [], "flows": []}', "twice"),
    "a key twice inside": (LONG + b'{"flows": [{"a": 1, "a": 2}]}', "twice"),
    "no comma": (LONG + b'{"flows": [1 2]}', "expected , or ]"),
    "a comma at the end": (LONG + b'{"flows": [1,]}', "not a value"),
    "the end is missing": (LONG + b'{"flows": [1', "expected , or ]"),
    "more after the end": (LONG + b'{"flows": [1]} x', "more after its end"),
    "no object": (LONG + b"[1]", "expected {"),
    "a key that is no text": (LONG + b"{1: 2}", "expected a key"),
    "not ASCII": (LONG + b'{"flows": ["\xc3\xa4"]}', "must be ASCII"),
    "an infinite number": (LONG + b'{"flows": [1e400]}', "too large a number"),
}


@pytest.mark.parametrize("name", PIECES)
def test_d8_what_is_wrong_in_a_long_body_is_told(name: str) -> None:
    body, text = PIECES[name]
    with pytest.raises(MalformedError, match=re.escape(text)):
        loads_pieces(body, {"flows": 10}, lambda: None)


def test_d8_elements_are_counted_while_they_are_read() -> None:
    body = b'{"flows": [' + b"{}," * 1_000_000
    with pytest.raises(TooLargeError):
        loads_pieces(body, {"flows": 10}, lambda: None)


def test_d8_many_keys_one_of_them_twice() -> None:
    """The time grows with the number of keys only: with its square, this would take a minute."""
    names = ",".join(f'"k{n}": 1' for n in range(200_000))
    with pytest.raises(MalformedError, match="twice"):
        loads(b"{" + names.encode() + b', "k199999": 2}')


SCALARS = st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.text(max_size=20)


@given(st.recursive(SCALARS, lambda x: st.lists(x, max_size=5)))
def test_pieces_read_what_the_whole_reader_reads(value: Any) -> None:
    body = b" " * AT_ONCE + json.dumps({"flows": [value, value], "x": value}).encode()
    assert loads_pieces(body, {"flows": 2}, lambda: None) == loads(body)
