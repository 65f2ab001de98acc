"""Time in which nobody was served ends no lease (D8)."""

from __future__ import annotations

from fsctl.lease_clock import TICK_S, LeaseClock
from fsctl.runtime import Threads


class World:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.time = 100.0
        runtime = Threads()
        runtime.now = lambda: self.time  # type: ignore[method-assign]
        self.clock = LeaseClock(runtime, lambda: self.time)

    def goes_on(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK_S)):
            self.time += TICK_S
            self.clock.tick()


def test_d8_time_counts_while_ticks_come() -> None:
    world = World()
    world.goes_on(10.0)
    assert abs(world.clock.now() - 110.0) < 0.01


def test_d8_a_stall_does_not_count_not_even_before_the_next_tick() -> None:
    world = World()
    world.goes_on(1.0)
    world.time += 60.0
    assert world.clock.now() < 101.2
    world.clock.tick()
    world.goes_on(1.0)
    assert 101.9 < world.clock.now() < 102.2
    assert world.clock.lost_s > 59.0
