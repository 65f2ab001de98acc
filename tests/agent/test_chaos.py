"""The agent against the kernel itself, at random (docs/agent.md).

FSCTL_CHAOS_SECONDS sets how long (default 60): a quarter for the fold alone, many small steps, the rest for the whole agent.
A failure prints the seed and the last actions; FSCTL_CHAOS_SEED draws the same again (timing is not in a seed).
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from fsctl.agent.decide import Hole
from fsctl.agent.fib import Fold
from fsctl.agent.follow import Follower
from fsctl.model.addresses import format_mac, parse_mac
from topologies.sandbox import available

from .chaos.actions import Stage, act
from .chaos.batch import batch
from .chaos.draw import DRAWN, INTERFACES, KNOWN, SUBNETS, Chaos
from .chaos.guard import Guard
from .chaos.judge import Judge
from .chaos.kernel_says import Said
from .chaos.world import World
from .kernel import host
from .netns import KernelOf, Namespace, namespaces, needs_root, veth
from .oracle import lookup

SECONDS = float(os.environ.get("FSCTL_CHAOS_SECONDS", "60"))
FOLD_SECONDS, WHOLE_SECONDS = SECONDS / 4, SECONDS * 3 / 4
SEED = int(os.environ.get("FSCTL_CHAOS_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
SHOWN, SHOWN_COMMANDS = 30, 600
"""Actions that a failure shows; and commands, where each is one for `ip`."""


@pytest.fixture
def router() -> Iterator[Namespace]:
    with namespaces("r", "p") as (ns, peers):
        for i in INTERFACES:
            veth(ns, i, peers, f"p{i}")
            ns.ip(f"addr add {SUBNETS[i][0]}.1/24 dev {i}")
            ns.ip(f"addr add {SUBNETS[i][1]}::1/64 dev {i} nodad")
        ns.forwards_plainly(INTERFACES)
        ns.sysctl("ipv6/conf/all/forwarding", "1")
        yield ns


def differences(ns: Namespace, fold: Fold) -> Iterator[str]:
    delegations, said, inside = list(fold.delegations()), Said.by(ns, DRAWN), set(fold.names().values())
    for (i, name), text in product(KNOWN.items(), DRAWN):
        version, value = host(text)
        mine, theirs = lookup(delegations, name, version, value), said.forwarded(i, text)
        if mine != theirs and not (mine is None and (said.is_special(text) or name not in inside)):
            shown = mine and (mine[0], format_mac(mine[1]))
            kernel, neighbour = said.answers[i, text], said.neighbour(i, text)
            yield f"{text}: fold {shown} ({why(fold, version, value)}), kernel {kernel}, neighbour {neighbour}"


def why(fold: Fold, version: int, value: int) -> str:
    found = fold.decision(version, value)
    return found.reason if isinstance(found, Hole) else type(found).__name__


def settle(follower: Follower, fold: Fold) -> None:
    """Take everything in that has happened, as the agent's loop does."""
    for _ in range(2):
        time.sleep(0.02)
        follower.pump()
    if follower.due() < float("inf") and fold.wants_resync():
        follower.resync(time.monotonic())
    fold.settle()


@needs_root
@pytest.mark.timeout(FOLD_SECONDS + 120)
def test_fold_agrees_with_ip_route_get(router: Namespace) -> None:
    chaos, history = Chaos(random.Random(SEED)), list[str]()
    kernel = KernelOf(router.name)
    fold = Fold({parse_mac(router.mac(i)): name for i, name in KNOWN.items()})
    follower = Follower(kernel, fold)
    follower.resync(0.0)
    end, compared = time.monotonic() + FOLD_SECONDS, 0
    try:
        while time.monotonic() < end:
            commands = chaos.commands()
            history += [*commands, "--"]
            batch(router, commands)
            settle(follower, fold)
            found = list(differences(router, fold))
            if found:  # a state may have moved between the two looks (stale, failed): only what stays counts
                settle(follower, fold)
                found = list(differences(router, fold))
            if found:
                kernel_has = (router.ip(f"-{v} route show table all") for v in (4, 6))
                print(*history[-SHOWN_COMMANDS:], *kernel_has, sep="\n")
                print(*(route for rib in fold.state.ribs.values() for route in rib.all()), sep="\n")
            assert not found, "\n".join([f"FSCTL_CHAOS_SEED={SEED}", *found])
            compared += sum(1 for t in DRAWN if lookup(fold.delegations(), "eth0", *host(t)))
    finally:
        kernel.close()
    assert compared, "nothing was ever delegated: the test says nothing"


def report(stage: Stage, problems: list[str]) -> str:
    return "\n".join([f"FSCTL_CHAOS_SEED={SEED}", *stage.history[-SHOWN:], *problems[:SHOWN]])


def told(stage: Stage, judge: Judge, done: Counter[str], seconds: float) -> None:
    """What a green run has held, in figures; and that it has held anything."""
    stage.world.stop_agent()
    worst = {name: max(times) for name, times in stage.withdrawn_s.items()}
    print(
        f"\nchaos: seed {SEED}, {seconds:.0f} s, {done.total()} actions, {judge.pauses} pauses, {judge.compared} comparisons "
        f"({judge.delegated} delegated), {judge.packets} packets, {judge.neighbours} neighbours beside the twin's, "
        f"{judge.traces} traces, {stage.guard.looks} looks of the guard, {stage.world.overruns} overruns, "
        f"in step after {judge.slowest:.1f} s at most"
    )
    print("actions:", ", ".join(f"{name} {n}" for name, n in done.most_common()))
    print("the last packet past:", ", ".join(f"{n} {s:.3f} s ({len(stage.withdrawn_s[n])})" for n, s in sorted(worst.items())))
    assert judge.delegated, "nothing was ever delegated: the test says nothing"
    assert judge.packets, "no packet was ever forwarded: the test says nothing"
    if any("the agent is stopped; " in line for line in stage.history if line.startswith("flood")):
        assert stage.world.overruns, "no message was ever lost: the floods are too small"


@needs_root
@pytest.mark.skipif(not available(), reason="Open vSwitch is not installed")
@pytest.mark.timeout(WHOLE_SECONDS + 600)
def test_the_whole_agent(tmp_path: Path) -> None:
    """The agent's process, the real controller, real packets, and a twin of the router that has no agent."""
    with World(tmp_path) as world:
        guard, judge, rng = Guard(world), Judge(world), random.Random(SEED)
        stage, done = Stage(world, guard, rng, Chaos(rng)), Counter[str]()
        guard.start()
        begins = time.monotonic()
        try:
            found = judge.pause(20.0)
            while not found and time.monotonic() < begins + WHOLE_SECONDS:
                done.update(act(stage) for _ in range(rng.randint(1, 3)))
                found = judge.pause(stage.patience_s) + guard.problems + stage.problems
                stage.patience_s = 0.0
                stage.history.append("--")
        finally:
            guard.stop()
            judge.close()
        assert not found, report(stage, found)
        told(stage, judge, done, time.monotonic() - begins)
