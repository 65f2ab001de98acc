"""The agent's exchange with a fake fsctl, driven by hand: no sockets, and a clock that only tests move."""

from __future__ import annotations

import json

import pytest

from fsctl.agent.fib import Fold
from fsctl.agent.sync import Call, Settings, Sync
from fsctl.errors import FsctlError
from fsctl.model.addresses import Prefix, format_mac
from fsctl.model.delegations import Forward, Verdict
from fsctl.model.fib import Change
from fsctl.model.prefix_keys import key_of

from .fake import FakeFsctl, a_router
from .kernel import ETH0, ETH1, MACS

PART = ("eth0", 4, None)
VIA = Forward("eth1", 0x02000000000B)
ELSEWHERE = Forward("eth1", 0x02000000000C)


class World:
    """A fake fsctl, one agent's sync, and a clock that only tests move."""

    def __init__(self, session: str = "one", fake: FakeFsctl | None = None, grace: float = 0.0, now: float = 100.0) -> None:
        self.now = now
        self.router = a_router({"eth0": format_mac(MACS[ETH0]), "eth1": format_mac(MACS[ETH1])})
        self.fake = fake or FakeFsctl(self.router, lambda: self.now)
        self.fib = Fold().fib
        self.sync = Sync(Settings("vr1", session, 10.0, grace), self.fib, draw=lambda: 0.5)
        self.in_flight: list[Call] = []

    def set(self, prefix: str, verdict: Verdict | None) -> None:
        key = key_of(Prefix.parse(prefix))
        entries = self.fib.setdefault(PART, {})
        if verdict is None:
            entries.pop(key, None)
        else:
            entries[key] = verdict
        self.sync.changed([Change(PART, key, verdict)], self.now)

    def carry(self, call: Call) -> None:
        try:
            body = None if call.body is None else json.loads(call.body)
            answer = self.fake.handle(call.method, call.path, body, call.query)
        except FsctlError as e:
            self.sync.failed(call, e, self.now)
        else:
            self.sync.answered(call, answer, self.now)

    def run(self, seconds: float = 0.0) -> None:
        """Let time pass and carry out what is asked for."""
        end = self.now + seconds
        for _ in range(100_000):  # more would be an agent that spins
            while calls := self.sync.calls(self.now):
                for call in calls:
                    self.carry(call)
            wake = self.sync.wake(self.now)
            if wake is None or wake > end:
                self.now = end
                return
            self.now = max(self.now, wake)
        raise AssertionError("the agent spins")

    def there(self) -> dict[str, Verdict]:
        return {str(d.match.dst): d.verdict for d in self.fake.fib}

    def here(self) -> dict[str, Verdict]:
        return {str(Prefix(4, k >> 8, k & 255)): v for k, v in self.fib.get(PART, {}).items()}


@pytest.fixture
def world() -> World:
    made = World()
    made.set("10.0.0.0/8", VIA)
    made.run()
    return made
