"""What somebody does to ports, bridges and their settings in Open vSwitch's database."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

from tests.soak.actions import Pause, Soak, action
from tests.soak.pause import WELL
from tests.soak.plan import HOSTS, LEASED, MANAGED, PORTS, ROUTERS, SINK, Port
from topologies.processes import LabError

ROUTER_PORTS = tuple(p for r in ROUTERS.values() for p in r.ports)
HUNDRED = 100
ANSWERED_S = 2.0


@action()
def patch_one(s: Soak) -> Iterator[Pause]:
    """A7: one of fsctl's patch ports is deleted."""
    for bridge, port in s.rng.sample(there := s.switch.patch_ports(), min(1, len(there))):
        s.switch.ctl("del-port", bridge, port)
    yield WELL


@action()
def patch_all(s: Soak) -> Iterator[Pause]:
    """A7: all of fsctl's patch ports are deleted at once."""
    args = [word for bridge, port in s.switch.patch_ports() for word in ("--", "--if-exists", "del-port", bridge, port)]
    if args:  # another action may have deleted them
        s.switch.ctl(*args[1:])
    yield WELL


@action()
def tag_cleared(s: Soak) -> Iterator[Pause]:
    """A17: the tag of every patch port is cleared, or changed."""
    ports = s.switch.patch_ports()
    change = s.rng.choice((("clear", "tag"), ("set", "tag=10"), ("set", "vlan_mode=trunk")))
    args = [word for _, port in ports for word in ("--", "--if-exists", change[0], "port", port, change[1])]
    if args:
        s.switch.ctl(*args[1:])
    yield WELL
    tags = [s.switch.ctl("get", "port", port, "tag").strip() for _, port in s.switch.patch_ports()]
    assert len(tags) >= len(ports), f"{len(tags)} of {len(ports)} patch ports"
    for _, port in s.switch.patch_ports():
        if change[1] == "vlan_mode=trunk":
            s.switch.ctl("clear", "port", port, "vlan_mode")


@action(weight=1)
def ports_by_the_hundred(s: Soak) -> Iterator[Pause]:
    """F2: a hundred internal ports come in one transaction and go in one; a write right then is answered, and done."""
    bridge = s.rng.choice(MANAGED)
    names = [f"soak{n}" for n in range(HUNDRED)]
    adding = [w for n in names for w in ("--", "add-port", bridge, n, "--", "set", "interface", n, "type=internal")]
    try:
        with s.outages.during("switch"):  # ovs-vswitchd itself does nothing else until it has made them
            s.switch.ctl(*adding[1:])
        begins = time.monotonic()
        with s.without(router := s.rng.choice(("r1", "r2", "r3"))):
            took = time.monotonic() - begins
            assert took < ANSWERED_S, f"with {HUNDRED} new ports a write was answered after {took:.1f} s"
            yield Pause(left=frozenset((router,)), ready=True)
        yield WELL
    finally:
        removing = [w for n in names for w in ("--", "--if-exists", "del-port", bridge, n)]
        with s.outages.during("switch"):
            s.switch.ctl(*removing[1:])


@action()
def replugged(s: Soak) -> Iterator[Pause]:
    """A port goes and comes back with another number; the routed world's too."""
    ports = s.rng.sample([p for p in PORTS.values() if p.bridge in MANAGED], s.rng.choice((1, 2, len(MANAGED))))
    for port in ports:
        s.both("del-port", port.bridge, port.name)
    if s.rng.random() < 0.5:
        s.excuse(4.0)
        yield Pause()
    for port in ports:
        s.excuse(4.0, port.bridge)
        s.both(*s.switch.adding(port, s.rng.choice((None, 40 + s.rng.randrange(20)))))
    yield WELL


@action()
def link_down(s: Soak) -> Iterator[Pause]:
    """A port of a router loses its carrier for a while, in both worlds."""
    port = s.rng.choice(ROUTER_PORTS)
    try:
        _set_link(s, port, "down")
        yield Pause()
    finally:
        _set_link(s, port, "up")


def _set_link(s: Soak, port: Port, state: str) -> None:
    """The end on the bridge: the router keeps its routes and addresses."""
    s.excuse(4.0, port.bridge)
    for world in (s.bypassed, s.routed):
        world.batch(world.ns["s"], [f"link set dev {port.name} {state}"])
    _forget_cached(s)


@action()
def port_barred(s: Soak) -> Iterator[Pause]:
    """A12: mod-port no-receive, no-forward, no-flood or down on a router's port, in both worlds."""
    port, what = s.rng.choice(ROUTER_PORTS), s.rng.choice(("no-receive", "no-forward", "no-flood", "down"))
    undo = {"no-receive": "receive", "no-forward": "forward", "no-flood": "flood", "down": "up"}[what]
    s.excuse(4.0, port.bridge)
    try:
        for world in (s.bypassed, s.routed):
            world.switch.ofctl("mod-port", port.bridge, port.name, what)
        _forget_cached(s)
        yield Pause()
    finally:
        s.excuse(4.0, port.bridge)
        for world in (s.bypassed, s.routed):
            with suppress(LabError):
                world.switch.ofctl("mod-port", port.bridge, port.name, undo)
                world.batch(world.ns["s"], [f"link set dev {port.name} up"])
        _forget_cached(s)


@action()
def protected(s: Soak) -> Iterator[Pause]:
    """A12: two ports are protected from each other, in both worlds."""
    bridge = s.rng.choice(MANAGED)
    ports = s.rng.sample([p.name for p in PORTS.values() if p.bridge == bridge], 3)
    yield from _set_for_a_while(s, *((p, "protected", "true") for p in ports))


@action()
def tagged(s: Soak) -> Iterator[Pause]:
    """A router's port becomes an access port of VLAN 10, in both worlds."""
    yield from _set_for_a_while(s, (s.rng.choice(ROUTER_PORTS).name, "tag", "10"))


def _set_for_a_while(s: Soak, *settings: tuple[str, str, str]) -> Iterator[Pause]:
    s.excuse(4.0)
    try:
        for port, column, value in settings:
            s.both("--if-exists", "set", "port", port, f"{column}={value}")
        s.flush(seconds=4.0)  # what stations have said in a VLAN long ago is not the same in both worlds
        _forget_cached(s)
        yield Pause(installed=False)  # senders at these ports are left to the routers
    finally:
        s.excuse(4.0)
        for port, column, _ in settings:
            empty = "false" if column == "protected" else "[]"
            s.both("--if-exists", "set", "port", port, f"{column}={empty}")
        _forget_cached(s)


@action()
def mirrored(s: Soak) -> Iterator[Pause]:
    """A12: a mirror copies what a router's port sends and gets to M's port, in both worlds."""
    port = s.rng.choice([p for p in ROUTER_PORTS if p.bridge == "b1"])
    try:
        s.both(
            "--", "--id=@p", "get", "port", port.name, "--", "--id=@o", "get", "port", HOSTS[SINK].name, "--", "--id=@m",
            "create", "mirror", "name=soak", "select-dst-port=@p", "select-src-port=@p", "output-port=@o", "--",
            "set", "bridge", "b1", "mirrors=@m",
        )  # fmt: skip
        s.excuse(4.0, "b1")
        _forget_cached(s)
        yield Pause()
    finally:
        s.excuse(3.0, "b1")
        s.both("clear", "bridge", "b1", "mirrors")
        _forget_cached(s)


def _forget_cached(s: Soak) -> None:
    """Open vSwitch 3.1 does not look at its cached flows again when a mirror comes or goes.

    And its userspace datapath may leave a cached flow as it was where two overlap (docs/limits.md): what is to be judged
    after a port's settings have changed are the rules, not that.
    """
    for world in (s.bypassed, s.routed):
        with suppress(LabError):
            world.switch.appctl("revalidator/purge")


@action()
def policed(s: Soak) -> Iterator[Pause]:
    """A12: ingress policing on a router's port: what that router sends there is not bypassed, and REST says why."""
    port = s.rng.choice(ROUTER_PORTS)
    try:
        s.both("--if-exists", "set", "interface", port.name, "ingress_policing_rate=100000")
        yield Pause()
        if _asked(s, "interface", port, "ingress_policing_rate") == "100000":
            _is_left_alone(s, port, "policing", "out")
    finally:
        s.both("--if-exists", "set", "interface", port.name, "ingress_policing_rate=0")


@action()
def shaped(s: Soak) -> Iterator[Pause]:
    """F4: QoS (linux-htb) on the port towards a router: what is sent to that router there is not bypassed."""
    port = s.rng.choice(ROUTER_PORTS)
    qos = ("--id=@q", "create", "qos", "type=linux-htb", "other-config:max-rate=100000000")
    try:
        s.both("--", "--if-exists", "set", "port", port.name, "qos=@q", "--", *qos)
        yield Pause()
        if _asked(s, "port", port, "qos") not in ("", "[]"):
            _is_left_alone(s, port, "QoS", "in")
    finally:
        s.both("--", "--if-exists", "clear", "port", port.name, "qos", "--", "--all", "destroy", "qos")


def _asked(s: Soak, table: str, port: Port, column: str) -> str:
    """What OVSDB says now: the port may have been unplugged, and its settings with it, by an action that runs beside."""
    return s.switch.ctl("--if-exists", "get", table, port.name, column).strip()


def _is_left_alone(s: Soak, port: Port, what: str, direction: str) -> None:
    """No flow in (or out) by an interface whose port the host shapes is bypassed."""
    if port.station == LEASED:
        return
    flows = s.control.client.flows(port.station)
    there = [f for f in flows if (f["match"]["in"] if direction == "in" else f.get("out")) == port.device]
    bypassed = [f["match"] for f in there if f["status"]["state"] == "installed"]
    assert not bypassed, f"{what} on {port.name}, and {len(bypassed)} flows {direction} there are installed: {bypassed[:2]}"


@action(alone=True)
def bridge_rebuilt(s: Soak) -> Iterator[Pause]:
    """A8: a bridge is deleted and made again with its ports, as a network script does it."""
    bridge = s.rng.choice(MANAGED)
    s.excuse(5.0)
    with s.outages.during("switch"):  # nothing can be withdrawn from a bridge that is being deleted or made
        for world in (s.bypassed, s.routed):
            world.switch.ctl("del-br", bridge)
    if s.rng.random() < 0.5:
        yield Pause()  # A9: over ports that are plugged nowhere nothing is bypassed
        s.excuse(5.0)
    with s.outages.during("switch", adds=1.0):
        for world in (s.bypassed, s.routed):
            world.switch.build_bridge(bridge, world.fail_mode)
    yield Pause(extra=2.0, same_rules=True, bypassed=True, ready=True)


@action()
def settings(s: Soak) -> Iterator[Pause]:
    """A8: fail mode, protocols, controller or flow tables of a bridge are set to something else."""
    bridge = s.rng.choice(MANAGED)
    change = s.rng.choice(
        (
            ("set-fail-mode", bridge, "standalone"), ("del-fail-mode", bridge), ("set-controller", bridge, "tcp:127.0.0.1:9"),
            ("del-controller", bridge), ("set", "bridge", bridge, "protocols=OpenFlow13"),
            ("clear", "bridge", bridge, "flow_tables"), ("clear", "bridge", bridge, "protocols"),
        )
    )  # fmt: skip
    s.excuse(4.0, bridge)
    s.switch.ctl(*change)
    yield Pause(extra=1.5, same_rules=True, bypassed=True, ready=True)
    s.switch.ctl("set", "bridge", bridge, "protocols=OpenFlow10,OpenFlow13,OpenFlow14")
    assert s.switch.ctl("get-fail-mode", bridge).strip() == "secure", f"fail mode of {bridge} after {change}"
    target = s.switch.ctl("get-controller", bridge).split()
    assert f"tcp:127.0.0.1:{s.control.openflow_port}" in target, f"controller of {bridge} after {change}: {target}"


@action(alone=True, weight=1)
def stp(s: Soak) -> Iterator[Pause]:
    """A4: STP is switched on for all bridges of both worlds, and off again."""
    yield from _spanning_tree(s, "stp_enable", 10.0, "stp-hello-time=1", "stp-max-age=6", "stp-forward-delay=4")


@action(alone=True, weight=1)
def rstp(s: Soak) -> Iterator[Pause]:
    """A5, F1: RSTP is switched on for all bridges of both worlds, and off again."""
    yield from _spanning_tree(s, "rstp_enable", 8.0, "rstp-max-age=6", "rstp-forward-delay=4")


def _spanning_tree(s: Soak, column: str, seconds: float, *timing: str) -> Iterator[Pause]:
    """`seconds`: until all ports forward, with these timers."""
    s.excuse(seconds + 6.0)
    timers = [f"other_config:{t}" for t in timing]
    try:
        s.both(*[w for b in MANAGED for w in ("--", "set", "bridge", b, f"{column}=true", *timers)][1:])
        yield Pause(extra=seconds)
        if s.rng.random() < 0.5:
            s.delegate()
            yield Pause()
    finally:
        s.excuse(4.0)
        if not s.switch.died():
            s.both(*[w for b in MANAGED for w in ("--", "set", "bridge", b, f"{column}=false")][1:])
            _let_flood(s)
    yield Pause(extra=2.0, same_rules=True, bypassed=True, ready=True)


def _let_flood(s: Soak) -> None:
    """Open vSwitch 3.1 floods nothing more into ports that have forwarded by spanning tree, until they are plugged in anew."""
    ports = [p for p in PORTS.values() if p.bridge in MANAGED]
    s.both(*[w for p in ports for w in ("--", "del-port", p.bridge, p.name)][1:])
    s.both(*[w for p in ports for w in ("--", *s.switch.adding(p))][1:])
