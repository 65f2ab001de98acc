"""What is done to the agent, its router and its controller: each action by name, with a weight. An action says what it did."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.agent.chaos.draw import INTERFACES, Chaos
from tests.agent.chaos.guard import Guard
from tests.agent.chaos.obstacles import OBSTACLES, Obstacle
from tests.agent.chaos.world import LEASE_S, World
from tests.waiting import waited_for

FLOOD = 1500
"""Routes; each is told twice, some hundred times what the agent's sockets have room for."""
BACKOFF_S = 16.0
"""After failed calls the agent comes back later and later (docs/agent.md, Protocol)."""
CANARY_S = 6.0
SHARP = ("nft forward", "nft one port", "nft ingress of r0", "nft nat", "xfrm", "rule", "tc on r1", "forwarding off", "rp_filter",
         "iptables", "learned MTU")  # fmt: skip
"""Obstacles that the canary's packets meet."""


@dataclass
class Stage:
    """What actions act on. `patience_s` is how much longer than usual the agent may take to be in step again."""

    world: World
    guard: Guard
    rng: random.Random
    draw: Chaos
    history: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    patience_s: float = 0.0
    withdrawn_s: dict[str, list[float]] = field(default_factory=dict)
    """How long packets were still bypassed after an obstacle had come."""


def random_commands(stage: Stage) -> str:
    commands = stage.draw.commands()
    stage.world.apply(commands)
    return "; ".join(commands)


def mend(stage: Stage) -> str:
    stage.world.mend()
    return "everything is up and addressed"


def flap(stage: Stage) -> str:
    """The cable is pulled and put in again, or the interface set down and up."""
    i, times = stage.rng.choice(INTERFACES), stage.rng.randint(1, 4)
    for _ in range(times):
        if stage.rng.random() < 0.5:
            stage.world.apply([f"link set {i} down", f"link set {i} up"])
        else:
            stage.world.far_end(i, "down", "up")
        time.sleep(stage.rng.choice([0.0, 0.05]))
    return f"{i} flaps {times} times"


def pull(stage: Stage) -> str:
    """No carrier, or one again."""
    i, how = stage.rng.choice(INTERFACES), stage.rng.choice(["down", "up", "up"])
    stage.world.far_end(i, how)
    return f"the far end of {i} is set {how}"


def learn(stage: Stage) -> str:
    """Hosts speak, so that the routers learn who they are."""
    n = stage.rng.randrange(3)
    for hosts in (stage.world.hosts, stage.world.others):
        hosts.run(f"ping -c 1 -W 1 -I 10.0.{n}.{stage.rng.choice((2, 3))} 10.0.{n}.1", check=False)
    return f"a host on r{n} speaks"


def flood(stage: Stage) -> str:
    """More messages than the agent has room for while it is busy, or stopped."""
    routes = [f"unreachable 11.{n // 250}.{n % 250}.0/24" for n in range(FLOOD)]
    lines = [f"route add {r}" for r in routes] + (commands := stage.draw.commands(4)) + [f"route del {r}" for r in routes]
    pid, is_stopped = stage.world.agent_pid, stage.rng.random() < 0.5
    if is_stopped:
        with stage.world.stopped(pid):
            stage.world.apply(lines)
    else:
        stage.world.apply(lines)
    return f"{FLOOD} routes come and go, the agent is {'stopped' if is_stopped else 'running'}; " + "; ".join(commands)


def stop_agent(stage: Stage) -> str:
    """For less than its lease, or for so long that fsctl forgets it."""
    seconds = stage.rng.choice([0.1, 0.5, 1.0, LEASE_S + 2.0])
    with stage.world.stopped(stage.world.agent_pid):
        commands = stage.draw.commands()
        stage.guard.silent_since = stage.world.fair.scheduled()
        stage.world.apply(commands)
        time.sleep(seconds)
        stage.guard.silent_since = None
    stage.patience_s = LEASE_S
    return f"the agent is stopped for {seconds:g} s: " + "; ".join(commands)


def restart_agent(stage: Stage) -> str:
    """Killed, without a word to fsctl, and started again."""
    with stage.world.fair.held():
        stage.world.stop_agent()
        commands = stage.draw.commands()
        stage.world.apply(commands)
        stage.world.start_agent()
        if not waited_for(lambda: stage.world.agent_status().get("session", {}).get("in_step"), 60.0):
            stage.problems.append("a restarted agent is not in step within a minute")
    return "the agent is killed and started again: " + "; ".join(commands)


def stop_controller(stage: Stage) -> str:
    """It answers nobody; leases run out meanwhile."""
    seconds = stage.rng.choice([0.1, 0.5, 1.5, LEASE_S + 1.0])
    with stage.world.stopped(stage.world.control.pid):
        commands = stage.draw.commands()
        stage.world.apply(commands)
        time.sleep(seconds)
    stage.patience_s = LEASE_S
    return f"the controller is stopped for {seconds:g} s: " + "; ".join(commands)


def slow_controller(stage: Stage) -> str:
    delay = stage.rng.choice([0.0, 0.0, 0.02, 0.1, 0.2])
    stage.world.line.slow(delay)
    return f"each piece of a call takes {delay:g} s"


def cut_line(stage: Stage) -> str:
    """Connections break in the middle of whatever is said, and new ones are refused for a while."""
    seconds = stage.rng.choice([0.0, 0.3, 1.0])
    line = stage.world.line
    with stage.world.fair.held():
        line.is_cut = True
        line.cut()
        commands = stage.draw.commands()
        stage.world.apply(commands)
        time.sleep(seconds)
        line.is_cut = False
    stage.patience_s = BACKOFF_S
    then = f"; {obstruct(stage)}" if stage.rng.random() < 0.5 else ""
    return f"the line is cut for {seconds:g} s: {'; '.join(commands)}{then}"


def obstruct(stage: Stage) -> str:
    """One obstacle comes, or goes."""
    there = stage.world.standing
    if there and stage.rng.random() < 0.6:
        name = stage.rng.choice(sorted(there))
        stage.world.take_down(name)
        return f"- {name}"
    name = stage.rng.choice(sorted(OBSTACLES.keys() - _in_the_way_of(there)))
    stage.world.put_up(name, OBSTACLES[name])
    return f"+ {name}"


def _in_the_way_of(there: dict[str, tuple[Obstacle, float]]) -> set[str]:
    """What is there already; nftables' have one name each family, so that these could not be told apart."""
    has_nft = any(name.startswith("nft") for name in there)
    return there.keys() | {name for name in OBSTACLES if has_nft and name.startswith("nft")}


@contextmanager
def busy(stage: Stage) -> Iterator[None]:
    """Routes come and go meanwhile, or nothing happens."""
    if stage.rng.random() < 0.5:
        yield
        return
    flow = [f"route {verb} 12.0.{n}.0/24 via 10.0.1.250" for n in range(200) for verb in ("add", "del")]
    process = stage.world.start_batch(flow * 3)
    try:
        yield
    finally:
        process.wait(60)


def firewall(stage: Stage) -> str:
    """With nothing in the way but this: how long does the switch pass packets by that meet the obstacle?"""
    world, name = stage.world, stage.rng.choice(SHARP)
    for other in list(world.standing):
        world.take_down(other)
    world.mend()
    if not waited_for(world.is_canary_bypassed, CANARY_S):
        return f"({name}: the canary is not bypassed)"
    with busy(stage):
        since = world.put_up(name, OBSTACLES[name])
        took = until_plain(world, since)
    stage.withdrawn_s.setdefault(name, []).append(took)
    bound = OBSTACLES[name].within_s + world.line.slack_s
    if took > bound:
        stage.problems.append(f"{name}: bypassed for {took:.2f} s more, stated are {bound:.2f}")
    if stage.rng.random() < 0.7:
        world.take_down(name)
    return f"+ {name}: bypassed for {took:.3f} s more"


def until_plain(world: World, since: float) -> float:
    """Fair seconds until the switch hands the canary to the router."""
    while True:
        took = world.fair.now() - since
        if not world.is_canary_bypassed() or took > 10.0:
            return took


Action = Callable[[Stage], str]
ACTIONS: dict[Action, int] = {
    random_commands: 40, mend: 12, flap: 4, pull: 3, learn: 3, flood: 3, stop_agent: 3, restart_agent: 1, stop_controller: 3,
    slow_controller: 3, cut_line: 2, obstruct: 10, firewall: 8,
}  # fmt: skip


def act(stage: Stage) -> str:
    """One of them; what it did. What is told first is what was meant, if it raises."""
    chosen = stage.rng.choices(list(ACTIONS), list(ACTIONS.values()))[0]
    stage.history.append(f"{chosen.__name__} ...")
    stage.history[-1] = f"{chosen.__name__}: {chosen(stage)}"
    return chosen.__name__
