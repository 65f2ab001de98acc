"""The fold against the kernel itself: random commands, and at every pause `ip route get` for drawn destinations.

FSCTL_CHAOS_SECONDS sets how long (default 20). A failure prints the seed; FSCTL_CHAOS_SEED replays it.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from fsctl.agent.decide import Hole
from fsctl.agent.fib import Fold
from fsctl.agent.follow import Follower
from fsctl.agent.netlink import Kernel
from fsctl.model import format_mac, parse_mac

from .kernel import host
from .netns import KernelOf, Namespace, namespaces, needs_root, veth
from .oracle import lookup

SECONDS = float(os.environ.get("FSCTL_CHAOS_SECONDS", "20"))
SEED = int(os.environ.get("FSCTL_CHAOS_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
INTERFACES = ["r0", "r1", "r2"]
KNOWN = {"r0": "eth0", "r1": "eth1"}
SUBNETS = {"r0": ("10.0.0", "fd00:9"), "r1": ("10.0.1", "fd00:1"), "r2": ("10.0.2", "fd00:2")}
PREFIXES4 = [
    *("default", "10.0.0.0/8", "10.0.1.64/26", "10.5.0.0/16", "10.5.1.0/24", "10.5.1.128/25", "10.5.1.7", "10.6.0.0/16"),
    "172.16.0.0/12",
]
PREFIXES6 = ["default", "fd00::/16", "fd00:1::40/122", "fd05::/32", "fd05:0:1::/48", "fd05:0:1::7", "fd06::/32"]
HOSTS4 = [f"10.0.{n}.{h}" for n in range(3) for h in (2, 3, 66, 255)]
HOSTS6 = [f"fd00:{n}::{h}" for n in (9, 1, 2) for h in (2, 3, 42)]
DRAWN = [
    *HOSTS4, *HOSTS6, "10.0.0.1", "10.0.1.1", "10.5.0.9", "10.5.1.1", "10.5.1.7", "10.5.1.9", "10.5.1.200", "10.6.7.8",
    "172.16.9.9", "8.8.8.8", "fd00:1::1", "fd05::9", "fd05:0:1::7", "fd05:0:1::9", "fd06::1", "2001:db8::1", "10.99.0.1",
]  # fmt: skip
MACS = ["02:00:00:00:00:0a", "02:00:00:00:00:0b"]
CAUTIOUS = {"multipath", "tos", "route MTU", "from", "encapsulated", "dead next hop"}
"""Holes where the kernel would forward, on purpose."""


@dataclass
class Chaos:
    """Draws commands for `ip -batch`; most are legal, the rest are refused by the kernel and change nothing."""

    rng: random.Random

    def command(self) -> str:
        kinds = [self.route] * 10 + [self.neigh] * 6 + [self.nexthop] * 2 + [self.link, self.addr, self.peer]
        return self.rng.choice(kinds)()

    def leg(self, v6: bool) -> str:
        i = self.rng.choice(INTERFACES)
        gateway = self.rng.choice(HOSTS6 if v6 else HOSTS4)
        choices = [f"via {gateway}"] * 5 + [f"dev {i}", f"via {gateway} dev {i} onlink"]
        if not v6:
            choices.append(f"via inet6 {self.rng.choice(HOSTS6)} dev {i}")
        return self.rng.choice(choices)

    def route(self) -> str:
        v6 = self.rng.random() < 0.4
        dst = self.rng.choice(PREFIXES6 if v6 else PREFIXES4)
        verb = self.rng.choice(["add", "add", "replace", "replace", "append", "prepend", "del", "del", "del"])
        metric = self.rng.choice(["", "", "metric 50", "metric 100"])
        family = "-6 " if v6 else ""
        if verb == "del":
            return f"{family}route del {dst} {metric}"
        if verb == "prepend" and v6:
            verb = "append"
        if self.rng.random() < 0.12:
            kind = self.rng.choice(["blackhole", "unreachable", "prohibit", "throw"])
            return f"{family}route {verb} {kind} {dst} {metric}"
        how = self.leg(v6)
        if self.rng.random() < 0.15:
            how = f"nhid {self.rng.choice([1, 2, 3, 4] if not v6 else [11, 12, 13])}"
        elif self.rng.random() < 0.15:
            how = " ".join(f"nexthop {self.leg(v6)}" for _ in range(2))
        elif self.rng.random() < 0.1:
            how += self.rng.choice([" mtu 1400", " mtu lock 1400", " mtu 1500"])
        tos = "tos 0x10" if not v6 and self.rng.random() < 0.04 else ""
        return f"{family}route {verb} {dst} {tos} {how} {metric}"

    def neigh(self) -> str:
        i, address = self.rng.choice(INTERFACES), self.rng.choice(HOSTS4 + HOSTS6)
        if self.rng.random() < 0.25:
            return f"neigh del {address} dev {i}"
        state = self.rng.choice(["permanent", "reachable", "stale", "permanent", "failed"])
        return f"neigh replace {address} lladdr {self.rng.choice(MACS)} dev {i} nud {state}"

    def nexthop(self) -> str:
        number = self.rng.choice([1, 2, 3, 4, 11, 12, 13])
        if self.rng.random() < 0.3:
            return f"nexthop del id {number}"
        if number in (4, 13):
            return f"nexthop replace id {number} group {'1/2' if number == 4 else '11/12'}"
        i = self.rng.choice(INTERFACES)
        gateway = self.rng.choice(HOSTS6 if number > 10 else HOSTS4)
        return self.rng.choice(
            [f"nexthop replace id {number} via {gateway} dev {i}"] * 4 + [f"nexthop replace id {number} blackhole"]
        )

    def link(self) -> str:
        i = self.rng.choice(INTERFACES)
        return self.rng.choice(
            [f"link set {i} down", f"link set {i} up", f"link set {i} up", f"link set {i} mtu 1400", f"link set {i} mtu 1500"]
        )

    def peer(self) -> str:
        return f"link set {self.rng.choice(INTERFACES)} carrier {self.rng.choice(['off', 'on', 'on'])}"

    def addr(self) -> str:
        i = self.rng.choice(INTERFACES)
        verb = self.rng.choice(["add", "add", "del"])
        v4, v6 = SUBNETS[i]
        nodad = "nodad" if verb == "add" else ""
        return f"addr {verb} {self.rng.choice([f'{v4}.1/24', f'{v6}::1/64 {nodad}', '10.5.1.1/25'])} dev {i}"


@pytest.fixture
def router() -> Iterator[Namespace]:
    with namespaces("r", "p") as (ns, peers):
        for i in INTERFACES:
            veth(ns, i, peers, f"p{i}")
            ns.ip(f"addr add {SUBNETS[i][0]}.1/24 dev {i}")
            ns.ip(f"addr add {SUBNETS[i][1]}::1/64 dev {i} nodad")
            ns.sysctl(f"ipv4/conf/{i}/rp_filter", "0")
        ns.sysctl("ipv4/conf/all/rp_filter", "0")
        ns.sysctl("ipv4/ip_forward", "1")
        ns.sysctl("ipv6/conf/all/forwarding", "1")
        yield ns


def asked(ns: Namespace, text: str) -> dict[str, str]:
    """What the kernel says itself: `ip route get`; {} where it refuses."""
    out = ns.ip(f"-j route get {text}", check=False)
    return json.loads(out)[0] if out.strip() else {}


def differences(ns: Namespace, fold: Fold) -> Iterator[str]:
    delegations = list(fold.delegations())
    neighs = {(n["dst"], n["dev"]): n for n in ns.json("neigh show") if n.get("lladdr")}
    for text in DRAWN:
        version, value = host(text)
        mine = next((a for name in fold.names().values() if (a := lookup(delegations, name, version, value))), None)
        kernel = asked(ns, text)
        to = kernel.get("gateway") or kernel.get("via", {}).get("host") or text
        neigh = neighs.get((to, kernel.get("dev", "")))
        usable = neigh and not {"FAILED", "INCOMPLETE", "NOARP"} & set(neigh["state"])
        forwards = kernel.get("type", "unicast") == "unicast" and kernel.get("dev") in KNOWN and usable
        theirs = (KNOWN[kernel["dev"]], parse_mac(neigh["lladdr"])) if forwards and neigh else None
        if mine != theirs and not (mine is None and why(fold, version, value) in CAUTIOUS):
            shown = mine and (mine[0], format_mac(mine[1]))
            yield f"{text}: fold {shown} ({why(fold, version, value)}), kernel {kernel}, neighbour {neigh}"


def why(fold: Fold, version: int, value: int) -> str:
    found = fold.decision(version, value)
    return found.reason if isinstance(found, Hole) else type(found).__name__


def settle(kernel: Kernel, follower: Follower, fold: Fold) -> None:
    """Take everything in that has happened, as the agent's loop does."""
    for _ in range(2):
        time.sleep(0.02)
        follower.pump()
    if follower.due() < float("inf") and fold.wants_resync():
        follower.resync(time.monotonic())
    fold.settle()


@needs_root
@pytest.mark.timeout(SECONDS + 120)
def test_fold_agrees_with_ip_route_get(router: Namespace) -> None:
    rng = random.Random(SEED)
    chaos, history = Chaos(rng), list[str]()
    kernel = KernelOf(router.name)
    fold = Fold({parse_mac(router.mac(i)): name for i, name in KNOWN.items()})
    follower = Follower(kernel, fold)
    follower.resync(0.0)
    end, compared = time.monotonic() + SECONDS, 0
    try:
        while time.monotonic() < end:
            commands = [chaos.command() for _ in range(rng.randint(1, 12))]
            history += [*commands, "--"]
            batch = "\n".join(commands) + "\n"
            subprocess.run(
                ["ip", "-n", router.name, "-force", "-batch", "-"], input=batch, text=True, capture_output=True, check=False
            )
            settle(kernel, follower, fold)
            found = list(differences(router, fold))
            if found:  # a state may have moved between the two looks (stale, failed): only what stays counts
                settle(kernel, follower, fold)
                found = list(differences(router, fold))
            assert not found, "\n".join([f"FSCTL_CHAOS_SEED={SEED}", *history[-150:], *found])
            compared += sum(1 for t in DRAWN if lookup(fold.delegations(), "eth0", *host(t)))
    finally:
        kernel.close()
    assert compared, "nothing was ever delegated: the test says nothing"
