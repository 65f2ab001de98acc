"""The exchange with fsctl: sessions, batches, retries; driven by hand and by dice, without sockets or clocks."""

from __future__ import annotations

import json
import random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from fsctl.agent.sync import MAX_WAIT_SECONDS, QUIET_SECONDS, SESSION, WRITE, Call, Mode
from fsctl.errors import ForbiddenError, FsctlError, InvalidError, UnavailableError
from fsctl.model.delegations import PUNT
from fsctl.model.fib import Fib

from .sync_world import ELSEWHERE, VIA, World

EVENT_SECONDS = 0.001


def test_first_everything_then_differences(world: World) -> None:
    assert world.there() == {"10.0.0.0/8": VIA}
    assert world.sync.in_step
    world.set("10.1.0.0/16", PUNT)
    world.set("10.0.0.0/8", None)
    world.run(0.1)
    assert world.there() == {"10.1.0.0/16": PUNT}
    assert [entry for entry in world.fake.log if entry[1] == "flows"] == [("PUT", "flows", 1), ("PATCH", "flows", 1)]


def test_steady_state_sends_nothing_but_heartbeats(world: World) -> None:
    before = len(world.fake.log)
    world.run(60)
    sent = world.fake.log[before:]
    assert {(method, path) for method, path, _ in sent} == {("PUT", "session")}
    assert len(sent) < 60
    assert world.there() == {"10.0.0.0/8": VIA}, "and the lease never ends"


def test_a_burst_is_few_calls(world: World) -> None:
    before = world.sync.counters.patches
    for n in range(10_000):
        world.set(f"10.{n >> 8}.{n & 255}.0/24", VIA)
        world.now += EVENT_SECONDS / 10
        world.run()
    world.run(1)
    assert len(world.there()) == 10_001
    assert world.sync.counters.patches - before <= 1 + 10_000 * EVENT_SECONDS / 10 / MAX_WAIT_SECONDS


def test_one_change_leaves_at_once(world: World) -> None:
    world.set("10.1.0.0/16", VIA)
    world.run(QUIET_SECONDS * 1.5)
    assert "10.1.0.0/16" in world.there()


def test_changes_during_a_write_are_not_lost(world: World) -> None:
    world.set("10.1.0.0/16", VIA)
    world.now += 1
    (call,) = world.sync.calls(world.now)
    world.set("10.1.0.0/16", ELSEWHERE)
    world.set("10.2.0.0/16", VIA)
    world.carry(call)
    world.run(1)
    assert world.there() == world.here()
    assert world.here()["10.1.0.0/16"] == ELSEWHERE


def test_hazard_30_a_silent_agent_loses_its_flows_with_the_lease(world: World) -> None:
    world.now += 11
    world.fake.tick()
    assert world.there() == {}


def test_hazard_30_grace_holds_them_for_a_returning_agent() -> None:
    world = World(grace=30.0)
    world.set("10.0.0.0/8", VIA)
    world.run()
    world.now += 20
    world.fake.tick()
    assert world.there() == {"10.0.0.0/8": VIA}
    returning = World(session="one", fake=world.fake, now=world.now)
    returning.set("10.0.0.0/8", VIA)
    returning.run()
    assert returning.there() == {"10.0.0.0/8": VIA}


def test_a_second_agent_is_refused_and_takes_over_when_the_lease_is_over(world: World) -> None:
    second = World(session="two", fake=world.fake, now=world.now)
    second.fake.clock = lambda: second.now
    second.set("10.7.0.0/16", VIA)
    second.run(1)
    assert "another agent holds this router" in second.sync.problem
    assert second.there() == {"10.0.0.0/8": VIA}
    second.run(20)
    assert second.there() == {"10.7.0.0/16": VIA}
    world.now = second.now
    world.set("10.8.0.0/16", VIA)
    world.run(1)
    assert second.there() == {"10.7.0.0/16": VIA}, "the first one, come back, may not write"
    assert not world.sync.has_session


def test_an_agent_that_ends_withdraws_first(world: World) -> None:
    world.sync.stop()
    world.run()
    assert world.sync.mode is Mode.ENDED
    assert [entry[:2] for entry in world.fake.log[-2:]] == [("DELETE", "flows"), ("DELETE", "session")]
    assert world.fake.session is None


def test_an_agent_that_ends_tries_again_while_fsctl_is_away(world: World) -> None:
    world.set("10.1.0.0/16", VIA)
    world.now += 1
    (call,) = world.sync.calls(world.now)
    world.sync.stop()
    world.sync.failed(call, InvalidError("a change that was under way"), world.now)
    refusals = iter([UnavailableError("away")] * 3)
    world.fake.refuse = lambda _method, _path: next(refusals, None)
    world.run(5)
    assert world.sync.mode is Mode.ENDED
    assert world.there() == {}
    assert world.fake.session is None


def test_an_agent_that_ends_gives_up_where_the_router_is_anothers(world: World) -> None:
    world.fake.session = None
    world.sync.stop()
    world.run()
    assert world.sync.mode is Mode.ENDED


def test_an_agent_without_a_session_just_ends() -> None:
    world = World()
    world.sync.stop()
    assert world.sync.mode is Mode.ENDED
    assert world.sync.calls(world.now) == []


def test_a_refused_write_withdraws_rather_than_leave_what_is_old(world: World) -> None:
    bad = InvalidError("expected something else", field="add[0].set.eth_dst", value="x")
    world.fake.refuse = lambda method, path: bad if method in ("PUT", "PATCH") and path.endswith("flows") else None
    world.set("10.1.0.0/16", VIA)
    world.run(1)
    assert world.there() == {}
    assert "expected something else" in world.sync.problem
    world.fake.refuse = lambda _method, _path: None
    world.run(60)
    assert world.there() == world.here()
    assert world.sync.problem == ""


def test_a_refused_token_is_not_tried_in_a_hurry(world: World) -> None:
    calls = 0

    def refuse(_method: str, _path: str) -> FsctlError:
        nonlocal calls
        calls += 1
        return ForbiddenError("not yours")

    world.fake.refuse = refuse
    world.set("10.1.0.0/16", VIA)
    world.run(300)
    assert 5 <= calls <= 25


def test_fsctl_away_is_survived_with_backoff(world: World) -> None:
    tried: list[float] = []

    def away(_method: str, _path: str) -> FsctlError:
        tried.append(world.now)
        return UnavailableError("no answer")

    world.fake.refuse = away
    world.set("10.1.0.0/16", VIA)
    world.run(120)
    assert len(tried) < 60
    world.fake.refuse = lambda _method, _path: None
    full = world.sync.counters.full
    world.run(40)
    assert world.there() == world.here()
    assert world.sync.counters.full <= full + 2, "not many: one may be withdrawn again, for having been late"


def test_fsctl_that_forgot_is_told_again(world: World) -> None:
    """An empty store, an administrator's DELETE: the heartbeat's answer says so."""
    world.fake.fib, world.fake.session = Fib(), None
    world.run(10)
    assert world.there() == world.here()


def test_fault_B5_a_change_that_meets_a_new_session_is_followed_by_everything_at_once(world: World) -> None:
    """Suspended past the lease: the heartbeat opens a new session, and the change behind it is refused."""
    world.now += 11
    world.fake.tick()
    world.set("10.1.0.0/16", PUNT)
    world.now += 1
    world.run(0.1)
    assert world.there() == world.here()
    assert world.sync.problem == ""
    flows = [entry for entry in world.fake.log if entry[1] == "flows"]
    assert flows[-1] == ("PUT", "flows", 2)
    assert all(entry[0] != "PATCH" for entry in flows)


def test_hazard_38_interfaces_are_announced_before_flows_and_again_when_they_change() -> None:
    world = World()
    world.sync.interfaces({"eth1": {"addresses": ["10.0.1.1/24"], "mtu": 1400}})
    world.set("10.0.0.0/8", VIA)
    world.run()
    order = [entry[:2] for entry in world.fake.log]
    assert order.index(("PATCH", "eth1")) < order.index(("PUT", "flows"))
    assert world.fake.announced == {"eth1": {"addresses": ["10.0.1.1/24"], "mtu": 1400}}
    world.sync.interfaces({"eth1": {"addresses": ["10.0.1.1/24"], "mtu": 1300}})
    world.run(1)
    assert world.fake.announced["eth1"]["mtu"] == 1300


def test_reasons_are_told_at_once(world: World) -> None:
    world.sync.reasons([{"name": "firewall"}])
    world.run()
    assert world.fake.session is not None
    assert world.fake.session.reasons == [{"name": "firewall"}]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
@example(2110499)  # a late write to a session that fsctl has forgotten and opened anew
@example(3579356788)
def test_whatever_happens_fsctl_ends_with_the_fold(seed: int) -> None:
    """Calls fail, answers get lost, fsctl forgets, time jumps: in the end nothing is lost or doubled."""
    dice, world, late = random.Random(seed), World(), list[Call]()
    for _ in range(60):
        what = dice.random()
        if what < 0.5:
            world.set(f"10.{dice.randrange(4)}.0.0/16", dice.choice([VIA, ELSEWHERE, PUNT, None]))
        elif what < 0.9:
            for call in world.sync.calls(world.now):
                world.in_flight.append(call)
        elif what < 0.93:
            world.fake.fib, world.fake.session = Fib(), None
        for _ in range(len(world.in_flight)):
            if dice.random() < 0.5:
                end_somehow(world, world.in_flight.pop(dice.randrange(len(world.in_flight))), dice.random(), late)
        while late and dice.random() < 0.2:
            try_quietly(world, late.pop())
        world.now += dice.choice([0.0, 0.001, 0.01, 1.0, 5.0])
    for call in world.in_flight:
        world.carry(call)
    world.run(120)
    for call in late:
        try_quietly(world, call)
    assert world.there() == world.here()
    assert world.sync.in_step


def end_somehow(world: World, call: Call, fate: float, late: list[Call]) -> None:
    if fate < 0.7:
        world.carry(call)
        return
    if fate < 0.8:  # carried out, but the answer is lost
        try_quietly(world, call)
    elif fate < 0.9:  # carried out later, when nobody expects it any more
        late.append(call)
    world.sync.failed(call, UnavailableError("no answer"), world.now)


def try_quietly(world: World, call: Call) -> None:
    """What fsctl would have answered, nobody hears."""
    try:
        world.fake.handle(call.method, call.path, None if call.body is None else json.loads(call.body), call.query)
    except FsctlError as e:
        assert e.status < 500  # noqa: PT017 - a refusal nobody hears of


def test_lanes_are_two() -> None:
    assert {call.lane for call in World().sync.calls(0.0)} == {SESSION}
    assert WRITE != SESSION


def test_fault_C11_F10_more_than_fsctl_allows_is_not_sent_again_and_again(world: World) -> None:
    """413, everything withdrawn, the whole table again every 15 s; and nobody was told why."""
    assert world.sync.router is not None
    world.sync.router["max_flows"] = 2
    for n in range(3):
        world.set(f"10.{n}.0.0/16", VIA)
    before = len(world.fake.log)
    world.run(120.0)
    sent = [entry for entry in world.fake.log[before:] if entry[1] == "flows"]
    assert [method for method, _, _ in sent] == ["DELETE"], "what is there is older than the kernel's table"
    assert world.there() == {}
    assert world.sync.too_many == "4 delegations are needed, fsctl allows 2 (max_flows)"
    for n in range(2):
        world.set(f"10.{n}.0.0/16", None)
    world.run(20.0)
    assert world.there() == world.here()
    assert not world.sync.too_many


def test_a_refused_write_has_its_reason_until_one_is_taken(world: World) -> None:
    world.fake.refuse = lambda method, _path: InvalidError("no", field="flows", value=1) if method == "PATCH" else None
    world.set("10.1.0.0/16", VIA)
    world.run(1.0)
    assert "flows: no (got 1)" in world.sync.refused
    world.fake.refuse = lambda _method, _path: None
    world.run(40.0)
    assert not world.sync.refused
    assert world.there() == world.here()
