"""Rules to bytes and back, without a switch. That a switch agrees is shown in tests/ovs."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsctl.openflow import (
    Encoder,
    FlowDecoder,
    bundle_add,
    decode_error,
    decode_ports,
    error_name,
    flow_mod,
    message,
    ovs_ofctl_text,
)
from fsctl.openflow.actions import Opaque, decode_instructions, encode_actions, encode_instructions
from fsctl.openflow.match import decode_fields, encode_fields, encode_match
from fsctl.openflow.rules import (
    COOKIE,
    LEARNED_COOKIE,
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

WIDTHS = {"in_port": 16, "eth_dst": 48, "eth_src": 48, "eth_type": 16, "ipv4_src": 32, "ipv4_dst": 32, "ipv6_src": 128,
          "ipv6_dst": 128, "ip_proto": 8, "nw_ttl": 8, "nw_frag": 2, "tcp_src": 16, "tcp_dst": 16, "udp_src": 16,
          "udp_dst": 16, "icmpv6_type": 8, "reg0": 32, "reg1": 32, "pkt_mark": 32}  # fmt: skip
ETH_DST, IP = Field("eth_dst", 0x0200_0000_0101), Field("eth_type", 0x0800)


SETTABLE = ("eth_src", "eth_dst", "in_port", "pkt_mark", "reg0", "reg1")
LOCAL_PORT = 0xFFFF_FFFE


@st.composite
def fields(draw: st.DrawFn, name: str) -> Field:
    full = (1 << WIDTHS[name]) - 1
    mask = draw(st.one_of(st.none(), st.integers(1, full - 1)))
    return Field(name, draw(st.integers(0, full)) & (full if mask is None else mask), mask)


matches = (
    st.lists(st.sampled_from(sorted(WIDTHS)), max_size=5, unique=True)
    .flatmap(lambda names: st.tuples(*map(fields, names)))
    .map(lambda found: match_of(*found))
)
# What a FIB looks like: few prefixes and masks around many destinations.
destinations = st.one_of(
    st.tuples(st.sampled_from((0xFF00_0000, 0xFFFF_FF00)), st.integers(0, 0xFFFF_FFFF)).map(
        lambda t: (Field("ipv4_dst", t[0] & t[1], t[0]),)
    ),
    st.integers(0, (1 << 128) - 1).map(lambda v: (Field("ipv6_dst", v),)),
    st.just(()),
)
flow_matches = st.tuples(st.sampled_from(((ETH_DST,), (ETH_DST, Field("eth_src", 5)), (Field("eth_dst", 9),))), destinations).map(
    lambda t: (*t[0], Field("eth_type", 0x86DD if t[1] and t[1][0].name == "ipv6_dst" else 0x0800), *t[1])
)
actions = st.lists(
    st.one_of(
        st.integers(1, 3).map(DecTtl),
        st.builds(SetField, st.sampled_from(SETTABLE), st.integers(0, 65535)),
        st.integers(1, 65000).map(Output),
        st.just(Normal()),
        st.builds(Learn, st.one_of(st.integers(1, 0xFEFF), st.just(LOCAL_PORT)), st.integers(1, 0xFFFF), st.integers(0, 1 << 31)),
        st.integers(64, 65535).map(CheckLarger),
        st.integers(0, 253).map(Resubmit),
    ),
    max_size=5,
).map(tuple)


def merged(found: tuple[Action, ...]) -> tuple[Action, ...]:
    """Neighbouring DecTtl are one, as bytes cannot tell them apart."""
    out: list[Action] = []
    for action in found:
        if isinstance(action, DecTtl) and out and isinstance(out[-1], DecTtl):
            out[-1] = DecTtl(out[-1].times + action.times)
        else:
            out.append(action)
    return tuple(out)


instructions = st.tuples(actions, st.one_of(st.just(()), st.integers(1, 253).map(lambda n: (GotoTable(n),)))).map(
    lambda t: merged(t[0]) + t[1]
)
changes = st.builds(
    RuleChange,
    st.builds(RuleKey, st.integers(0, 4), st.integers(0, 65535), st.one_of(matches, flow_matches)),
    st.one_of(st.none(), instructions),
    st.booleans(),
)


@given(matches)
def test_a_match_survives_bytes(match: tuple[Field, ...]) -> None:
    assert decode_fields(encode_fields(match)) == match
    assert len(encode_match(match)) % 8 == 0


@given(instructions)
def test_actions_survive_bytes(found: tuple[Action, ...]) -> None:
    raw = encode_instructions(found)
    assert decode_instructions(raw) == found
    assert len(raw) % 8 == 0


@given(st.lists(changes, max_size=20), st.integers(1, 1 << 31))
def test_the_fast_encoder_gives_the_same_bytes_as_the_plain_one(several: list[RuleChange], xid: int) -> None:
    plain = b"".join(bundle_add(flow_mod(change, xid + n), 9) for n, change in enumerate(several))
    assert Encoder(9).encode(several, xid) == plain


def flow_stats(rule: Rule, packets: int, cookie: int = COOKIE) -> bytes:
    """An ofp_flow_stats as a switch would send it."""
    rest = encode_match(rule.key.match) + encode_instructions(rule.actions)
    fixed = struct.pack("!BxIIHHHHH2xQQQ", rule.key.table, 1, 2, rule.key.priority, 0, 0, 0, 0, cookie, packets, packets * 60)
    return struct.pack("!H", 2 + len(fixed) + len(rest)) + fixed + rest


entries_of_a_dump = st.tuples(st.one_of(flow_matches, flow_matches, matches), instructions, st.booleans())


@given(st.lists(entries_of_a_dump, max_size=40, unique_by=lambda t: t[0]), st.integers(1, 7))
def test_a_dump_is_read_whatever_shapes_come_in_whatever_order(
    found: list[tuple[tuple[Field, ...], tuple[Action, ...], bool]], per_reply: int
) -> None:
    """Matches of one length and different shapes must not be taken for each other."""
    decoder = FlowDecoder()
    entries = [flow_stats(Rule(RuleKey(1, 7, m), a), n, COOKIE if ours else 3) for n, (m, a, ours) in enumerate(found)]
    for start in range(0, len(entries), per_reply):
        decoder.feed(b"".join(entries[start : start + per_reply]))
    dump = decoder.dump
    assert dump.rules == {RuleKey(1, 7, m): a for m, a, ours in found if ours}
    assert dump.counters == {RuleKey(1, 7, m): (n, n * 60) for n, (m, _, ours) in enumerate(found) if ours}
    assert dump.foreign_keys == {RuleKey(1, 7, m) for m, _, ours in found if not ours}
    assert dump.foreign_count == len(dump.foreign_keys)


@pytest.mark.parametrize(
    "decode",
    [FlowDecoder().feed, lambda raw: list(decode_ports(raw))],
    ids=["flows", "ports"],
)
def test_nonsense_is_an_error_and_no_endless_loop(decode: Callable[[bytes], object]) -> None:
    for length in (0, 4, 200):
        with pytest.raises(ValueError):
            decode(struct.pack("!HH", length, length) + bytes(96))


def test_an_action_fsctl_never_writes_is_equal_to_nothing_it_does() -> None:
    pop_vlan = struct.pack("!HH4x", 18, 8)
    (found,) = decode_instructions(struct.pack("!HH4x", 4, 16) + pop_vlan)
    assert isinstance(found, Opaque)
    assert found.hex == pop_vlan.hex()


def in_instructions(actions: bytes) -> bytes:
    return struct.pack("!HH4x", 4, 8 + len(actions)) + actions


@pytest.mark.parametrize("at", range(10, 64))
def test_a_learn_of_another_kind_is_not_learn(at: int) -> None:
    """Other match, other table, other flags: but for port, age and limit, every byte counts."""
    learn = Learn(7, 300, 256)
    raw = encode_actions((learn,))
    assert len(raw) == 64
    changed = raw[:at] + bytes([raw[at] ^ 0x10]) + raw[at + 1 :]
    (found,) = decode_instructions(in_instructions(changed))
    assert found != learn
    assert isinstance(found, Opaque) or encode_actions((found,)) == changed


def test_a_learn_that_is_cut_off_is_opaque() -> None:
    raw = struct.pack("!HHIHH4x", 0xFFFF, 16, 0x2320, 45, 0)
    assert isinstance(decode_instructions(in_instructions(raw))[0], Opaque)


@pytest.mark.parametrize("port", [1, 0xFEFF, LOCAL_PORT])
def test_learn_names_its_port_in_the_cookie(port: int) -> None:
    """The local port too, which is 0xfffffffe in OpenFlow and 0xfffe where a field has 16 bits."""
    (found,) = decode_instructions(in_instructions(encode_actions((Learn(port, 1, 2),))))
    assert found == Learn(port, 1, 2)


def test_what_the_switch_has_learned_is_nobodys_rule() -> None:
    decoder = FlowDecoder()
    mine, learned = Rule(RuleKey(1, 7, (IP,)), ()), Rule(RuleKey(7, 10, (ETH_DST,)), (Output(3),))
    decoder.feed(b"".join((flow_stats(mine, 1), *(flow_stats(learned, 2, LEARNED_COOKIE | port) for port in (3, 0xFFFE)))))
    assert decoder.dump.rules == {mine.key: ()}
    assert (decoder.dump.learned, decoder.dump.foreign_count) == (2, 0)


def test_a_mask_that_ovs_would_not_give_back_is_our_own_mistake() -> None:
    for mask in (0, 0xFFFF_FFFF):
        with pytest.raises(AssertionError, match="canonical"):
            encode_fields((Field("ipv4_dst", 0, mask),))


def test_text_is_what_ovs_ofctl_writes() -> None:
    match = (ETH_DST, Field("eth_src", 0x0200_0000_0A01), IP, Field("ipv4_dst", 0x0A00_0200, 0xFFFF_FF00))
    chain = (DecTtl(2), SetField("eth_src", 0x0200_0000_0102), Output(7))
    assert ovs_ofctl_text(Rule(RuleKey(1, 1049, match), chain)) == (
        "cookie=0x667363746c000000,table=1,priority=1049,ip,dl_dst=02:00:00:00:01:01,dl_src=02:00:00:00:0a:01,"
        "nw_dst=10.0.2.0/24,actions=dec_ttl,dec_ttl,set_field:02:00:00:00:01:02->eth_src,output:7"
    )
    assert ovs_ofctl_text(Rule(RuleKey(0, 1, ()))) == "cookie=0x667363746c000000,table=0,priority=1,actions=drop"


def test_errors_have_names() -> None:
    assert error_name(5, 1) == "OFPFMFC_TABLE_FULL"
    assert error_name(17, 13) == "OFPBFC_MSG_FAILED"
    assert error_name(2, 10) == "OFPBAC_MATCH_INCONSISTENT"
    assert error_name(5, 99) == "OFPET_FLOW_MOD_FAILED code 99"
    assert error_name(77, 1) == "error type 77 code 1"
    error = decode_error(message(1, 0x1234, struct.pack("!HH", 5, 1) + b"abc"))
    assert (error.xid, error.kind, error.data) == (0x1234, (5, 1), b"abc")
    with pytest.raises(ValueError):
        decode_error(message(1, 5))
