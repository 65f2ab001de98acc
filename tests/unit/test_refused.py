"""What a switch refuses, and what comes after: later writes, comparisons, connections."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from fsctl.bridge_state import RETRY_S
from fsctl.model.addresses import Prefix
from fsctl.model.delegations import DROP, Forward
from fsctl.model.prefix_keys import key_of
from fsctl.openflow.rules import EGRESS, GUARD, Action, GotoTable, RuleChange, RuleKey, RuleTable, SetField, Update
from fsctl.pipeline.fixed_rules import BRIDGE
from fsctl.pipeline.flow_rules import flow_key
from fsctl.status import Dump, Rejection

from .paper import MAC, Lab

TO_S, TO_B, TO_C = Forward("eth1", MAC["s0"]), Forward("eth1", MAC["b"]), Forward("eth1", MAC["a"])


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.stop()


def _refused(lab: Lab, wide: Forward) -> tuple[RuleKey, RuleKey]:
    """10.1/16 is refused, so that 10/8, which leads elsewhere, is demoted; the places of both."""
    node = lab.controller.now.compiler.graphs[4].node_of["r", "eth0", None]
    narrow, broad = (flow_key(node, key_of(Prefix.parse(text))) for text in ("10.1.0.0/16", "10.0.0.0/8"))
    lab.write("r", ("10.0.0.0/8", wide))
    lab.switches["x"].refuse.add(narrow)
    assert lab.write("r", ("10.1.0.0/16", TO_B)).failed
    assert lab.flow_rules("x") == {broad: BRIDGE}
    return narrow, broad


def test_a_demoted_rule_that_changes_stays_demoted(lab: Lab) -> None:
    _, wide = _refused(lab, TO_S)
    lab.write("r", ("10.0.0.0/8", TO_C))
    assert lab.flow_rules("x") == {wide: BRIDGE}
    lab.write("r", ("10.0.0.0/8", TO_S))
    assert lab.flow_rules("x") == {wide: BRIDGE}


def test_a_new_rule_does_not_catch_what_was_refused_before(lab: Lab) -> None:
    _refused(lab, TO_S)
    lab.write("r", ("10.0.0.0/9", TO_C))
    assert set(lab.flow_rules("x").values()) == {BRIDGE}


def test_a_refused_rule_that_changes_is_added(lab: Lab) -> None:
    """A modification of what is not there does nothing, and the switch confirms it."""
    narrow, _ = _refused(lab, TO_S)
    lab.switches["x"].refuse.clear()
    assert not lab.write("r", ("10.1.0.0/16", DROP)).failed
    assert [type(action) for action in lab.flow_rules("x")[narrow]] == [SetField, GotoTable], "a way that drops"


def test_what_was_refused_is_tried_again_soon(lab: Lab) -> None:
    _refused(lab, TO_S)
    here = lab.controller.installer.bridges["x"]
    assert here.sync_at() < time.monotonic() + RETRY_S


def _watched(lab: Lab, wide: RuleKey, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Action, ...] | None]:
    """What the wide rule does after each update of the switch."""
    switch, seen = lab.switches["x"], []
    whole = switch.apply

    def look(update: Update) -> list[Rejection]:
        rejections = whole(update)
        seen.append(switch.table.rules.get(wide))
        return rejections

    monkeypatch.setattr(switch, "apply", look)
    return seen


@pytest.mark.parametrize("by", ["drift", "connection", "restart"])
def test_a_comparison_brings_no_demoted_rule_back_too_soon(lab: Lab, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """Not for a moment does 10/8 catch what is refused again; once it is taken, 10/8 is right again."""
    narrow, wide = _refused(lab, TO_S)
    lab.settle()
    seen = _watched(lab, wide, monkeypatch)
    if by == "restart":
        lab.stop()
        lab.start()
    elif by == "connection":
        lab.reconnect("x")
    else:
        lab.switches["x"].table.rules.pop(next(k for k in lab.switches["x"].table.rules if k.table == EGRESS))
        lab.switches["x"].drift(True)
    time.sleep(0.3)
    lab.settle()
    assert seen
    assert set(seen) == {BRIDGE}
    states = {str(f.delegation.match.dst): f.state for f in lab.controller.flows("r")}
    assert states == {"10.1.0.0/16": "refused", "10.0.0.0/8": "slow_path"}
    lab.switches["x"].refuse.clear()
    lab.switches["x"].drift(True)
    time.sleep(0.3)
    lab.check_in_step()
    assert narrow in lab.flow_rules("x")
    assert not lab.controller.not_ready()


def test_a_rule_that_was_there_before_is_not_replaced_while_ours_changes(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write is on its way to that place when the bridge is compared: the rejection is forgotten, not whose rule it is."""
    switch = lab.switches["x"]
    guard = next(key for key in lab.controller.now.layout.frames["x"].rules if key.table == GUARD)
    switch.refuse.add(guard)
    switch.table.rules.pop(guard, None)
    monkeypatch.setattr(switch, "dump", lambda: Dump(RuleTable(dict(switch.table.rules)), foreign=frozenset({guard})))
    lab.reconnect("x")
    lab.settle()
    here = lab.controller.installer.bridges["x"]
    assert guard in here.rejected
    here.anew([RuleChange(guard, BRIDGE, False)])
    switch.drift(True)
    time.sleep(0.2)
    lab.settle()
    assert guard not in switch.reclaimed
