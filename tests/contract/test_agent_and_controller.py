"""B5: the agent's exchange against the real controller: at no time a forward without the holes in it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from fsctl.agent.sync import MAX_WAIT_SECONDS, Call, Settings, Sync
from fsctl.client import _BY_SLUG, PROBLEM_PREFIX
from fsctl.model.addresses import Prefix
from fsctl.model.delegations import PUNT, Forward, Verdict
from fsctl.model.fib import Change, PartKey
from fsctl.model.prefix_keys import Key, key_of
from tests.contract.targets import RealController

PART: PartKey = ("eth0", 4, None)
WIDE, HOLES = "10.0.0.0/8", [f"10.{n}.0.0/16" for n in range(20)]
VIA, ELSEWHERE = Forward("eth1", 0x0200_0000_0099), Forward("eth1", 0x0200_0000_0098)
LEASE_S = 10.0


class Guest:
    """An agent whose calls are carried by hand; looks at the router's FIB after each of them."""

    def __init__(self, fsctl: RealController) -> None:
        self.fsctl, self.fib = fsctl, dict[PartKey, dict[Key, Verdict]]({PART: {}})
        self.sync = Sync(Settings("r", "agent", LEASE_S), self.fib, draw=lambda: 0.5)
        self.bare = 0
        """How often 10.0.0.0/8 was delegated without one of its holes."""

    def set(self, text: str, verdict: Verdict) -> None:
        key = key_of(Prefix.parse(text))
        self.fib[PART][key] = verdict
        self.sync.changed([Change(PART, key, verdict)], self.fsctl.clock.now())

    def carry(self, call: Call) -> None:
        body = None if call.body is None else json.loads(call.body)
        status, answer = self.fsctl.call(call.method, call.path.removeprefix("/v1/routers/r"), body, call.query)
        now = self.fsctl.clock.now()
        if status < 300:
            self.sync.answered(call, answer, now)
        else:
            kind = _BY_SLUG[answer["type"].removeprefix(PROBLEM_PREFIX)]
            self.sync.failed(call, kind(answer["detail"], field=answer.get("field"), value=answer.get("value")), now)
        self.look()

    def look(self) -> None:
        there = self.there()
        self.bare += WIDE in there and not set(HOLES) <= there

    def there(self) -> set[str]:
        return {f["match"]["ipv4_dst"] for f in self.fsctl.call("GET", "/flows")[1]["flows"]}

    def run(self, seconds: float) -> None:
        end = self.fsctl.clock.now() + seconds
        while self.fsctl.clock.now() < end:
            for call in self.sync.calls(self.fsctl.clock.now()):
                self.carry(call)
            wake = self.sync.wake(self.fsctl.clock.now())
            self.fsctl.clock.ahead += max(0.001, min(end, end if wake is None else wake) - self.fsctl.clock.now())


@pytest.fixture
def guest() -> Iterator[Guest]:
    fsctl = RealController()
    guest = Guest(fsctl)
    for hole in HOLES:
        guest.set(hole, PUNT)
    guest.set(WIDE, VIA)
    guest.run(1)
    assert guest.there() == {WIDE, *HOLES}
    yield guest
    fsctl.close()


def test_fault_B5_an_agent_suspended_past_its_lease_never_leaves_a_forward_bare(guest: Guest) -> None:
    for round_ in range(4):
        guest.fsctl.pass_time(LEASE_S + 1)  # suspended
        assert guest.there() == set()
        guest.set(WIDE, ELSEWHERE if round_ % 2 else VIA)
        guest.fsctl.clock.ahead += MAX_WAIT_SECONDS  # heartbeat and change leave together
        guest.run(1)
        assert guest.there() == {WIDE, *HOLES}
        assert guest.sync.in_step
    assert guest.bare == 0
    assert guest.sync.counters.full <= 1 + 4


def test_fault_B5_a_change_that_was_on_its_way_when_the_agent_was_suspended(guest: Guest) -> None:
    """The heartbeat that opens a new session overtakes it."""
    guest.set(WIDE, ELSEWHERE)
    guest.fsctl.clock.ahead += MAX_WAIT_SECONDS
    (change,) = guest.sync.calls(guest.fsctl.clock.now())
    guest.fsctl.pass_time(LEASE_S + 1)
    for heartbeat in guest.sync.calls(guest.fsctl.clock.now()):
        guest.carry(heartbeat)
    guest.carry(change)
    guest.run(1)
    assert guest.bare == 0
    assert guest.there() == {WIDE, *HOLES}


def test_an_administrators_write_is_followed_by_the_whole_table(guest: Guest) -> None:
    body = {"remove": [{"in": "eth0", "ipv4_dst": HOLES[0]}, {"in": "eth0", "ipv4_dst": WIDE}]}
    assert guest.fsctl.call("PATCH", "/flows", body, is_admin=True)[0] == 200
    guest.set(WIDE, ELSEWHERE)
    guest.run(1)
    assert guest.bare == 0
    assert guest.there() == {WIDE, *HOLES}
