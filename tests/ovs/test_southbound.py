"""Southbound on a real switch, through a real Ryu process."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable

import pytest
from ovs_driver import Driver
from ovs_wire import Wire

from fsctl.errors import UnavailableError
from fsctl.openflow import bundle_add, bundle_control, const, flow_mod, ovs_ofctl_text
from fsctl.openflow.rules import (
    EGRESS,
    FLOW_SWITCH,
    WAYS,
    Action,
    DecTtl,
    Field,
    GotoTable,
    Normal,
    Output,
    Resubmit,
    Rule,
    RuleChange,
    RuleKey,
    RuleTable,
    SetField,
)
from fsctl.pipeline.diff import diff
from tests.waiting import eventually
from topologies.sandbox import SWITCH, Sandbox

pytestmark = pytest.mark.ovs

IP = Field("eth_type", 0x0800)
ROUTER, MAC = Field("eth_dst", 0x0200_0000_0101), 0x0200_0000_0102
NORMAL: tuple[Action, ...] = (Normal(),)


@pytest.fixture
def connected(driver: Driver, bridge: str) -> str:
    driver.connect(bridge)
    return bridge


def key(n: int, length: int = 24) -> RuleKey:
    """The n-th /24 below 10/8, as a rule of the flow switch."""
    mask = ((1 << length) - 1) << (32 - length)
    return RuleKey(FLOW_SWITCH, 1000 + 2 * length, (ROUTER, IP, Field("ipv4_dst", (10 << 24) + (n << 8), mask)))


def table(count: int, way: int = 1) -> RuleTable:
    rules: dict[RuleKey, tuple[Action, ...]] = {key(n): (SetField("reg1", way), GotoTable(WAYS)) for n in range(count)}
    rules[RuleKey(0, 1, ())] = NORMAL
    rules[RuleKey(0, 3, (ROUTER, IP))] = (GotoTable(1),)
    rules[RuleKey(1, 0, ())] = NORMAL
    rules[RuleKey(WAYS, 0, ())] = NORMAL
    chain = (DecTtl(1), SetField("eth_src", MAC), SetField("eth_dst", 0x0200_0000_0B01), Output(2))
    rules[RuleKey(WAYS, 10, (IP, Field("reg1", way)))] = chain
    return RuleTable(rules)


def limit_flow_switch(ovs: Sandbox, bridge: str, flows: int) -> None:
    ovs.vsctl("--", "--id=@t", "create", "Flow_Table", f"flow_limit={flows}", "overflow_policy=refuse", "--",
              "set", "bridge", bridge, "flow_tables:1=@t")  # fmt: skip


def reconcile(driver: Driver, bridge: str, desired: RuleTable) -> None:
    assert driver.apply(bridge, diff(desired, driver.dump(bridge).table, bridge).changes) == []


def test_from_nothing_to_something_to_something_else(driver: Driver, connected: str) -> None:
    for desired in (table(50), table(20, way=2), RuleTable(), table(3)):
        reconcile(driver, connected, desired)
        found = driver.dump(connected)
        assert (found.table, found.warnings, found.policies) == (desired, (), ())
        assert not diff(desired, found.table, connected)


def test_rules_of_others_are_shown_and_left_alone(ovs: Sandbox, driver: Driver, connected: str) -> None:
    ovs.ofctl("add-flow", connected, "cookie=0x7,priority=100,ip,nw_ttl=9,actions=drop")
    reconcile(driver, connected, table(5))
    assert driver.dump(connected).warnings == ("cookie=0x7,table=0,priority=100,ip,nw_ttl=9,actions=drop",)
    reconcile(driver, connected, RuleTable())
    assert "cookie=0x7" in ovs.ofctl("dump-flows", connected)


def test_a_rule_of_somebody_else_in_the_same_place_is_not_replaced(ovs: Sandbox, driver: Driver, connected: str) -> None:
    desired = table(5)
    theirs = ovs_ofctl_text(Rule(key(3), ())).split(",", 1)[1]
    ovs.ofctl("add-flow", connected, f"cookie=0x7,{theirs}")
    driver.dump(connected)
    (refused,) = driver.apply(connected, diff(desired, RuleTable(), connected).changes)
    assert refused.key == key(3)
    assert "another cookie" in refused.error
    del desired.rules[key(3)]
    assert driver.dump(connected).table == desired
    assert "cookie=0x7" in ovs.ofctl("dump-flows", connected)


def test_a_full_table_refuses_what_does_not_fit_and_takes_the_rest(ovs: Sandbox, driver: Driver, connected: str) -> None:
    limit_flow_switch(ovs, connected, 10)
    desired = table(30)
    refused = driver.apply(connected, diff(desired, RuleTable(), connected).changes)
    assert {r.error for r in refused} == {"OFPFMFC_TABLE_FULL"}
    assert {(r.type, r.code) for r in refused} == {(5, 1)}
    installed = driver.dump(connected).table
    assert len([k for k in installed.rules if k.table == FLOW_SWITCH]) == 10
    assert {k.table for k in desired.rules.keys() - installed.rules.keys()} == {FLOW_SWITCH}
    assert {r.key for r in refused} == desired.rules.keys() - installed.rules.keys()
    assert all(installed.rules[k] == desired.rules[k] for k in installed.rules)


def test_an_error_is_matched_to_its_change_and_to_what_needs_it(driver: Driver, connected: str) -> None:
    """dec_ttl wants a match on IP: the switch refuses that egress rule, so no way may deliver through it."""
    bad = RuleChange(RuleKey(EGRESS, 10, (Field("eth_src", MAC),)), (DecTtl(1), Output(2)))
    needs = RuleChange(RuleKey(WAYS, 10, (IP, Field("reg1", 9))), (DecTtl(1), SetField("eth_src", MAC), Resubmit(EGRESS)))
    good = RuleChange(key(1), NORMAL)
    refused = driver.apply(connected, [bad, needs, good])
    assert [r.key for r in refused] == [bad.key, needs.key]
    assert [r.error for r in refused] == ["OFPBAC_MATCH_INCONSISTENT", "OFPBAC_MATCH_INCONSISTENT, for what it needs"]
    assert driver.dump(connected).table == RuleTable({key(1): NORMAL})


def test_a_rule_stays_when_its_way_is_refused(ovs: Sandbox, driver: Driver, connected: str) -> None:
    """It leads to the slow path, and keeps its packets off the shorter prefix."""
    bad = RuleChange(RuleKey(WAYS, 10, (Field("reg1", 9),)), (DecTtl(1), Output(2)))
    miss = RuleChange(RuleKey(WAYS, 0, ()), NORMAL)
    leads_there, shorter = RuleChange(key(2), (SetField("reg1", 9), GotoTable(WAYS))), RuleChange(key(0, 8), (Output(1),))
    door = RuleChange(RuleKey(0, 1, ()), (GotoTable(FLOW_SWITCH),))
    (refused,) = driver.apply(connected, [door, miss, bad, leads_there, shorter])
    assert (refused.key, refused.error) == (bad.key, "OFPBAC_MATCH_INCONSISTENT")
    packet = "in_port=3,ip,dl_src=02:00:00:00:0a:01,dl_dst=02:00:00:00:01:01,nw_dst=10.0.2.5"
    trace = ovs.appctl("ofproto/trace", connected, packet)
    assert re.search(rf"^ *{WAYS}\. priority 0.*\n *NORMAL", trace, re.MULTILINE), trace


def test_a_bundle_is_all_or_nothing(ovs: Sandbox, bridge: str) -> None:
    """What the retry rests on: a commit that fails has changed nothing."""
    limit_flow_switch(ovs, bridge, 1)
    changes = [RuleChange(key(1), NORMAL), RuleChange(key(2), NORMAL)]
    with Wire(ovs.management(bridge)) as wire:
        wire.send(bundle_control(const.BUNDLE_OPEN, 5, next(wire.xids)))
        bad = [next(wire.xids), next(wire.xids)]
        for change, xid in zip(changes, bad, strict=True):
            wire.send(bundle_add(flow_mod(change, xid), 5))
        commit = next(wire.xids)
        wire.send(bundle_control(const.BUNDLE_COMMIT, 5, commit))
        assert wire.errors() == {bad[1]: "OFPFMFC_TABLE_FULL", commit: "OFPBFC_MSG_FAILED"}
        assert wire.flow_entries() == []


def test_what_overtakes_is_made_while_a_bundle_is_being_filled(ovs: Sandbox, driver: Driver, connected: str) -> None:
    pieces = [[RuleChange(key, actions)] for key, actions in table(3).rules.items()]
    filling = threading.Thread(target=driver.fill, args=(connected, pieces, "finish", 0.3))
    filling.start()
    time.sleep(0.3)
    stop = RuleKey(FLOW_SWITCH, 60_000, (ROUTER,))
    wrong = RuleKey(FLOW_SWITCH, 60_000, (Field("ipv4_dst", 1),))  # without its eth_type
    rejections = driver.call(connected, "overtake", [RuleChange(wrong, NORMAL), RuleChange(stop, NORMAL)])
    assert [(r.key, r.error) for r in rejections] == [(wrong, "OFPBMC_BAD_PREREQ")]
    assert filling.is_alive()
    dumped = ovs.ofctl("dump-flows", connected)
    assert "priority=60000" in dumped
    assert "nw_dst" not in dumped
    filling.join()
    assert driver.dump(connected).table.rules == {**table(3).rules, stop: NORMAL}


def test_modifying_keeps_the_counters(ovs: Sandbox, driver: Driver, connected: str) -> None:
    reconcile(driver, connected, table(2))
    packet = ("in_port(1),eth(src=02:00:00:00:0a:01,dst=02:00:00:00:01:01),eth_type(0x0800),"
              "ipv4(src=10.9.9.9,dst=10.0.1.5,proto=17,ttl=64,frag=no),udp(src=1,dst=2)")  # fmt: skip
    ovs.appctl("netdev-dummy/receive", f"{connected}-p1", packet)
    ovs.appctl("revalidator/purge")
    before = driver.counters(connected)
    assert before[key(1)][0] == 1
    assert before[key(0)] == (0, 0)
    reconcile(driver, connected, table(2, way=4))
    assert driver.counters(connected) == before


def test_ports_and_their_state(ovs: Sandbox, driver: Driver, connected: str) -> None:
    ovs.appctl("netdev-dummy/set-admin-state", f"{connected}-p2", "down")
    try:
        ports = {p.name: p for p in driver.ports(connected)}
    finally:
        ovs.appctl("netdev-dummy/set-admin-state", f"{connected}-p2", "up")
    assert {name: ports[name].ofport for name in ports} == {
        connected: 0xFFFF_FFFE, **{f"{connected}-p{n}": n for n in (1, 2, 3)},
    }  # fmt: skip
    assert ports[f"{connected}-p1"].up
    assert not ports[f"{connected}-p2"].up


def test_d4_ryus_parser_sees_no_dump_whoever_asked_for_it(driver: Driver, connected: str) -> None:
    """It trusts every length in a reply. Other applications still hear of ports, errors and barriers."""
    reconcile(driver, connected, table(30))
    before = driver.call(connected, "seen").get("flows", 0)
    driver.call(connected, "ryu_flow_stats")
    driver.dump(connected)  # answered later than what Ryu asked
    assert driver.call(connected, "seen").get("flows", 0) == before


def test_an_error_that_nobody_asked_for_is_logged(driver: Driver, connected: str) -> None:
    bad = flow_mod(RuleChange(RuleKey(3, 10, ()), (DecTtl(1),)), 0x7777_0001)
    driver.call(connected, "send_raw", bad)
    eventually(lambda: "OFPBAC_MATCH_INCONSISTENT for xid 0x77770001" in driver.log.read_text())


@pytest.mark.slow
def test_forty_thousand_rules_in_one_bundle(driver: Driver, connected: str) -> None:
    desired = table(40_000)
    reconcile(driver, connected, desired)
    assert driver.dump(connected).table == desired
    reconcile(driver, connected, table(10))
    assert driver.dump(connected).table == table(10)


def test_a_switch_that_dies_wakes_up_who_waits(driver_of: Callable[[Sandbox], Driver]) -> None:
    sandbox = Sandbox()
    try:
        sandbox.start()
        driver = driver_of(sandbox)
        sandbox.add_bridge("br-dying", ports=1)
        driver.connect("br-dying")
        caught: list[Exception] = []

        def ask() -> None:
            try:
                driver.dump("br-dying")
            except UnavailableError as e:
                caught.append(e)

        sandbox.pause(SWITCH)
        waiting = threading.Thread(target=ask)
        waiting.start()
        time.sleep(0.3)
        assert waiting.is_alive()
        sandbox.kill(SWITCH)
        waiting.join(30)
        (error,) = caught
        assert isinstance(error, UnavailableError)
        assert error.value == "br-dying"
        with pytest.raises(UnavailableError):
            driver.ports("br-dying")
    finally:
        sandbox.stop()
