"""The agent never harms its router: the neighbour table is what it would be without an agent (faults C5, C6, C13, F6)."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from typing import Any

import pytest

from fsctl.model.addresses import format_mac
from tests.waiting import PATIENCE_S, eventually, waited_for

from .guest import Guest, mac
from .netns import Namespace, namespaces, needs_root, veth

pytestmark = needs_root
STATIC = 399
LONELY = 300


def batch(guest: Guest, text: str) -> None:
    subprocess.run(["ip", "-n", guest.ns.name, "-batch", "-"], input=text, text=True, check=True)


def entries(guest: Guest) -> dict[str, dict[str, Any]]:
    return {n["dst"]: n for n in guest.ns.json("neigh show dev r1")}


def address(n: int) -> str:
    return f"10.0.{4 + n // 200}.{1 + n % 200}"


def test_fault_C5_static_neighbours_of_a_boot_script_stay_as_they_were_made(guest: Guest) -> None:
    """First the routes, then the neighbours that they lead via, while the agent looks for these."""
    guest.start()
    eventually(lambda: guest.fake.session is not None and guest.fake.session.synced, "no session")
    guest.ns.ip("route add 10.0.4.0/22 dev r1")
    routes = "".join(f"route replace 20.{n // 200}.{n % 200}.0/24 via {address(n)} dev r1\n" for n in range(STATIC))
    macs = [f"02:aa:00:00:{n >> 8:02x}:{n & 255:02x}" for n in range(STATIC)]
    static = "".join(f"neigh replace {address(n)} lladdr {m} dev r1 nud permanent\n" for n, m in enumerate(macs))
    for _ in range(3):
        batch(guest, routes)
        batch(guest, static)
        eventually(lambda: sum(p.startswith("20.") for p in guest.flows()) == STATIC, "all are delegated")
        found = entries(guest)
        lost = [n for n in range(STATIC) if found[address(n)]["state"] != ["PERMANENT"]]
        lost += [n for n in range(STATIC) if found[address(n)].get("lladdr") != macs[n]]
        assert not lost, f"{len(lost)} of {STATIC} are no longer permanent"
        guest.ns.ip("neigh flush dev r1 nud all", check=False)
        batch(guest, "".join(f"neigh del {address(n)} dev r1\n" for n in range(STATIC) if address(n) in entries(guest)))


@pytest.mark.skipif(not shutil.which("nft"), reason="no nft")
def test_fault_C5_a_router_that_cannot_send_delegates_to_no_stale_neighbour(guest: Guest) -> None:
    """A filter on the router's own packets: nobody would notice that the neighbour has gone."""
    for words in ("table inet f", "chain inet f out { type filter hook output priority 0 ; }", "rule inet f out oifname r1 drop"):
        guest.ns.run(f"nft add {words}")
    guest.ns.ip(f"neigh replace 10.0.1.9 lladdr {mac(guest, 1)} dev r1 nud stale")
    guest.ns.ip("route add 10.9.0.0/16 via 10.0.1.9")
    guest.start()
    eventually(lambda: guest.fake.session is not None and guest.fake.session.reasons, "no session")
    eventually(lambda: "[neighbours]" in guest.status(), "the reason is told")
    eventually(lambda: guest.flows() == {}, "left to the router")
    guest.ns.run("nft flush ruleset")
    guest.ns.run("ping -c 1 -W 1 10.0.1.9", check=False)  # as forwarded packets would
    eventually(lambda: "10.9.0.0/16" in guest.flows(), "it is there")
    eventually(lambda: "[neighbours]" not in guest.status(), "it can be kept again")


def test_fault_C6_routes_to_single_addresses_do_not_fill_the_neighbour_table(guest: Guest) -> None:
    guest.start()
    batch(guest, "".join(f"route add {address(n)}/32 dev r1\n" for n in range(LONELY)))
    guest.ns.ip("route add 10.9.0.0/16 via 10.0.1.9")
    guest.waits_for({"10.9.0.0/16": mac(guest, 1), "10.0.1.9/32": mac(guest, 1)})
    eventually(lambda: json.loads(guest.status("--json"))["routes"]["ipv4"] > LONELY, "all are known")
    assert not waited_for(lambda: len(entries(guest)) > 1, 6.0), "nobody was asked for"


def test_fault_F6_and_C13_the_flag_of_external_learning_stays(guest: Guest) -> None:
    """As FRR's EVPN makes its entries; kept from the agent's start to its end, ordered or not."""
    guest.ns.ip(f"neigh replace 10.0.1.9 lladdr {mac(guest, 1)} dev r1 nud reachable extern_learn")
    guest.ns.ip("neigh replace 10.0.1.8 lladdr 02:aa:00:00:00:08 dev r1 nud stale extern_learn")
    guest.ns.ip("route add 10.9.0.0/16 via 10.0.1.9")
    guest.ns.ip("route add 10.8.0.0/16 via 10.0.1.8")
    for number in (signal.SIGTERM, signal.SIGKILL):
        process = guest.start()
        eventually(lambda: "10.9.0.0/16" in guest.flows(), "no flows")
        process.send_signal(number)
        process.wait(PATIENCE_S)
        assert all("extern_learn" in entries(guest)[f"10.0.1.{n}"] for n in (8, 9))


def test_fault_C13_nothing_is_left_behind_by_an_agent_that_crashed(guest: Guest) -> None:
    guest.ns.ip("route add 10.9.0.0/16 via 10.0.1.9")
    process = guest.start()
    guest.waits_for({"10.9.0.0/16": mac(guest, 1), "10.0.1.9/32": mac(guest, 1)})
    process.kill()
    process.wait(PATIENCE_S)
    assert "managed" not in guest.neigh("10.0.1.9"), "the kernel would keep it for ever"


def test_fault_C13_an_unresolved_gateway_is_looked_for_at_once(guest: Guest) -> None:
    guest.start(rounds=False)
    eventually(lambda: guest.fake.session is not None and guest.fake.session.synced, "no session")
    guest.ns.ip("route add 10.9.0.0/16 via 10.0.1.9")
    eventually(lambda: "10.9.0.0/16" in guest.flows(), "no flows")


def test_fault_F8_two_interfaces_with_one_mac_are_both_named(guest: Guest) -> None:
    """In `fsctl-agent status`, and on the router in REST."""
    one = guest.fake.router.interfaces["eth0"]
    twin = replace(one, name="eth2", port="port-eth2")
    guest.fake.router = replace(guest.fake.router, interfaces={**guest.fake.router.interfaces, "eth2": twin})
    guest.ns.ip("route add 10.9.0.0/16 via 10.0.1.9")
    guest.start()

    def told() -> set[tuple[str, str]]:
        session = guest.fake.session
        return {(r["name"], r["scope"]) for r in session.reasons} if session else set()

    eventually(lambda: {("twins", "eth0"), ("twins", "eth2")} <= told(), "both are named in REST")
    text = guest.status()
    assert f"not bypassed: eth0 (both): has the MAC address {format_mac(one.mac)}, as eth2 has [twins]" in text
    assert f"not bypassed: eth2 (both): has the MAC address {format_mac(one.mac)}, as eth0 has [twins]" in text
    assert guest.flows() == {}, "nobody can tell by which of them a packet comes in"


def test_fault_F8_two_devices_with_one_mac_are_both_named(guest: Guest) -> None:
    guest.ns.ip("link add twin type veth peer name peer address 02:aa:00:00:00:99")
    guest.ns.ip(f"link set twin address {guest.ns.mac('r0')}")
    guest.start()
    eventually(lambda: guest.fake.session is not None and guest.fake.session.reasons, "told in REST")
    eventually(lambda: "(both): several devices have its MAC address" in guest.status(), "shown")
    assert ": r0, twin [twins]" in guest.status()


def test_fault_F8_why_an_interface_is_not_used(guest: Guest) -> None:
    guest.ns.ip("link set r0 down")
    guest.start()
    eventually(lambda: guest.fake.session is not None, "no session")
    eventually(lambda: "eth0 (both): r0 is down [interface]" in guest.status(), "down")
    guest.ns.ip("link set r0 up")
    eventually(lambda: "[interface]" not in guest.status(), "up again")
    guest.ns.ip("link set r0 address 02:aa:00:00:00:98")
    eventually(lambda: "eth0 (both): no device here has its MAC address [interface]" in guest.status(), "gone")


MARKS = ("extern_learn", "managed", "router", "proxy")


def standing(ns: Namespace) -> dict[str, tuple[object, ...]]:
    """Of each neighbour what does not change by itself: whether it is permanent, its flags, and a permanent one's address."""
    found = {}
    for n in ns.json("neigh show dev r1"):
        is_permanent = n.get("state") == ["PERMANENT"]
        found[n["dst"]] = (is_permanent, n.get("lladdr") if is_permanent else None, *(mark in n for mark in MARKS))
    return {dst: marks for dst, marks in found.items() if any(marks)}


def drawn(dice: random.Random) -> str:
    """One thing that an operator or a daemon does to the neighbours in use."""
    to = f"10.0.1.{dice.randrange(10, 30)}"
    lladdr = f"lladdr 02:aa:00:00:00:{dice.randrange(256):02x} dev r1"
    kinds = ("nud permanent", "nud stale", "nud reachable", "nud stale extern_learn", "nud reachable extern_learn")
    return f"neigh replace {to} {lladdr} {dice.choice(kinds)}"


@pytest.mark.parametrize("seed", range(3))
def test_fault_C5_the_table_is_that_of_a_twin_without_an_agent(guest: Guest, seed: int) -> None:
    dice = random.Random(seed)
    with namespaces("b", "i") as (twin, others):
        veth(twin, "r1", others, "h1")
        twin.ip("addr add 10.0.1.1/24 dev r1")
        routes = "".join(f"route add 20.0.{n}.0/24 via 10.0.1.{n} dev r1\n" for n in range(10, 30))
        batch(guest, routes)
        guest.start()
        eventually(lambda: guest.fake.session is not None and guest.fake.session.synced, "no session")
        for _ in range(8):
            text = "".join(f"{drawn(dice)}\n" for _ in range(40))
            for ns in (guest.ns, twin):
                subprocess.run(["ip", "-n", ns.name, "-batch", "-"], input=text, text=True, check=True)
            time.sleep(0.1)
            assert standing(guest.ns) == standing(twin)
