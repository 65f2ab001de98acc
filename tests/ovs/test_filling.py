"""Bundles that are sent while their changes are being found, on a real switch: the same as if all had been there at once."""

from __future__ import annotations

import random

import pytest
from ovs_driver import Driver
from test_southbound import connected, key, limit_flow_switch, table

from fsctl.openflow import ovs_ofctl_text
from fsctl.openflow.rules import FLOW_SWITCH, Rule, RuleChange, RuleTable
from fsctl.pipeline.diff import diff
from topologies.sandbox import Sandbox

pytestmark = pytest.mark.ovs
__all__ = ["connected"]


def pieces(desired: RuleTable, bridge: str, size: int, installed: RuleTable | None = None) -> list[list[RuleChange]]:
    """The changes in any order, as compilers find them."""
    changes = diff(desired, installed or RuleTable(), bridge).changes
    shuffled = random.Random(20261125).sample(changes, len(changes))
    return [shuffled[at : at + size] for at in range(0, len(shuffled), size)]


@pytest.mark.parametrize(("count", "size"), [(0, 5), (3, 1), (300, 7), (5000, 3000)])
def test_filled_piece_by_piece(driver: Driver, connected: str, count: int, size: int) -> None:
    desired = table(count)
    assert driver.fill(connected, pieces(desired, connected, size)) == []
    assert driver.dump(connected).table == desired
    assert driver.fill(connected, pieces(RuleTable(), connected, size, desired)) == []
    assert driver.dump(connected).table == RuleTable()


def test_what_does_not_fit_is_refused_as_if_all_had_been_there_at_once(ovs: Sandbox, driver: Driver, connected: str) -> None:
    limit_flow_switch(ovs, connected, 10)
    desired = table(30)
    refused = driver.fill(connected, pieces(desired, connected, 4))
    assert refused is not None
    installed = driver.dump(connected).table
    assert len([k for k in installed.rules if k.table == FLOW_SWITCH]) == 10
    assert {r.key for r in refused} == desired.rules.keys() - installed.rules.keys()
    assert {r.error for r in refused} == {"OFPFMFC_TABLE_FULL"}


def test_a_rule_of_somebody_else_is_not_replaced(ovs: Sandbox, driver: Driver, connected: str) -> None:
    desired = table(5)
    ovs.ofctl("add-flow", connected, "cookie=0x7," + ovs_ofctl_text(Rule(key(3), ())).split(",", 1)[1])
    driver.dump(connected)
    refused = driver.fill(connected, pieces(desired, connected, 2))
    assert refused is not None
    assert [r.key for r in refused] == [key(3)]
    del desired.rules[key(3)]
    assert driver.dump(connected).table == desired
    assert "cookie=0x7" in ovs.ofctl("dump-flows", connected)


def test_abandoned_it_changes_nothing_and_blocks_nobody(driver: Driver, connected: str) -> None:
    assert driver.fill(connected, pieces(table(3000), connected, 500), "abandon") is None
    assert driver.dump(connected).table == RuleTable()
    assert driver.apply(connected, diff(table(2), RuleTable(), connected).changes) == []
    assert driver.dump(connected).table == table(2)


def test_a_bundle_that_the_switch_gave_up_meanwhile_is_filled_anew(ovs: Sandbox, driver: Driver, connected: str) -> None:
    """Open vSwitch forgets bundles that get nothing for a while, and begins them anew with what comes then."""
    ovs.vsctl("set", "Open_vSwitch", ".", "other_config:bundle-idle-timeout=1")
    try:
        assert driver.fill(connected, pieces(table(20), connected, 15), pause_s=2.5) == []
    finally:
        ovs.vsctl("remove", "Open_vSwitch", ".", "other_config", "bundle-idle-timeout")
    assert driver.dump(connected).table == table(20)
    assert "OFPBFC_TIMEOUT" in driver.log.read_text()
