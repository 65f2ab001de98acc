"""Packets, rules, strict JSON: the rest of the JSON <-> model code."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsctl.errors import InvalidError, MalformedError
from fsctl.model import Packet, Prefix, parse_mac
from fsctl.rules import (
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
)  # fmt: skip
from fsctl.schema.packets import packet_json, read_packet
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
        "bridge": "br-a", "in_port": 7, "eth_src": "02:00:00:00:00:0a", "eth_dst": "ff:ff:ff:ff:ff:ff", "ipv6_src": "fd00::1",
        "ipv6_dst": "fd00::2", "ttl": 1, "length": 1280, "ip_proto": 58, "icmpv6_type": 135, "fragment": True, "vlan": True,
    }  # fmt: skip
    packet = read_packet(asked, [BRIDGE])
    assert (packet.in_port, packet.version, packet.eth_dst, packet.icmpv6_type) == (7, 6, (1 << 48) - 1, 135)
    assert packet_json(packet) == asked


def test_ports_imply_the_protocol() -> None:
    packet = read_packet(ASKED | {"tcp_dst": 80}, [BRIDGE])
    assert (packet.ip_proto, packet.sport, packet.dport) == (6, 0, 80)


@given(
    st.builds(
        Packet,
        bridge=st.just("br-a"),
        in_port=st.integers(1, 0xFFFFFEFF),
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
        ({"in_port": "vifZ"}, "in_port", "vif1.0, vifA"),
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
    body = b'{"flows": [' + b"{}, " * 5000 + b'{"a": [{"b": 1}]}]}'
    assert loads(body, lambda: paused.append(True)) == loads(body)
    assert len(paused) == 5
    with pytest.raises(MalformedError, match="twice"):
        loads(b'{"a": 1, "a": 2}', lambda: None)
