"""Every shape of rule, through a real switch: the bytes that come back are those that were sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ovs_wire import Wire

from fsctl.openflow import FlowDecoder, actions, flow_mod, match, ovs_ofctl_text, requests
from fsctl.openflow.rules import (
    LINK_MARK,
    Action,
    CheckLarger,
    DecTtl,
    Field,
    GotoTable,
    Learn,
    Normal,
    Output,
    Resubmit,
    Rule,
    RuleChange,
    RuleKey,
    SetField,
    match_of,
)
from topologies.sandbox import Sandbox

pytestmark = pytest.mark.ovs

IP, IP6 = Field("eth_type", 0x0800), Field("eth_type", 0x86DD)
ETH_DST, ETH_SRC = Field("eth_dst", 0x0200_0000_0101), Field("eth_src", 0x0200_0000_0A01)
LOCAL_PORT = 0xFFFF_FFFE
V6 = 0xFD00_0001 << 96
CHAIN: tuple[Action, ...] = (DecTtl(3), SetField("eth_src", 0x0200_0000_0102), SetField("eth_dst", 0x0200_0000_0B01),
                             SetField("pkt_mark", LINK_MARK), Output(3))  # fmt: skip
CHECK: tuple[Action, ...] = (CheckLarger(1414), Resubmit(4))
AWAY: tuple[Action, ...] = (SetField("reg1", 0x8000_0001), GotoTable(3))


def prefix(version: int, length: int) -> tuple[Field, ...]:
    bits, value = (32, 0x0A01_0203) if version == 4 else (128, V6 + 5)
    if not length:
        return ()
    mask = ((1 << length) - 1) << (bits - length)
    return (Field(f"ipv{version}_dst", value & mask, None if length == bits else mask),)


def guard_shapes() -> Iterator[tuple[tuple[Field, ...], tuple[Action, ...]]]:
    normal: tuple[Action, ...] = (Normal(),)
    yield (), normal
    yield (Field("in_port", 3),), (GotoTable(2),)
    yield (Field("in_port", 1), ETH_SRC), (Resubmit(6), GotoTable(1))
    yield (ETH_DST, IP), (Resubmit(6), GotoTable(5))
    yield (Field("in_port", LOCAL_PORT),), normal
    yield (Field("vlan_tci", 0x1FFF),), ()
    yield (Field("vlan_tci", 0x1000, 0x1000),), normal
    yield (Field("vlan_tci", 0, 0x1000), ETH_DST), normal
    yield (Field("eth_src", 1 << 40, 1 << 40),), normal
    yield (ETH_DST, IP, Field("nw_ttl", 0)), normal
    yield (ETH_DST, IP6, Field("nw_ttl", 255)), normal
    yield (IP6, Field("ip_proto", 58), Field("icmpv6_type", 135)), normal
    yield (IP, Field("ipv4_src", 0xE000_0000, 0xF000_0000)), normal
    yield (IP6, Field("ipv6_src", 0, (1 << 128) - 2)), normal


def flow_switch_shapes() -> Iterator[tuple[tuple[Field, ...], tuple[Action, ...]]]:
    ports = {proto: (Field(f"{proto}_src", 1), Field(f"{proto}_dst", 65535)) for proto in ("tcp", "udp")}
    for who in ((ETH_DST,), (ETH_DST, ETH_SRC)):
        for length in (0, 1, 8, 24, 31, 32):
            yield (*who, IP, *prefix(4, length)), AWAY
        for length in (0, 1, 3, 64, 127, 128):
            yield (*who, IP6, *prefix(6, length)), (Normal(),)
        v4, v6 = (Field("ipv4_src", 1), Field("ipv4_dst", 2)), (Field("ipv6_src", 1), Field("ipv6_dst", V6))
        unfragmented = Field("nw_frag", 0)
        yield (*who, IP, *v4, Field("ip_proto", 6), unfragmented, *ports["tcp"]), ()
        yield (*who, IP6, *v6, Field("ip_proto", 17), unfragmented, *ports["udp"]), AWAY
        yield (*who, IP, *v4, Field("ip_proto", 17), unfragmented, *ports["udp"]), CHAIN
        for proto in (6, 17):
            yield (*who, IP, *v4, Field("ip_proto", proto), Field("nw_frag", 1, 1)), (GotoTable(5),)
            yield (*who, IP6, *v6, Field("ip_proto", proto), Field("nw_frag", 1, 1)), AWAY


def shapes() -> list[Rule]:
    rules = [Rule(RuleKey(0, 1 + n, match_of(*m)), a) for n, (m, a) in enumerate(guard_shapes())]
    rules += [Rule(RuleKey(1, 1000 + n, match_of(*m)), a) for n, (m, a) in enumerate(flow_switch_shapes())]
    delivers = (SetField("pkt_mark", 0), SetField("in_port", 2), GotoTable(5))
    rules.append(Rule(RuleKey(2, 10, (ETH_SRC, Field("pkt_mark", LINK_MARK))), delivers))
    rules.append(Rule(RuleKey(7, 20, (ETH_DST,)), (Output(2),)))
    rules.append(Rule(RuleKey(8, 20, (ETH_SRC,))))
    for port in (1, LOCAL_PORT):
        rules.append(Rule(RuleKey(8, 10, (Field("in_port", port),)), (Learn(port, 300, 256),)))
        rules.append(Rule(RuleKey(8, 30, (Field("in_port", port), ETH_SRC)), (Learn(port, 65535, 0xFFFF_FFFF),)))
    rules.append(Rule(RuleKey(5, 20, (Field("reg0", 1, 1),)), (Normal(),)))
    rules.append(Rule(RuleKey(5, 10, (IP, Field("reg1", 7))), CHAIN))
    rules.append(Rule(RuleKey(5, 10, (IP, Field("reg1", 8))), CHECK))
    rules.append(Rule(RuleKey(1, 3, (ETH_DST, IP)), (SetField("reg1", 8), GotoTable(3))))
    rules.append(Rule(RuleKey(5, 10, (IP6, Field("reg1", 0x7FFF_FFFF))), (*CHAIN[:-1], Resubmit(2))))
    return rules


def install(wire: Wire, rules: Iterable[Rule]) -> dict[int, str]:
    for rule in rules:
        wire.send(flow_mod(RuleChange(rule.key, rule.actions), next(wire.xids)))
    return wire.errors()


def parts(entry: bytes) -> tuple[int, int, bytes, bytes]:
    """(table, priority, match, instructions) of an ofp_flow_stats."""
    end = 48 + int.from_bytes(entry[50:52], "big")
    end += -end % 8
    return entry[2], int.from_bytes(entry[12:14], "big"), entry[48:end], entry[end:]


def sent(rules: Iterable[Rule]) -> set[tuple[int, int, bytes, bytes]]:
    return {(r.key.table, r.key.priority, match.encode_match(r.key.match), actions.encode_instructions(r.actions)) for r in rules}


def decoded(wire: Wire) -> dict[RuleKey, tuple[Action, ...]]:
    decoder = FlowDecoder()
    for body in wire.ask(requests.flow_stats(next(wire.xids))):
        decoder.feed(body)
    return decoder.dump.rules


def check_round_trip(wire: Wire, rules: Sequence[Rule]) -> None:
    assert {parts(entry) for entry in wire.flow_entries()} == sent(rules)
    assert decoded(wire) == {r.key: r.actions for r in rules}


def test_every_rule_comes_back_byte_for_byte(ovs: Sandbox, bridge: str) -> None:
    rules = shapes()
    with Wire(ovs.management(bridge)) as wire:
        assert install(wire, rules) == {}
        check_round_trip(wire, rules)


def test_ovs_ofctl_text_means_the_same_bytes(ovs: Sandbox, bridge: str) -> None:
    """ovs-ofctl has its own parser: if it sends what `encode` sends, both say what the text says."""
    rules = shapes()
    flows = ovs.directory / f"{bridge}.flows"
    flows.write_text("".join(ovs_ofctl_text(r) + "\n" for r in rules))
    ovs.ofctl("add-flows", bridge, str(flows))
    with Wire(ovs.management(bridge)) as wire:
        check_round_trip(wire, rules)


def test_deleting_and_modifying_is_strict_and_ours_only(ovs: Sandbox, bridge: str) -> None:
    """The same match under another cookie is neither modified nor deleted."""
    rule = Rule(RuleKey(1, 1048, (ETH_DST, IP, *prefix(4, 24))), (Normal(),))
    text = ovs_ofctl_text(rule).split(",", 1)[1]
    ovs.ofctl("add-flow", bridge, f"cookie=0x1,{text}")
    with Wire(ovs.management(bridge)) as wire:
        for change in (RuleChange(rule.key, (), False), RuleChange(rule.key, None, False)):
            wire.send(flow_mod(change, next(wire.xids)))
            assert wire.errors() == {}
            assert "cookie=0x1" in ovs.ofctl("dump-flows", bridge)
            assert "actions=NORMAL" in ovs.ofctl("dump-flows", bridge)


def test_a_rule_of_a_later_fsctl_can_be_deleted(ovs: Sandbox, bridge: str) -> None:
    """Fields and actions that this version does not know survive decoding, so that a diff removes them."""
    cookie = ovs_ofctl_text(Rule(RuleKey(0, 1, ()))).split(",")[0]
    ovs.ofctl("add-flow", bridge, f"{cookie},priority=5,metadata=0x7/0xf,reg9=4,tcp,tcp_flags=+syn,"
              "actions=push_vlan:0x8100,output:2")  # fmt: skip
    with Wire(ovs.management(bridge)) as wire:
        ((key, found),) = decoded(wire).items()
        assert found != (Output(2),)
        wire.send(flow_mod(RuleChange(key, None, False), next(wire.xids)))
        assert wire.errors() == {}
        assert decoded(wire) == {}


def _address(version: int) -> st.SearchStrategy[tuple[Field, ...]]:
    bits = 32 if version == 4 else 128

    def field(name: str, value: int, mask: int) -> Field | None:
        return None if not mask else Field(name, value & mask, None if mask == (1 << bits) - 1 else mask)

    masks = st.one_of(
        st.integers(0, bits).map(lambda n: ((1 << n) - 1) << (bits - n)),
        st.integers(0, (1 << bits) - 1),
    )
    one = st.tuples(st.sampled_from((f"ipv{version}_src", f"ipv{version}_dst")), st.integers(0, (1 << bits) - 1), masks)
    return st.lists(one, max_size=2, unique_by=lambda t: t[0]).map(lambda ts: tuple(f for t in ts if (f := field(*t))))


def _match(version: int) -> st.SearchStrategy[tuple[Field, ...]]:
    def named(name: str, bits: int) -> st.SearchStrategy[tuple[Field, ...]]:
        value = st.integers(0, (1 << bits) - 1)
        return st.one_of(st.just(()), value.map(lambda v: (Field(name, v),)))

    bits = {"in_port": 15, "eth_dst": 48, "eth_src": 48, "nw_ttl": 8, "ip_proto": 8, "reg0": 32, "reg1": 32, "pkt_mark": 32}
    fragments: tuple[tuple[Field, ...], ...] = ((), (Field("nw_frag", 0),), (Field("nw_frag", 1, 1),))
    parts = (*(named(name, n) for name, n in bits.items()), _address(version), st.sampled_from(fragments))
    return st.tuples(*parts).map(lambda ps: match_of(IP if version == 4 else IP6, *(f for p in ps for f in p)))


@settings(max_examples=30)
@given(st.lists(st.one_of(_match(4), _match(6)), min_size=1, max_size=30, unique=True))
def test_any_match_comes_back_byte_for_byte(ovs: Sandbox, matches: list[tuple[Field, ...]]) -> None:
    bridge = "br-any"
    ovs.add_bridge(bridge)
    ovs.ofctl("del-flows", bridge)
    rules = [Rule(RuleKey(1, 1000 + n, m), (Normal(),)) for n, m in enumerate(matches)]
    with Wire(ovs.management(bridge)) as wire:
        assert install(wire, rules) == {}
        check_round_trip(wire, rules)
