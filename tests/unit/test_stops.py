"""A withdrawal ends the bypass before it is carried out, however many rules it changes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from fsctl import durable, stops
from fsctl.errors import ConflictError, UnavailableError
from fsctl.model.addresses import Prefix
from fsctl.model.delegations import Forward, Match
from fsctl.model.fib import change_of
from fsctl.openflow.rules import FLOW_SWITCH, RuleKey
from fsctl.pipeline.stop_rules import STOP
from fsctl.status import SessionRequest, Write
from fsctl.store import Commit
from fsctl.writes import Together
from tests.unit.paper import MAC, Lab

HOPS = Forward("eth1", MAC["s0"]), Forward("eth1", 0x0200_0000_0B0B)


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    """r leads to s; both have a table that counts as large."""
    monkeypatch.setattr(stops, "LEAST", 3)
    made = Lab()
    for router, hop in (("r", HOPS[0]), ("s", HOPS[1])):
        made.write(router, *((f"10.{n}.0.0/16", hop) for n in range(8)))
    made.check_in_step()
    yield made
    made.stop()


def stop_keys(lab: Lab, bridge: str) -> list[RuleKey]:
    return [key for key in lab.switches[bridge].table.rules if key.table == FLOW_SWITCH and key.priority >= STOP]


def withdrawal(router: str, session: str | None = None) -> Write:
    return Write(router, (), replace=True, session=session, ends_session=session is not None, is_admin=session is None)


def hold_the_loop(lab: Lab) -> threading.Event:
    """The controller's loop does one long job that pauses now and then, until the event is set."""
    go_on, begun = threading.Event(), threading.Event()

    def job() -> None:
        begun.set()
        while not go_on.wait(0.002):
            lab.controller.pause()

    lab.controller._jobs.add(job)
    assert begun.wait(5)
    return go_on


def wait_for(lab: Lab, bridge: str, count: int) -> None:
    for _ in range(1000):
        if len(stop_keys(lab, bridge)) == count:
            return
        threading.Event().wait(0.005)
    raise AssertionError((bridge, count, stop_keys(lab, bridge)))


def test_fault_C4_a_withdrawal_stops_the_bypass_while_the_loop_works_on_something_else(lab: Lab) -> None:
    go_on = hold_the_loop(lab)
    ticket = lab.controller.write(withdrawal("s"))
    try:
        wait_for(lab, "y", 1)  # s's own packets
        wait_for(lab, "x", 1)  # what is bypassed from r on past s
        assert {f.value for bridge in "xy" for key in stop_keys(lab, bridge) for f in key.match} == {MAC["r0"], MAC["s0"]}
    finally:
        go_on.set()
    ticket.wait(10)
    lab.check_in_step()
    assert not stop_keys(lab, "x")
    assert not stop_keys(lab, "y")


def test_fault_C4_a_withdrawal_stops_the_bypass_while_a_disk_is_slow(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, begun = threading.Event(), threading.Event()
    commit_all = lab.store.commit_all

    def slow(commits: Sequence[Commit]) -> int:
        begun.set()
        go_on.wait(5)
        return commit_all(commits)

    monkeypatch.setattr(lab.store, "commit_all", slow)
    monkeypatch.setattr(durable, "PATIENCE_S", 10.0)
    tickets = [lab.controller.write(Write("r", (change_of(Match("eth0", Prefix.parse("10.99.0.0/16")), HOPS[0]),)))]
    assert begun.wait(5)
    tickets.append(lab.controller.write(withdrawal("s")))
    try:
        wait_for(lab, "x", 1)
    finally:
        go_on.set()
    for ticket in tickets:
        ticket.wait(10)
    lab.check_in_step()


def test_what_is_stopped_and_what_is_withdrawn_changes_in_one_bundle(lab: Lab) -> None:
    """Between them no packet may take the old way again."""
    lab.controller.write(withdrawal("s")).wait(10)
    lab.settle()
    for bridge in "xy":
        (stop,) = lab.switches[bridge].overtaking
        (end,) = (u for u in lab.switches[bridge].updates if any(c.key == stop and c.actions is None for c in u.changes))
        gone = [c for c in end.changes if c.key.table == FLOW_SWITCH and c.key.priority < STOP]
        assert len(gone) >= 8


def test_a_small_withdrawal_needs_no_stop(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stops, "LEAST", 1000)
    lab.controller.write(withdrawal("s")).wait(10)
    lab.check_in_step()
    assert not lab.switches["x"].overtaking + lab.switches["y"].overtaking


def test_nobody_is_stopped_for_a_withdrawal_that_is_refused(lab: Lab) -> None:
    lab.controller.sessions.open(SessionRequest("s", "mine", 60, 60))
    ticket = lab.controller.write(withdrawal("s", "another"))
    with pytest.raises(ConflictError, match="not the router's session"):
        ticket.wait(10)
    lab.check_in_step()
    assert not lab.switches["x"].overtaking + lab.switches["y"].overtaking


def test_what_was_stopped_for_a_withdrawal_that_fails_goes_on(lab: Lab) -> None:
    go_on = hold_the_loop(lab)
    ticket = lab.controller.write(withdrawal("s"))
    wait_for(lab, "x", 1)
    with pytest.raises(UnavailableError, match="nothing was changed"):
        ticket.wait(0.01)  # its sender gives up
    go_on.set()
    wait_for(lab, "x", 0)
    lab.check_in_step()
    assert len(lab.flow_rules("x")) == 8


def test_a_bug_in_a_withdrawal_leaves_nothing_stopped(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    write = lab.controller.changes.write

    def fails_once(together: Together) -> None:
        monkeypatch.setattr(lab.controller.changes, "write", write)
        raise RuntimeError("a bug")

    monkeypatch.setattr(lab.controller.changes, "write", fails_once)
    go_on = hold_the_loop(lab)
    lab.controller.write(withdrawal("s"))
    wait_for(lab, "x", 1)
    go_on.set()
    wait_for(lab, "x", 0)
    lab.check_in_step()
    assert len(lab.flow_rules("x")) == 8


def test_a_switch_that_is_compared_meanwhile_keeps_the_stop(lab: Lab) -> None:
    go_on = hold_the_loop(lab)
    ticket = lab.controller.write(withdrawal("s"))
    wait_for(lab, "x", 1)
    table = lab.controller.now.layout.table("x")
    assert [key for key in table.rules if key.priority >= STOP and key.table == FLOW_SWITCH] == stop_keys(lab, "x")
    go_on.set()
    ticket.wait(10)


def test_two_withdrawals_in_a_row_have_stop_rules_of_their_own(lab: Lab) -> None:
    """The end of the first, still on its way to the switch, must not end the second."""
    keys = []
    for _ in range(2):
        lab.controller.write(withdrawal("s")).wait(10)
        keys += lab.switches["y"].overtaking
        lab.switches["y"].overtaking.clear()
        lab.write("s", *((f"10.{n}.0.0/16", HOPS[1]) for n in range(8)))
    assert len(set(keys)) == 2


def test_who_begins_to_lead_to_a_stopped_router_is_stopped_too(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab()
    lab.write("s", ("10.0.0.0/16", HOPS[1]))
    lab.settle()
    monkeypatch.setattr(lab.controller.stops, "wanted", lambda: frozenset({"s"}))
    lab.controller.now.layout.stop("s")
    lab.write("r", ("10.0.0.0/16", HOPS[0]))
    assert [f.value for key in stop_keys(lab, "x") for f in key.match] == [MAC["r0"]]
    lab.stop()
