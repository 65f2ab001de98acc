"""Real controller, real Open vSwitch, real packets, routers that route: and an adversary, drawn at random.

At every pause the switch holds what was delegated, and both worlds, the bypassed one and the one where the same routers
route everything, deliver the same frames. At any time nobody hears what is not his.

FSCTL_SOAK_SECONDS sets how long (60), FSCTL_SOAK_SEED replays what a failure prints, FSCTL_SOAK_ONLY=a,b draws these
actions alone; FSCTL_SOAK_ONLY=list names them all.
"""

from __future__ import annotations

import os
import random
import shutil
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.soak import on_ports, on_processes, on_rules
from tests.soak.actions import ACTIONS, Action
from tests.soak.harness import STATED_S, Soak
from tests.soak.pause import WELL, Pause
from topologies.sandbox import available

SECONDS = float(os.environ.get("FSCTL_SOAK_SECONDS", "60"))
SEED = int(os.environ.get("FSCTL_SOAK_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
ONLY = os.environ.get("FSCTL_SOAK_ONLY", "")
STALL_S = float(os.environ.get("FSCTL_SOAK_STALL", "0.5"))
TOGETHER_S = 120.0
"""A run shorter than this draws one action at a time; a longer one also two or three that go together."""
START_S = 60.0
PASSING = 1 / 1000
"""Which part of the packets may be lost, or take the slow path, once: routers and bridges here have short queues."""
SLOW_REPAIRS = 0.1
"""The share of repairs that may take longer than stated: other programs use the machine too."""
MODULES = (on_ports, on_processes, on_rules)

pytestmark = [
    pytest.mark.ovs,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces"),
    pytest.mark.skipif(not available() or shutil.which("ethtool") is None, reason="Open vSwitch or ethtool is not installed"),
]


def chosen() -> list[Action]:
    """What is drawn from; a wrong name is an error."""
    names = [n for n in ONLY.split(",") if n] or list(ACTIONS)
    unknown = [n for n in names if n not in ACTIONS]
    assert not unknown, "\n".join([f"no such action: {unknown}; there are", *(f"  {a.name}: {a.does}" for a in ACTIONS.values())])
    return [ACTIONS[n] for n in names]


def drawn(rng: random.Random, actions: list[Action]) -> list[Action]:
    """One action, or two or three that go together."""
    first = rng.choices(actions, [a.weight for a in actions])[0]
    together = [a for a in actions if not a.alone and a is not first]
    if SECONDS < TOGETHER_S or first.alone or not together or rng.random() < 0.5:
        return [first]
    return [first, *rng.sample(together, min(len(together), rng.choice((1, 2))))]


class Round:
    """Some actions, step by step, and what was not as it shall be after each."""

    def __init__(self, soak: Soak, actions: list[Action]) -> None:
        self._soak = soak
        self.name = "+".join(a.name for a in actions)
        self._runs: dict[str, Iterator[Pause]] = {a.name: a.run(soak) for a in actions}

    def failures(self) -> list[str]:
        """Runs all; stops at the first pause where something is wrong."""
        try:
            while self._runs:
                pause = self._step()
                found = self._soak.check(pause)
                if found:
                    return [f"in {self.name}, at {pause}:", *found, *self._soak.deliveries.explained()]
            self._soak.remember()
        except Exception as e:  # noqa: BLE001 - whatever it is, the history belongs to it
            frames = traceback.extract_tb(e.__traceback__)[-1:]
            return [f"in {self.name}: {type(e).__name__}: {e}", *map(str, frames), self._soak.switch.died()]
        finally:
            for run in self._runs.values():
                run.close()  # type: ignore[attr-defined]
        return []

    def _step(self) -> Pause:
        """Every action goes on to its next pause; what has ended expects all to be well."""
        pause = WELL
        for name, run in list(self._runs.items()):
            expected = next(run, None)
            if expected is None:
                del self._runs[name]
            else:
                pause = pause.along(expected)
        return pause


@pytest.mark.timeout(SECONDS + START_S + 180)
def test_two_worlds_stay_one(tmp_path: Path) -> None:
    rng, actions, history = random.Random(SEED), chosen(), list[str]()
    with Soak(tmp_path, rng) as soak:
        failures = soak.check(WELL)
        assert not failures, "\n".join(["before anything was disturbed:", *failures, soak.control.log_tail()])
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends:
            one = Round(soak, drawn(rng, actions))
            history.append(one.name)
            failures = one.failures()
            assert not failures, report(soak, history, failures)
        assert_quick(soak)


def report(soak: Soak, history: list[str], failures: list[str]) -> str:
    header = [f"FSCTL_SOAK_SEED={SEED} FSCTL_SOAK_ONLY={ONLY}", "rounds: " + " ".join(history[-30:])]
    return "\n".join([*header, *failures, "the end of the controller's log:", soak.control.log_tail(15)])


def assert_quick(soak: Soak) -> None:
    """What was measured all the time."""
    stall, late, passing = soak.stall, soak.leases.late, soak.deliveries.passing
    figures = (
        f"{len(soak.repairs)} repairs, the slowest in {max(soak.repairs, default=0):.2f} s; "
        f"{soak.deliveries.compared} packets compared, {len(passing)} only once otherwise, {soak.judge.judged} judged; "
        f"longest stall {stall.worst * 1000:.0f} ms of {stall.asked} answers (the test itself {stall.late * 1000:.0f} ms); "
        f"{len(late)} leases, the latest ended {max(late, default=0):.2f} s late; memory {soak.rss} then {soak.memory()} KiB"
    )
    print(figures, *passing, sep="\n")
    assert len(passing) <= 2 + soak.deliveries.compared * PASSING, "\n".join([figures, *passing])
    assert sum(r > STATED_S for r in soak.repairs) <= SLOW_REPAIRS * len(soak.repairs) + 1, figures
    assert soak.deliveries.compared > 100, figures
    assert stall.asked > 100, figures
    assert stall.worst < STALL_S + stall.late, figures
    assert late, figures
