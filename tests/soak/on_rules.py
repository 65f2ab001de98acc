"""What somebody does to the rules of a bridge."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from tests.soak.actions import Pause, Soak, action
from tests.soak.pause import WELL
from tests.soak.plan import MANAGED, ROUTERS
from tests.soak.switch import COOKIE
from topologies.processes import LabError

ROUTER_PORTS = tuple(p for r in ROUTERS.values() for p in r.ports)


def _rules(s: Soak, bridge: str) -> list[str]:
    """fsctl's rules with numbers for ports, as ovs-ofctl takes them back: (table, priority, match) and actions."""
    out = s.switch.ofctl("dump-flows", bridge, "--no-stats", f"cookie={COOKIE}/-1")
    return [re.sub(r"cookie=\S+ ", "", line.strip()) for line in out.splitlines() if COOKIE in line and "timeout" not in line]


def _match(rule: str) -> str:
    return rule.partition(" actions=")[0].replace(" ", "")


@action()
def del_flows(s: Soak) -> Iterator[Pause]:
    """A2: all rules of a bridge are deleted, of one or of all of them."""
    for bridge in s.rng.sample(MANAGED, s.rng.choice((1, 1, 3))):
        s.excuse(2.5, bridge)
        s.switch.ofctl("del-flows", bridge)
    yield WELL


@action()
def del_one(s: Soak) -> Iterator[Pause]:
    """A2: a few single rules are deleted."""
    bridge = s.rng.choice(MANAGED)
    for rule in s.rng.sample(_rules(s, bridge), s.rng.choice((1, 1, 5))):
        _strictly(s, "del-flows", bridge, _match(rule))
    yield WELL


def _strictly(s: Soak, command: str, bridge: str, *args: str) -> None:
    path = f"unix:{s.switch.management(bridge)}"
    s.switch.run("ovs-ofctl", "-O", "OpenFlow14", "--strict", "--timeout=5", command, path, *args)


@action(alone=True)  # in a place that another action has just made fsctl leave, the rule would be somebody else's by right
def add_over(s: Soak) -> Iterator[Pause]:
    """A2: somebody adds rules with matches of fsctl's, other actions and his own cookie."""
    bridge = s.rng.choice(MANAGED)
    rules = [r for r in _rules(s, bridge) if "table=1" in r or "table=5" in r] or _rules(s, bridge)
    for rule in s.rng.sample(rules, min(3, len(rules))):
        s.excuse(2.5, bridge)
        s.switch.ofctl("add-flow", bridge, f"cookie=0x5,{_match(rule)},actions={s.rng.choice(('drop', 'NORMAL'))}")
    yield WELL


@action()
def mod_flows(s: Soak) -> Iterator[Pause]:
    """A2: the actions of many rules are changed at once."""
    bridge, table = s.rng.choice(MANAGED), s.rng.choice((0, 1, 2, 3))
    # In table 2, where frames come over a link, NORMAL would be the vandal's own leak.
    actions = "drop" if table == 2 else s.rng.choice(("drop", "NORMAL"))
    s.excuse(2.5, bridge)
    s.switch.ofctl("mod-flows", bridge, f"table={table},actions={actions}")
    yield WELL


@action(alone=True)
def foreign(s: Soak) -> Iterator[Pause]:
    """Somebody else's rules that concern nobody come and go, a hundred at a time: they are left alone."""
    bridge = s.rng.choice(MANAGED)
    rules = [f"cookie=0x77,priority=100,arp,arp_tpa=203.0.113.{n},actions=drop" for n in range(100)]
    s.switch.run("ovs-ofctl", "-O", "OpenFlow14", "add-flows", f"unix:{s.switch.management(bridge)}", _file(s, rules))
    yield Pause(same_rules=True, ready=True)
    left = s.switch.ofctl("dump-flows", bridge, "cookie=0x77/-1").count("cookie=0x77")
    assert left == 100, f"{left} of 100 rules of somebody else are left on {bridge}"
    s.switch.ofctl("del-flows", bridge, "cookie=0x77/-1")


def _file(s: Soak, lines: list[str]) -> str:
    path = s.directory / "rules"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@action(alone=True)  # others delete it with all rules of the bridge
def foreign_drop(s: Soak) -> Iterator[Pause]:
    """F5: somebody drops what a router's port sends, in both worlds."""
    port = s.rng.choice(ROUTER_PORTS)
    try:
        for world in (s.bypassed, s.routed):
            world.switch.ofctl("add-flow", port.bridge, f"cookie=0x88,priority=40000,in_port={port.name},actions=drop")
        yield Pause()
    finally:
        for world in (s.bypassed, s.routed):
            _quietly(world.switch.ofctl, "del-flows", port.bridge, "cookie=0x88/-1")


@action(alone=True)  # others delete it with all rules of the bridge
def foreign_normal(s: Soak) -> Iterator[Pause]:
    """D1: somebody's NORMAL before all of fsctl's rules: the bypass is off there, and nothing crosses a link."""
    bridge = s.rng.choice(MANAGED)
    try:
        s.switch.ofctl("add-flow", bridge, "cookie=0x99,priority=30000,actions=NORMAL")
        yield Pause(installed=False)
        (said,) = (b for b in s.control.client.bridges() if b["name"] == bridge)
        assert any("30000" in w or "0x99" in w for w in said["warnings"]), f"no warning of the rule before all of fsctl's: {said}"
    finally:
        _quietly(s.switch.ofctl, "del-flows", bridge, "cookie=0x99/-1")


def _quietly(what: Callable[..., str], *args: str) -> None:
    try:
        what(*args)
    except LabError:
        return  # the switch is away: the rules are too
