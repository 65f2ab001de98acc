"""The whole of it under disturbance: random writes over REST while ports come and go and the controller is killed.

At every pause Open vSwitch must hold what a compilation from nothing makes of the test's own books: which delegations
were accepted, and which ports there are. FSCTL_SOAK_SECONDS sets how long (default 20); a failure prints its seed,
which FSCTL_SOAK_SEED replays (as far as time allows: what is under way when the controller dies is not drawn).
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from soak_model import BRIDGES, Books, Flows, Wiring, unused_ways

from fsctl.client import Client, UnreachableError
from fsctl.errors import InvalidError, UnavailableError
from fsctl.model.addresses import format_mac
from fsctl.model.delegations import Forward
from fsctl.schema.flows import flow_json, match_json
from tests.properties.laws import all_resolved, compiled
from tests.strategies import ADDRESSES, HOST_MACS, a_match, a_verdict
from topologies.control import Control
from topologies.sandbox import Sandbox, available

pytestmark = pytest.mark.ovs
SECONDS = float(os.environ.get("FSCTL_SOAK_SECONDS", "20"))
SEED = int(os.environ.get("FSCTL_SOAK_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
FOLLOW_S = 30.0
Step = Callable[[], str]


class Soak:
    """A controller and a switch of its own; steps that disturb them, each described in a line."""

    def __init__(self, ovs: Sandbox, directory: Path, rng: random.Random) -> None:
        self.rng, self.books, self.wiring = rng, Books(), Wiring(ovs)
        self.control = Control(directory, self.books.config(), "127.0.0.1", ovs)
        self.steps: tuple[Step, ...] = (
            *(self.write,) * 6, *(self.write_several,) * 6, self.move, self.readdress, self.port_state, self.replug,
            self.restart, self.kill_while_writing,
        )  # fmt: skip

    def draw(self, n: int) -> int:
        return self.rng.randrange(n)

    # --- writes ---------------------------------------------------------------------------------------

    def _after(self, router: str) -> tuple[str, Any, Flows]:
        """A write: its method, its body, and the FIB that it leads to."""
        routers, before = self.books.routers, self.books.flows[router]
        kind = self.rng.choice(("PUT", "PATCH", "PATCH", "PATCH", "DELETE"))
        drawn = [
            (a_match(self.draw, routers[router], routers), a_verdict(self.draw, routers[router], routers))
            for _ in range(self.rng.choice((1, 1, 2, 5, 30)))
        ]
        new = {match: verdict for match, verdict in drawn if self.books.may(router, verdict)}
        if kind == "DELETE":
            return kind, None, {}
        if kind == "PUT":
            return kind, {"flows": [flow_json(d) for d in self.books.delegations(new)]}, new
        gone = [m for m in self.rng.sample(list(before), min(len(before), self.draw(4))) if m not in new]
        body = {"add": [flow_json(d) for d in self.books.delegations(new)], "remove": [match_json(m) for m in gone]}
        return kind, body, {**{m: v for m, v in before.items() if m not in gone}, **new}

    def _send(self, router: str, write: tuple[str, Any, Flows], lost: set[str]) -> None:
        method, body, after = write
        with Client(self.control.url, self.control.tokens[router]) as client:
            try:
                client.call(method, f"/v1/routers/{router}/flows", body)
                self.books.flows[router] = after
            except InvalidError:
                pass  # changes nothing: the next comparison sees to it
            except (UnreachableError, UnavailableError):
                lost.add(router)

    def _at_once(self, routers: list[str], meanwhile: Callable[[], None]) -> tuple[dict[str, Flows], set[str]]:
        """Writes of several routers at the same time; what they would lead to, and which had no answer."""
        writes, lost = {router: self._after(router) for router in routers}, set[str]()
        threads = [threading.Thread(target=self._send, args=(r, w, lost)) for r, w in writes.items()]
        for thread in threads:
            thread.start()
        meanwhile()
        for thread in threads:
            thread.join()
        return {router: after for router, (_, _, after) in writes.items()}, lost

    def write(self) -> str:
        router = self.rng.choice(sorted(self.books.routers))
        _, lost = self._at_once([router], lambda: None)
        assert not lost
        return f"write {router}"

    def write_several(self) -> str:
        routers = self.rng.sample(sorted(self.books.routers), 2 + self.draw(2))
        _, lost = self._at_once(routers, lambda: None)
        assert not lost
        return f"write {routers}"

    def move(self) -> str:
        """A neighbour's MAC."""
        router = self.rng.choice(sorted(self.books.routers))
        out = self.rng.choice(sorted(self.books.routers[router].interfaces))
        old, new = self.rng.sample(HOST_MACS[:2], 2)
        self.control.client.move_nexthop(router, out, format_mac(old), format_mac(new))
        flows = self.books.flows[router]
        self.books.flows[router] = {m: Forward(out, new) if v == Forward(out, old) else v for m, v in flows.items()}
        return f"move {router} {out} {old:x} {new:x}"

    def readdress(self) -> str:
        router = self.rng.choice(sorted(self.books.routers))
        name = self.rng.choice(sorted(self.books.routers[router].interfaces))
        addresses, mtu = tuple(self.rng.sample(ADDRESSES, self.draw(3))), self.rng.choice((1500, 1400))
        self.control.client.change_interface(router, name, addresses=[str(a) for a in addresses], mtu=mtu)
        self.books.readdress(router, name, addresses, mtu)
        return f"readdress {router} {name} {addresses} {mtu}"

    # --- ports and controller -----------------------------------------------------------------------------

    def port_state(self) -> str:
        port, state = self.rng.choice(self.books.ports()), self.rng.choice(("up", "down", "up"))
        self.wiring.set_state(port, state)
        return f"{port} {state}"

    def replug(self) -> str:
        """A port goes and comes back under another number, perhaps one that another port had."""
        bridge, port = self.rng.choice(self.books.places())
        number = self.wiring.replug(bridge, port, 1 + self.draw(6))
        return f"replug {port} at {number}"

    def restart(self) -> str:
        self.control.stop()
        self.control.start()
        return "restart"

    def kill_while_writing(self) -> str:
        """Every write is there whole afterwards, or not at all; one that was answered is there."""

        def kill() -> None:
            time.sleep(self.rng.uniform(0, 0.04))
            self.control.kill()

        routers = sorted(self.books.routers)
        before = dict(self.books.flows)
        after, lost = self._at_once(routers, kill)
        self.control.start()
        for router in lost:
            found = self.books.read(router, self.control.client.flows(router))
            assert found in (before[router], after[router]), f"{router}: half a write"
            self.books.flows[router] = found
        return f"kill, {len(lost)} of {len(routers)} writes without an answer"

    # --- the comparison ------------------------------------------------------------------------------------

    def differences(self) -> str:
        """What Open vSwitch has and should not, or has not and should; empty when it is in step."""
        dumped = self.wiring.dump()
        try:
            found = all_resolved(dumped)
        except KeyError as e:
            return f"a rule names a way that is not there: {e}"
        # As sets: two ways that do the same are right where two neighbours have come to share a MAC address.
        wanted = all_resolved(compiled(self.books.network(self.wiring)))
        lines = [f"{b}: missing {gone}" for b in BRIDGES if (gone := wanted[b].keys() - found[b].keys())]
        lines += [f"{b}: too much {more}" for b in BRIDGES if (more := found[b].keys() - wanted[b].keys())]
        lines += [f"{b}: ways to nowhere {left}" for b in BRIDGES if (left := unused_ways(dumped[b]))]
        return "\n".join(lines)

    def settle(self) -> str:
        """`differences`, once they are gone or have stayed for long enough."""
        deadline = time.monotonic() + FOLLOW_S
        while (found := self.differences()) and time.monotonic() < deadline:
            time.sleep(0.05)
        for router, flows in self.books.flows.items():
            assert self.books.read(router, self.control.client.flows(router)) == flows
        return found


@pytest.fixture
def soak(tmp_path: Path) -> Iterator[Soak]:
    if not available():
        pytest.skip("Open vSwitch is not installed")
    sandbox = Sandbox()
    try:
        sandbox.start()
        soak = Soak(sandbox, tmp_path, random.Random(SEED))
        soak.wiring.build(soak.books)
        try:
            soak.control.start()
            yield soak
        finally:
            soak.control.stop()
    finally:
        sandbox.stop()


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 120)
def test_open_vswitch_holds_what_was_accepted(soak: Soak) -> None:
    history: list[str] = []
    ends, most = time.monotonic() + SECONDS, 0
    while time.monotonic() < ends:
        history.append(soak.rng.choice(soak.steps)())
        found = soak.settle()
        assert not found, "\n".join([f"FSCTL_SOAK_SEED={SEED}", *history[-40:], found, soak.control.log_tail()])
        most = max(most, sum(len(f) for f in soak.books.flows.values()))
    assert most > 5, "hardly anything was ever delegated: the test says nothing"
