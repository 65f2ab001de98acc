"""What every contender can be asked to do, on a chain of its own."""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from topologies.experiments.peer.ground import PREFIXES, Ground
from topologies.experiments.rig import memory_kib
from topologies.processes import LabError, Whole

POLL_S = 0.05
CHANGE_LIMIT_S, RESTART_LIMIT_S, CALM_LIMIT_S = 60.0, 60.0, 20.0
CALM_S = 0.5
CALM_SHARE = 0.1
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class RefusedError(LabError):
    """The contender says that it cannot do what it was asked."""


@dataclass(frozen=True, slots=True)
class Installed:
    """`rules` of `wanted` were in Open vSwitch when `seconds` were over."""

    seconds: float
    rules: int
    wanted: int

    @property
    def complete(self) -> bool:
        return self.rules >= self.wanted


@dataclass(frozen=True, slots=True)
class Restarted:
    """`ready_s`: from its start until it is at work again and all rules are there. `fewest`: rules for prefixes at the worst
    moment that was seen. `knows`: routes that it still knows without being told again."""

    ready_s: float
    fewest: int
    knows: int


class Contender(Whole):
    """A controller, its chain of routers and what to tell it. Errors are LabError."""

    name: str
    changes = 5
    """How many changes are worth waiting for."""

    def __init__(self, routers: int, limit_s: float) -> None:
        super().__init__()
        self.routers, self.limit_s = routers, limit_s
        self.ground: Ground

    @abstractmethod
    def _open(self) -> None:
        """Bridges and a controller without routes, everything entered in `_stack`."""

    @property
    @abstractmethod
    def pids(self) -> list[int]:
        """The controller's processes."""

    @property
    @abstractmethod
    def entry_mac(self) -> str:
        """Where the sender's packets go."""

    @abstractmethod
    def install(self, count: int) -> Installed:
        """`count` routes at each router, from the first request until Open vSwitch has every rule, or until the limit."""

    @abstractmethod
    def change(self, number: int) -> float | None:
        """The last router's route for prefix `number` is to lead to the other host: seconds until it does; None if too late."""

    @abstractmethod
    def restart(self) -> Restarted | None:
        """Ends the controller in order and starts it again."""

    def calm_down(self) -> None:
        """Until its processes have done what they were busy with."""
        waited(lambda: share_of_processor(self.pids, CALM_S) < CALM_SHARE, CALM_LIMIT_S, 0.0)

    def rules(self) -> int:
        """Rules for prefixes, in all bridges."""
        return self.ground.count(PREFIXES)

    def memory_kib(self, what: str = "VmRSS") -> int:
        """Of all its processes together."""
        return sum(memory_kib(pid, what) for pid in self.pids)


def waited(condition: Callable[[], bool], limit_s: float, poll_s: float = POLL_S) -> float | None:
    """Seconds until `condition` held; None if it did not within the limit."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > limit_s:
            return None
        time.sleep(poll_s)
    return time.monotonic() - start


def share_of_processor(pids: list[int], seconds: float) -> float:
    """How much of a processor these processes use, over that time (proc(5))."""
    before = _ticks(pids)
    time.sleep(seconds)
    return (_ticks(pids) - before) / TICKS_PER_S / seconds


def _ticks(pids: list[int]) -> int:
    fields = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids)
    return sum(int(found[11]) + int(found[12]) for found in fields)
