"""What must not be bypassed any more is withdrawn past everything else."""

from __future__ import annotations

import json

import pytest

from fsctl.agent.backoff import FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS
from fsctl.agent.lag import MOST_LAG_SECONDS
from fsctl.agent.sync import MAX_WAIT_SECONDS, SAFETY, SESSION, WRITE, Call
from fsctl.errors import UnavailableError

from .sync_world import ELSEWHERE, PART, VIA, World


def begin(world: World) -> Call:
    """A large write that fsctl takes its time for."""
    world.set("10.9.0.0/16", VIA)
    world.now += MAX_WAIT_SECONDS
    (call,) = [c for c in world.sync.calls(world.now) if c.lane == WRITE]
    return call


@pytest.mark.parametrize("comes", ["before", "after", "never"])
def test_fault_C8_a_withdrawal_overtakes_the_write_under_way(world: World, comes: str) -> None:
    """It was sent once the write was answered: 7.5 s later."""
    write = begin(world)
    if comes == "before":
        assert write.body is not None
        world.fake.handle(write.method, write.path, json.loads(write.body), write.query)
    world.sync.withdraw_now()
    (now,) = world.sync.calls(world.now)
    assert (now.lane, now.method, now.body) == (SAFETY, "DELETE", None), "one small message, on a connection of its own"
    assert not world.sync.calls(world.now), "nothing else is written before it is answered"
    world.carry(now)
    assert world.there() == {}
    if comes == "after":
        world.carry(write)
        assert world.there() == {}, "fsctl ignores what was sent before"
    elif comes == "before":
        world.sync.answered(write, {"failed": []}, world.now)
    else:
        world.sync.failed(write, UnavailableError("no answer"), world.now)
    assert not world.sync.in_step
    world.run(1.0)
    assert world.there() == world.here(), "then the whole table is sent, as it is by now"
    assert world.sync.in_step
    assert world.sync.has_session


def urgent(world: World) -> list[Call]:
    """Carry out what the session asks for; the withdrawals that are asked for."""
    calls = world.sync.calls(world.now)
    for call in calls:
        if call.lane == SESSION:
            world.carry(call)
            calls += world.sync.calls(world.now)
    return [call for call in calls if call.lane == SAFETY]


def test_fault_C8_a_slow_write_is_withdrawn_when_changes_have_waited_too_long(world: World) -> None:
    """Until then fsctl acts on what was so before."""
    changed = world.now
    write = begin(world)
    while (lag := world.sync.lag.seconds(world.now)) < MOST_LAG_SECONDS:
        assert lag == pytest.approx(world.now - changed), "its age shows"
        assert not urgent(world)
        wake = world.sync.wake(world.now)
        assert wake is not None, "the agent wakes up for it"
        world.now = max(wake, world.now + 0.01)
    (now,) = urgent(world)
    world.carry(now)
    assert world.there() == {}
    assert world.sync.lag.seconds(world.now) == 0
    world.sync.failed(write, UnavailableError("no answer"), world.now)
    assert "behind" in world.sync.problem
    world.run(FIRST_RETRY_SECONDS * 2)
    assert world.there() == world.here()
    world.run(100)
    assert world.sync.lag.withdrawals == 1


def test_what_an_earlier_agent_has_left_is_withdrawn_if_it_cannot_be_replaced() -> None:
    """The agent was restarted within its lease; heartbeats are answered, and its first write is not."""
    before = World()
    before.set("10.0.0.0/8", VIA)
    before.run()
    world = World(fake=before.fake, now=before.now)
    world.set("10.0.0.0/8", ELSEWHERE)
    begins = world.now
    while not (now := urgent(world)):  # the write under way is not answered
        assert world.now - begins <= MOST_LAG_SECONDS
        world.now += 0.1
    world.carry(now[0])
    assert world.there() == {}


def test_who_is_late_again_and_again_is_sent_everything_ever_more_rarely(world: World) -> None:
    for round_ in range(8):
        write = begin(world)
        while not (now := urgent(world)):
            world.now += 0.5
        world.carry(now[0])
        world.sync.failed(write, UnavailableError("no answer"), world.now)
        paused = world.now
        while not [c for c in world.sync.calls(world.now) if c.what == "replace" or (c.lane == SESSION and world.carry(c))]:
            world.now = max(world.sync.wake(world.now) or 0.0, world.now + 0.01)
        assert world.now - paused >= min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2**round_) * 0.74
        world.sync.failed(world.sync._busy[WRITE], UnavailableError("no answer"), world.now)
        world.sync._backoff[WRITE].tries = 0
        world.sync._not_before[WRITE] = 0.0


def test_nobody_is_late_who_has_nothing_there() -> None:
    world = World()
    world.set("10.0.0.0/8", VIA)
    world.fake.refuse = lambda _method, path: UnavailableError("busy") if path.endswith("flows") else None
    world.run(5)
    world.set("10.1.0.0/16", VIA)
    assert not world.there()
    world.fake.refuse = lambda _method, _path: None
    world.run(60)
    assert world.there() == world.here()


def test_a_long_write_without_changes_is_left_alone(world: World) -> None:
    write = begin(world)
    world.sync.answered(write, {"failed": []}, world.now)
    world.sync._is_full = False
    (write,) = [c for c in world.sync.calls(world.now) if c.what == "replace"]
    for _ in range(300):
        world.now += 0.1
        assert not urgent(world)
    world.carry(write)
    assert world.there() == world.here()


def test_a_withdrawal_is_tried_again_until_it_is_answered(world: World) -> None:
    world.fake.refuse = lambda method, path: UnavailableError("busy") if (method, path[-5:]) == ("DELETE", "flows") else None
    world.sync.withdraw_now()
    world.run(1.0)
    assert world.there()
    world.fake.refuse = lambda _method, _path: None
    del world.fib[PART]
    world.run(3.0)
    assert world.there() == {}


def test_a_withdrawal_does_not_wait_until_a_failed_write_is_tried_again(world: World) -> None:
    """Up to 15 s, while heartbeats kept what had been written before in force: a firewall that had come meanwhile was passed."""
    world.fake.refuse = lambda method, path: UnavailableError("busy") if method != "DELETE" and path.endswith("flows") else None
    world.set("10.1.0.0/16", VIA)
    world.run(MOST_LAG_SECONDS - 2)
    assert world.there(), "the session is alive, and so is what was written before"
    assert world.sync.is_writing
    del world.fib[PART]
    world.sync.withdraw_now()
    world.run(0.1)
    assert world.there() == {}


def test_nothing_is_withdrawn_that_fsctl_does_not_have() -> None:
    world = World()
    world.sync.withdraw_now()
    world.run(1.0)
    assert ("DELETE", "flows", 0) not in world.fake.log


def test_an_interface_that_was_overtaken_is_told_again(world: World) -> None:
    world.sync.interfaces({"eth0": {"addresses": ["10.0.0.1/24"], "mtu": 1400}})
    (told,) = [c for c in world.sync.calls(world.now) if c.lane == WRITE]
    world.sync.withdraw_now()
    (now,) = world.sync.calls(world.now)
    world.carry(now)
    world.carry(told)  # fsctl ignores it: it is older
    world.run(1.0)
    assert world.fake.said["eth0"].mtu == 1400
