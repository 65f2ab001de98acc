"""Laws of the difference: it leads there, and every cut of it is safe; and what a refusal takes along."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from fsctl.openflow.errors import TABLE_FULL, OpenFlowError
from fsctl.openflow.rules import (
    EGRESS,
    FLOW_SWITCH,
    GUARD,
    MTU,
    WAYS,
    Action,
    CheckLarger,
    DecTtl,
    Field,
    GotoTable,
    Normal,
    Output,
    Resubmit,
    RuleChange,
    RuleKey,
    RuleTable,
    SetField,
    Update,
)
from fsctl.pipeline.dependents import dependents
from fsctl.pipeline.diff import apply, diff, order
from fsctl.southbound.refusal import FOREIGN, Refusals

NORMAL: tuple[Action, ...] = (Normal(),)
R1, R2 = 0x0200_0000_0101, 0x0200_0000_0102


def guard(mac: int, priority: int = 6) -> RuleKey:
    return RuleKey(GUARD, priority, (Field("eth_dst", mac),))


def flow(n: int, mac: int = R1, priority: int = 1048) -> RuleKey:
    return RuleKey(FLOW_SWITCH, priority, (Field("eth_dst", mac), Field("ipv4_dst", n)))


def egress(mac: int) -> RuleKey:
    return RuleKey(EGRESS, 10, (Field("eth_src", mac),))


def by_register(n: int) -> RuleKey:
    return RuleKey(MTU, 10, (Field("reg1", n),))


@st.composite
def tables(draw: st.DrawFn) -> RuleTable:
    """Small pools, so that two tables share places."""
    choices = st.sampled_from((NORMAL, (), (Output(3),), (DecTtl(1), Output(2)), (SetField("reg1", 1), GotoTable(WAYS))))
    places = st.one_of(
        st.builds(flow, st.integers(0, 5), st.sampled_from((R1, R2)), st.sampled_from((0, 1000, 1048))),
        st.builds(guard, st.sampled_from((R1, R2)), st.sampled_from((1, 6))),
        st.builds(egress, st.sampled_from((R1, R2))),
        st.builds(by_register, st.integers(1, 4)),
    )
    return RuleTable(draw(st.dictionaries(places, choices, max_size=12)))


@given(tables(), tables())
def test_the_difference_leads_from_one_to_the_other(have: RuleTable, want: RuleTable) -> None:
    update = diff(want, have, "br-a")
    assert update.bridge == "br-a"
    assert apply(update, have) == want
    assert bool(update) == (have != want)


@given(tables(), tables())
def test_a_difference_is_as_small_as_can_be(have: RuleTable, want: RuleTable) -> None:
    kept = sum(have.rules[k] == a for k, a in want.rules.items() if k in have.rules)
    assert len(diff(want, have, "br-a").changes) == len(have.rules.keys() | want.rules.keys()) - kept


@given(tables(), tables(), st.randoms(use_true_random=False))
def test_changes_in_any_order_lead_to_the_same(have: RuleTable, want: RuleTable, rnd: random.Random) -> None:
    changes = diff(want, have, "br-a").changes
    rnd.shuffle(changes)
    assert apply(Update("br-a", order(changes)), have) == want


@given(tables(), tables())
def test_wherever_the_way_is_cut_no_rule_that_shall_stay_is_missing(have: RuleTable, want: RuleTable) -> None:
    changes, table = diff(want, have, "br-a").changes, have
    for change in changes:
        table = apply(Update("br-a", [change]), table)
        assert have.rules.keys() & want.rules.keys() <= table.rules.keys()


def kinds(changes: list[RuleChange]) -> list[str]:
    names = {GUARD: "guard", FLOW_SWITCH: "flow", EGRESS: "egress", MTU: "mtu", WAYS: "ways"}
    return [("-" if c.actions is None else "+") + names[c.key.table] for c in changes]


def test_the_order_of_kinds() -> None:
    keys = [flow(1), guard(R1), by_register(1), egress(R1), way(1)]
    changes = [RuleChange(k, None, False) for k in keys] + [RuleChange(k, NORMAL) for k in keys]
    assert kinds(order(changes)) == [
        "+egress", "+mtu", "+ways", "+guard", "+flow", "-flow", "-ways", "-mtu", "-guard", "-egress",
    ]  # fmt: skip


def test_more_specific_rules_come_first_and_a_tables_else_before_all() -> None:
    keys = [flow(1, priority=p) for p in (1000, 1064, 0, 5000)]
    assert [c.key.priority for c in order([RuleChange(k, NORMAL) for k in keys])] == [0, 5000, 1064, 1000]
    assert [c.key.priority for c in order([RuleChange(k, None, False) for k in keys])] == [1000, 1064, 5000, 0]


def way(n: int, table: int = WAYS) -> RuleKey:
    return RuleKey(table, 10, (Field("eth_type", 0x0800), Field("reg1", n)))


def test_a_rule_stays_when_its_way_is_refused_and_a_way_when_its_second_half_is() -> None:
    """They lead to the slow path then. Without them their packets would follow a shorter prefix."""
    after_check, check = RuleChange(way(5, MTU), (Output(2),)), RuleChange(way(5), (CheckLarger(1414), GotoTable(MTU)))
    plain = RuleChange(way(6), (Output(2),))
    rule, other = (RuleChange(flow(n), (SetField("reg1", n), GotoTable(WAYS))) for n in (5, 6))
    changes = [after_check, check, plain, rule, other]
    for refused in changes:
        assert dependents([refused], changes) == []
    assert dependents([after_check, check, plain], changes) == []


def test_nobody_is_led_to_a_table_whose_else_is_refused() -> None:
    """It would drop what it does not know: refused ways, for one."""
    check, plain = RuleChange(way(5), (CheckLarger(1414), GotoTable(MTU))), RuleChange(way(6), (Output(2),))
    rule, hole = RuleChange(flow(5), (SetField("reg1", 5), GotoTable(WAYS))), RuleChange(flow(6), NORMAL)
    door = RuleChange(guard(R1, priority=3), (GotoTable(FLOW_SWITCH),))
    changes = [check, plain, rule, hole, door]
    led_there = {WAYS: [rule], MTU: [check], FLOW_SWITCH: [door]}
    for table, hindered in led_there.items():
        assert dependents([RuleChange(RuleKey(table, 0, ()), NORMAL)], changes) == hindered
        assert dependents([RuleChange(RuleKey(table, 0, ()), None, False)], changes) == []


def test_no_chain_for_the_short_while_the_long_are_not_kept_off() -> None:
    too_long, half = RuleChange(RuleKey(MTU, 20, (Field("reg0", 1, 1),)), NORMAL), RuleChange(way(5, MTU), (Output(2),))
    check, miss = RuleChange(way(5), (CheckLarger(1414), GotoTable(MTU))), RuleChange(RuleKey(MTU, 0, ()), NORMAL)
    assert dependents([too_long], [too_long, half, check, miss]) == [half]


def test_no_bypass_without_its_guard() -> None:
    to_r1, to_r2, hole = RuleChange(flow(1), NORMAL), RuleChange(flow(1, R2), NORMAL), RuleChange(flow(2), None, False)
    changes: list[RuleChange] = [to_r1, to_r2, hole]
    assert dependents([RuleChange(guard(R1), NORMAL)], changes) == [to_r1]
    assert dependents([RuleChange(RuleKey(GUARD, 7, (Field("ipv4_dst", 1),)), NORMAL)], changes) == [to_r1, to_r2]
    assert dependents([RuleChange(guard(R1, priority=3), (GotoTable(FLOW_SWITCH),))], changes) == []
    assert dependents([RuleChange(RuleKey(GUARD, 1, ()), NORMAL)], changes) == []


def test_no_way_into_a_missing_egress_rule() -> None:
    here = RuleChange(way(1), (DecTtl(1), SetField("eth_src", R2), Resubmit(EGRESS)))
    away = RuleChange(way(2), (DecTtl(1), SetField("eth_src", R2), Output(100)))
    assert dependents([RuleChange(egress(R2), NORMAL)], [here, away]) == [here]
    assert dependents([RuleChange(egress(R1), NORMAL)], [here, away]) == []


def test_a_full_table_takes_the_later_additions_to_it_along() -> None:
    changes: list[RuleChange] = [RuleChange(guard(R2), NORMAL), *(RuleChange(flow(n), NORMAL) for n in range(1, 6))]
    changes[3], changes[5] = RuleChange(flow(3), (), False), RuleChange(flow(5), None, False)
    refusals = Refusals(changes)
    refusals.refuse({2: OpenFlowError(9, *TABLE_FULL)})
    assert refusals.changes == [changes[0], changes[1], changes[3], changes[5]]
    assert [(r.key, r.error) for r in refusals.rejections] == [(flow(n), "OFPFMFC_TABLE_FULL") for n in (2, 4)]


def test_only_additions_keep_off_what_others_hold() -> None:
    changes: list[RuleChange] = [RuleChange(flow(1), NORMAL), RuleChange(flow(2), NORMAL, False), RuleChange(flow(3), NORMAL)]
    refusals = Refusals(changes)
    refusals.keep_off({flow(1), flow(2)})
    assert refusals.changes == changes[1:]
    assert [(r.key, r.error) for r in refusals.rejections] == [(flow(1), FOREIGN)]
