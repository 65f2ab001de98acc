"""What has to hold all the time: no delegation past an obstacle, or past the lease of an agent that is silent."""

from __future__ import annotations

import threading

from fsctl.errors import FsctlError
from tests.agent.chaos.world import LEASE_S, World

LOOK_S = 0.1
LEASE_LATE_S = 1.0


class Guard(threading.Thread):
    """Looks at fsctl's table ten times a second. `problems` are what it has seen that must not be."""

    def __init__(self, world: World) -> None:
        super().__init__(daemon=True)
        self.world = world
        self.problems: list[str] = []
        self.looks = 0
        self.silent_since: float | None = None
        """Since when the agent has been stopped (`FairClock.scheduled`; its fair time does not pass then)."""
        self._ending = threading.Event()

    def stop(self) -> None:
        self._ending.set()
        self.join()

    def run(self) -> None:
        while not self._ending.wait(LOOK_S):
            try:
                self._look()
            except FsctlError:
                continue  # the controller is stopped: asked again

    def _look(self) -> None:
        standing, silent = dict(self.world.standing), self.silent_since
        begins, plain = self.world.fair.now(), self.world.fair.scheduled()
        late = {n: o for n, (o, since) in standing.items() if begins > since + o.within_s + self.world.line.slack_s}
        delegations = self.world.delegations()
        self.looks += 1
        current = self.world.standing
        for name, obstacle in late.items():
            wrong = [d for d in delegations if obstacle.violated(d)]
            if wrong and current.get(name) == standing[name]:
                age = begins - standing[name][1]
                self.problems.append(f"{name} has stood for {age:.2f} s, delegated is {wrong[0]} and {len(wrong) - 1} more")
        if silent is not None and silent == self.silent_since and delegations and plain > silent + LEASE_S + LEASE_LATE_S:
            self.problems.append(f"silent for {plain - silent:.2f} s, lease {LEASE_S:g} s: {len(delegations)} delegations left")
