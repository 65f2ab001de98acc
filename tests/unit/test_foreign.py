"""Which rules of others may be about what a router's port sends."""

from __future__ import annotations

import pytest

from fsctl.foreign import policy_for
from fsctl.openflow.decode import ForeignRule
from fsctl.openflow.rules import Field, match_of

PORT, MAC = 7, 0x0200_0000_0001


@pytest.mark.parametrize(
    ("fields", "applies"),
    [
        ([], True),
        ([Field("in_port", PORT)], True),
        ([Field("in_port", PORT + 1)], False),
        ([Field("eth_src", MAC)], True),
        ([Field("eth_src", MAC + 1)], False),
        ([Field("eth_src", MAC & ~0xFF, (1 << 48) - 256)], True),
        ([Field("eth_src", 1 << 40, 1 << 40)], False),
        ([Field("eth_type", 0x0800)], True),
        ([Field("eth_type", 0x86DD)], True),
        ([Field("eth_type", 0x0806)], False),
        ([Field("eth_dst", 1 << 40, 1 << 40)], False),
        ([Field("eth_dst", 0x0200_0000_0009)], True),
        ([Field("vlan_tci", 0x1000, 0x1000)], False),
        ([Field("vlan_tci", 0, 0x1000)], True),
        ([Field("in_port", PORT), Field("eth_type", 0x0806)], False),
        ([Field("eth_type", 0x0800), Field("ip_proto", 17), Field("udp_dst", 53)], True),
    ],
)
def test_what_may_match_applies(fields: list[Field], applies: bool) -> None:
    assert bool(policy_for([ForeignRule(match_of(*fields), "rule")], PORT, MAC)) is applies


def test_the_first_that_applies_is_named() -> None:
    rules = [ForeignRule((Field("in_port", 1),), "one"), ForeignRule((), "two"), ForeignRule((), "three")]
    assert policy_for(rules, PORT, MAC) == "two"


def test_a_field_that_nobody_knows_applies() -> None:
    assert policy_for([ForeignRule((Field("oxm_0001aa04", 1),), "strange")], PORT, MAC) == "strange"
