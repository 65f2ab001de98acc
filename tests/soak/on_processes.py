"""What happens to processes, the configuration, and to the routers' own routes; what guests send."""

from __future__ import annotations

import copy
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from fsctl.errors import FsctlError
from tests.soak.actions import Pause, Soak, action
from tests.soak.pause import WELL
from tests.soak.plan import HOSTS, MANAGED, ROUTERS, neighbours, port_on
from tests.soak.probes import POOL, between
from tests.soak.walk import PUNTED
from tests.soak.watch import LEASE_S
from topologies.sandbox import DATABASE, SWITCH

DELEGATING = ("r1", "r2", "r3")
IN_SYNC = re.compile(r"bridge (\w+): in sync, (\d+) changes")
FORGOTTEN_S = 1.2
"""Until Open vSwitch has taken in the last frames of a flow: it learns from cached flows twice a second."""
RECONNECT_S = 2.0
"""Open vSwitch tries again after a second, twice as long after each failure up to fsctl's max_backoff."""


# --- routes and writes --------------------------------------------------------------------------------------


@action(weight=6)
def routes(s: Soak) -> Iterator[Pause]:
    """Routers' routes change at random, in both worlds, and their delegations with them."""
    changed = s.rng.sample(DELEGATING, s.rng.choice((1, 1, 2, 3)))
    for router in changed:
        lines = [_route(s, router) for _ in range(s.rng.choice((1, 2, 4)))]
        for world in (s.bypassed, s.routed):
            _forced(world.ns[router].name, lines)
    s.tables_changed()
    s.forget_rules()
    s.delegate(*changed)
    yield WELL


def _forced(namespace: str, lines: list[str]) -> None:
    """`ip -force -batch`: routes that are not there cannot be deleted, which is no error."""
    subprocess.run(
        ["ip", "-n", namespace, "-force", "-batch", "-"], input="\n".join(lines) + "\n", text=True, capture_output=True,
        check=False, timeout=20,
    )  # fmt: skip


def _route(s: Soak, router: str) -> str:
    version = s.rng.choice((4, 4, 6))
    prefix = s.rng.choice(POOL[version])
    verb, kind = (
        s.rng.choice(("del", "replace", "replace")),
        s.rng.choice(("", "", "", "", "blackhole", "prohibit", "unreachable")),
    )
    if verb == "del":
        return f"route del {prefix}"
    proto = s.rng.choice(("static", "static", "static", PUNTED))
    if kind:
        return f"route replace {kind} {prefix} proto {proto}"
    out = s.rng.choice(ROUTERS[router].ports)
    hop = s.rng.choice([p for p in neighbours(out.bridge) if p.station != router])
    return f"route replace {prefix} via {hop.address(version)} dev {out.device} proto {proto}"


@action()
def rewritten(s: Soak) -> Iterator[Pause]:
    """A router deletes all its delegations, and makes them again."""
    router = s.rng.choice(DELEGATING)
    with s.without(router):
        yield Pause(ready=True, left=frozenset((router,)))


# --- daemons --------------------------------------------------------------------------------------------------


@action(alone=True, weight=1)
def database_stopped(s: Soak) -> Iterator[Pause]:
    """D11: ovsdb-server hangs for some seconds; a write that needs no new link is answered in time."""
    s.switch.pause(DATABASE)
    try:
        router, begins = s.rng.choice(DELEGATING), time.monotonic()
        with s.client(router) as client:
            client.delete_flows(router)
        s.delegate(router)
        took = time.monotonic() - begins
        yield Pause(extra=s.rng.choice((0.0, 2.0)), bypassed=True, packets=True)
        assert took < 1.0, f"with ovsdb-server stopped two writes took {took:.1f} s"
    finally:
        s.switch.resume(DATABASE)


@action(alone=True, weight=1)
def database_killed(s: Soak) -> Iterator[Pause]:
    """ovsdb-server is killed and started again; a port that went meanwhile counts afterwards.

    Without its database ovs-vswitchd serves neither OpenFlow nor, in userspace, packets; it tries again after up to 8 s.
    """
    s.excuse(20.0)
    with s.outages.during("switch"):
        s.switch.kill(DATABASE)
        time.sleep(s.rng.choice((0.0, 2.0)))
        s.restart_database()
        yield Pause(extra=9.0, packets=False)
    yield Pause(extra=1.0, same_rules=True, bypassed=True, ready=True)


@action(alone=True, weight=1)
def switch_stopped(s: Soak) -> Iterator[Pause]:
    """A15: ovs-vswitchd hangs for some seconds while a router withdraws; what was answered is in force afterwards."""
    router, seconds = s.rng.choice(DELEGATING), s.rng.choice((1.0, 4.0, 12.0))
    answer: list[object] = []
    with s.outages.during("switch"):
        s.switch.pause(SWITCH)
        writer = threading.Thread(target=_withdraw, args=(s, router, answer))
        try:
            writer.start()
            time.sleep(seconds)
        finally:
            s.excuse(4.0)
            s.switch.resume(SWITCH)
    writer.join(40)
    yield Pause(extra=0.5, ready=True, left=frozenset((router,)))
    assert answer, "a withdrawal was not answered in 40 s"
    installed = [f for f in s.control.client.flows(router) if f["status"]["state"] == "installed"]
    assert not installed, f"{router} has withdrawn ({answer[0]}), and {len(installed)} flows are installed"
    s.delegate(router)
    yield WELL


def _withdraw(s: Soak, router: str, answer: list[object]) -> None:
    try:
        with s.client(router) as client:
            answer.append(client.delete_flows(router))
    except FsctlError as e:
        answer.append(e)


@action(alone=True, weight=1)
def switch_killed(s: Soak) -> Iterator[Pause]:
    """ovs-vswitchd is killed and started again: empty tables, empty MAC tables."""
    with s.outages.during("switch"):
        s.switch.kill(SWITCH)
        time.sleep(s.rng.choice((0.0, 2.0)))
        s.restart_switch()
    yield Pause(extra=RECONNECT_S, same_rules=True, bypassed=True, ready=True)


# --- the controller -------------------------------------------------------------------------------------------


@action(alone=True)
def controller_killed(s: Soak) -> Iterator[Pause]:
    """The controller is killed, perhaps while routers write, and started again: what was acknowledged is there."""
    with s.outages.during("controller", adds=LEASE_S):
        if s.rng.random() < 0.5:
            writers = [threading.Thread(target=_write_again, args=(s, r)) for r in DELEGATING]
            for writer in writers:
                writer.start()
            time.sleep(s.rng.uniform(0, 0.05))
            s.control.kill()
            for writer in writers:
                writer.join()
        else:
            s.control.kill()
            yield Pause(bypassed=True, controller=False)  # in fail mode secure nobody notices
        s.control.start()
    s.delegate()
    yield WELL


def _write_again(s: Soak, router: str) -> None:
    try:
        s_flows = s.flows[router]
        with s.client(router) as client:
            client.put_flows(router, s_flows)
    except FsctlError:
        return  # the test is whether fsctl is well afterwards


@action(alone=True)
def controller_restarted(s: Soak) -> Iterator[Pause]:
    """The controller ends in order and starts again, without delegating anew: no rule changes."""
    with s.leases.none, s.outages.during("controller", adds=LEASE_S):
        s.control.stop()
        begins = s.control.log.stat().st_size
        s.control.start()
    yield WELL
    said = IN_SYNC.findall(s.control.log.read_bytes()[begins:].decode(errors="replace"))
    assert len(said) >= len(MANAGED), f"a restart compares every bridge: {said}"
    changed = [line for line in said if line[1] != "0"]
    assert not changed, f"a restart has changed rules: {changed}"


@action(alone=True, weight=1)
def controller_stopped(s: Soak) -> Iterator[Pause]:
    """The controller hangs for some seconds: rules stay, and leases that end meanwhile end right afterwards."""
    with s.outages.during("controller", adds=LEASE_S):
        os.kill(s.control.pid, signal.SIGSTOP)
        try:
            time.sleep(s.rng.choice((1.0, 4.0)))
        finally:
            os.kill(s.control.pid, signal.SIGCONT)
    yield WELL


@action(alone=True, weight=1)
def config_interface_out(s: Soak) -> Iterator[Pause]:
    """A3: an interface is taken out of the configuration; its router replaces its flows; it is put back: they stay gone."""
    router = s.rng.choice(DELEGATING)
    device = s.rng.choice(ROUTERS[router].ports).device
    yield from _edited(s, (router,), lambda c: c["routers"][router]["interfaces"].pop(device))


@action(alone=True, weight=1)
def config_router_out(s: Soak) -> Iterator[Pause]:
    """A3: a router is taken out of the configuration and put back: its flows are not installed without its word."""
    router = s.rng.choice(DELEGATING)
    yield from _edited(s, (router,), lambda c: c["routers"].pop(router))


@action(alone=True, weight=1)
def config_bridge_out(s: Soak) -> Iterator[Pause]:
    """A6: a bridge is taken out of the configuration, with the interfaces there, and put back."""
    bridge = s.rng.choice(("b1", "b2"))

    def without(config: dict[str, Any]) -> None:
        config["bridges"].remove(bridge)
        for router in config["routers"].values():
            for name in [n for n, i in router["interfaces"].items() if i["bridge"] == bridge]:
                del router["interfaces"][name]

    yield from _edited(s, DELEGATING, without)


def _edited(s: Soak, names: tuple[str, ...], edit: Callable[[dict[str, Any]], object]) -> Iterator[Pause]:
    """Restart with an edited configuration, let the routers replace their flows by nothing, restart with the old one."""
    whole = copy.deepcopy(s.control.config)
    _restarted(s, edit)
    yield Pause(extra=1.0, ready=True)
    for name in names:
        if name in s.control.config["routers"]:
            with s.client(name) as client:
                client.put_flows(name, [])
    yield Pause(ready=True, left=frozenset(names))
    _restarted(s, lambda config: config.update(whole))
    yield Pause(ready=True, left=frozenset(names))
    s.delegate()
    yield WELL


def _restarted(s: Soak, edit: Callable[[dict[str, Any]], object]) -> None:
    with s.outages.during("controller", adds=LEASE_S):
        s.control.stop()
        edit(s.control.config)
        s.excuse(4.0)
        s.control.start()


# --- guests -----------------------------------------------------------------------------------------------------


@action()
def spoofed_host(s: Soak) -> Iterator[Pause]:
    """A1: C sends with A's MAC address, a frame for each of A's."""
    yield from _spoofed(s, HOSTS["c"].station, HOSTS["a"].mac, "b0")


@action()
def spoofed_router(s: Soak) -> Iterator[Pause]:
    """C or D sends with a router's MAC address of its own bridge."""
    host = s.rng.choice(("c", "d"))
    bridge = HOSTS[host].bridge
    router = s.rng.choice([r for r in DELEGATING if any(p.bridge == bridge for p in ROUTERS[r].ports)])
    yield from _spoofed(s, host, port_on(router, bridge).mac, bridge)


def _spoofed(s: Soak, host: str, mac: str, bridge: str) -> Iterator[Pause]:
    """As plain bridging has it, the spoofer draws the frames to that MAC address upon himself; nothing else."""
    fake = between(host, s.rng.choice([r for r in DELEGATING if any(p.bridge == bridge for p in ROUTERS[r].ports)]), "e")
    excuse = s.excuse(60.0, bridge, eth_dst=mac)
    stop = s.talk.also(lambda: s.talk.send(replace(fake, eth_src=mac)))
    try:
        yield Pause(extra=1.0, packets=False, ready=True)
    finally:
        stop()
        excuse.ends = time.monotonic() + FORGOTTEN_S + 1.0
        time.sleep(FORGOTTEN_S)


@action()
def vlan_4095(s: Soak) -> Iterator[Pause]:
    """D1: C sends frames tagged with VLAN 4095 (0, 100) that bear the MAC address of a router elsewhere."""
    forged = [
        replace(between("c", "r1", "d"), eth_src=p.mac, eth_dst=HOSTS[victim].mac, vlan=vlan)
        for p, victim in ((port_on("r2", "b2"), "b"), (port_on("r1", "b1"), "e"), (port_on("r1", "b0"), "a"))
        for vlan in (4095, 0, 100)
    ]

    # The same as a forged ARP reply would travel.
    forged += [replace(p, eth_dst="ff:ff:ff:ff:ff:ff", eth_type=0x0806) for p in forged]

    def send() -> None:
        for probe in forged:
            s.talk.send(probe)

    excuse = s.excuse(60.0, "b0")
    stop = s.talk.also(send)
    try:
        yield Pause(packets=False, ready=True)
    finally:
        stop()
        excuse.ends = time.monotonic() + FORGOTTEN_S + 1.0
        time.sleep(FORGOTTEN_S)  # frames of VLAN 0 teach a bridge like untagged ones


@action()
def own_source(s: Soak) -> Iterator[Pause]:
    """A14: packets whose source is a router's own address: that router drops them."""
    s.deliveries.spoofs = True
    try:
        yield Pause()
    finally:
        s.deliveries.spoofs = False


@action()
def flushed(s: Soak) -> Iterator[Pause]:
    """A1: the bridges forget all MAC addresses (fdb/flush), while packets flow."""
    for _ in range(3):
        s.flush(seconds=1.5)
        time.sleep(0.2)
    yield WELL


@action()
def silent(s: Soak) -> Iterator[Pause]:
    """Nothing happens: the soak's own noise, and leases that end."""
    yield Pause(extra=1.0, same_rules=True, bypassed=True, ready=True)
