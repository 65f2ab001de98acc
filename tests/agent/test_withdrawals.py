"""What must not be bypassed any more is withdrawn past everything else."""

from __future__ import annotations

import json

import pytest

from fsctl.agent.sync import MAX_WAIT_SECONDS, SAFETY, WRITE, Call
from fsctl.errors import UnavailableError

from .sync_world import PART, VIA, World


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
    world.run(60.0)
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
