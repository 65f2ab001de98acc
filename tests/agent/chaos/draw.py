"""Commands for `ip -batch`, at random; most are legal, the rest are refused by the kernel and change nothing."""

from __future__ import annotations

import random
from dataclasses import dataclass

INTERFACES = ["r0", "r1", "r2"]
KNOWN = {"r0": "eth0", "r1": "eth1"}
"""fsctl's names; it does not know r2."""
SUBNETS = {"r0": ("10.0.0", "fd00:9"), "r1": ("10.0.1", "fd00:1"), "r2": ("10.0.2", "fd00:2")}
PREFIXES4 = [
    *("default", "10.0.0.0/8", "10.0.1.64/26", "10.5.0.0/16", "10.5.1.0/24", "10.5.1.128/25", "10.5.1.7", "10.6.0.0/16"),
    "172.16.0.0/12",
]
PREFIXES6 = ["::/0", "fd00::/16", "fd00:1::40/122", "fd05::/32", "fd05:0:1::/48", "fd05:0:1::7", "fd06::/32"]
HOSTS4 = [f"10.0.{n}.{h}" for n in range(3) for h in (2, 3, 66, 255)]
HOSTS6 = [f"fd00:{n}::{h}" for n in (9, 1, 2) for h in (2, 3, 42)]
DRAWN = [
    *HOSTS4, *HOSTS6, "10.0.0.1", "10.0.1.1", "10.5.0.9", "10.5.1.1", "10.5.1.7", "10.5.1.9", "10.5.1.200", "10.6.7.8",
    "172.16.9.9", "8.8.8.8", "fd00:1::1", "fd05::9", "fd05:0:1::7", "fd05:0:1::9", "fd06::1", "2001:db8::1", "10.99.0.1",
]  # fmt: skip
"""Destinations that are compared."""
MACS = ["02:00:00:00:00:0a", "02:00:00:00:00:0b"]
ALIKE = ["proto bird", "src 10.0.1.1", "onlink", "mtu 1500"]
"""What tells routes apart that lead the same way."""


@dataclass
class Chaos:
    """Draws commands."""

    rng: random.Random

    def commands(self, most: int = 12) -> list[str]:
        """Some; in half of the cases nothing among them makes the agent dump anew."""
        draw = self.quiet if self.rng.random() < 0.5 else self.command
        return [draw() for _ in range(self.rng.randint(1, most))]

    def command(self) -> str:
        kinds = [self.route] * 10 + [self.neigh] * 6 + [self.nexthop] * 2 + [self.alike, self.link, self.addr]
        return self.rng.choice(kinds)()

    def quiet(self) -> str:
        """Nothing upon which the agent dumps everything anew: what is told has to be enough."""
        return self.rng.choice([self.route] * 5 + [self.neigh] * 3 + [self.alike])()

    def leg(self, v6: bool) -> str:
        i = self.rng.choice(INTERFACES)
        gateway = self.rng.choice(HOSTS6 if v6 else HOSTS4)
        choices = [f"via {gateway}"] * 5 + [f"dev {i}", f"via {gateway} dev {i} onlink"]
        if not v6:
            choices.append(f"via inet6 {self.rng.choice(HOSTS6)} dev {i}")
            choices.append(f"via 10.0.1.2 dev r1 {self.rng.choice(ALIKE)}")
        return self.rng.choice(choices)

    def route(self) -> str:
        v6 = self.rng.random() < 0.4
        dst = self.rng.choice(PREFIXES6 if v6 else PREFIXES4)
        verb = self.rng.choice(["add", "add", "replace", "replace", "append", "prepend", "del", "del", "del"])
        metric = self.rng.choice(["", "", "metric 50", "metric 100"])
        if verb == "del":
            return f"route del {dst} {metric}"
        if verb == "prepend" and v6:
            verb = "append"
        if self.rng.random() < 0.12:
            kind = self.rng.choice(["blackhole", "unreachable", "prohibit", "throw"])
            return f"route {verb} {kind} {dst} {metric}"
        how = self.leg(v6)
        if self.rng.random() < 0.15:
            how = f"nhid {self.rng.choice([1, 2, 3, 4] if not v6 else [11, 12, 13])}"
        elif self.rng.random() < 0.15:
            how = " ".join(f"nexthop {self.leg(v6)}" for _ in range(2))
        elif self.rng.random() < 0.1:
            how += self.rng.choice([" mtu 1400", " mtu lock 1400", " mtu 1500"])
        tos = "tos 0x10" if not v6 and self.rng.random() < 0.04 else ""
        return f"route {verb} {dst} {tos} {how} {metric}"

    def alike(self) -> str:
        """One of several routes that lead the same way comes, or the first of them goes."""
        if self.rng.random() < 0.4:
            return "route del 10.5.0.0/16"
        verb, other = self.rng.choice(["append", "prepend"]), self.rng.choice(["", *ALIKE])
        return f"route {verb} 10.5.0.0/16 via 10.0.1.2 dev r1 {other}"

    def neigh(self) -> str:
        i, address = self.rng.choice(INTERFACES), self.rng.choice(HOSTS4 + HOSTS6)
        if self.rng.random() < 0.25:
            return f"neigh del {address} dev {i}"
        if self.rng.random() < 0.08:
            return f"neigh replace {address} dev {i} managed"
        state = self.rng.choice(["permanent", "reachable", "stale", "permanent", "failed", "stale extern_learn"])
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

    def addr(self) -> str:
        i = self.rng.choice(INTERFACES)
        verb = self.rng.choice(["add", "add", "del"])
        v4, v6 = SUBNETS[i]
        nodad = "nodad" if verb == "add" else ""
        return f"addr {verb} {self.rng.choice([f'{v4}.1/24', f'{v6}::1/64 {nodad}', '10.5.1.1/25'])} dev {i}"
