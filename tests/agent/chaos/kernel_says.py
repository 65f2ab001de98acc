"""What a router's kernel would do with packets, as it says itself (`ip route get`), and where the agent may be more careful."""

from __future__ import annotations

import ipaddress
import json
import re
import subprocess
from dataclasses import dataclass
from typing import Any

from fsctl.model.addresses import parse_mac
from tests.agent.chaos.draw import KNOWN
from tests.agent.netns import Namespace
from tests.agent.oracle import Answer

SOURCE = {4: "192.0.2.77", 6: "2001:db8:ffff::7"}
"""Behind no interface: what a router does with it depends on the destination alone."""
SENDABLE = {"REACHABLE", "STALE", "DELAY", "PROBE", "PERMANENT"}
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _question(pair: tuple[str, str]) -> str:
    return f"route get {pair[1]} from {SOURCE[version_of(pair[1])]} iif {pair[0]}"


def _forget_clones(ns: Namespace) -> int:
    """Let the kernel answer anew. After one of two IPv6 routes with the same next-hop object is deleted, it says of the other
    that the network is unreachable, though it forwards: the clone that both used leads back to the one that is gone
    (inet6_rtm_getroute, rt6_info.from). A change of the table ends that.
    """
    for change in ("add", "del"):
        ns.ip(f"-6 route {change} blackhole fd77::/64")
    return 2


def version_of(text: str) -> int:
    return ipaddress.ip_address(text).version


@dataclass
class Said:
    """A router's kernel at one moment."""

    answers: dict[tuple[str, str], dict[str, Any]]
    """(ingress device, destination) -> `ip route get`, {} where it refuses."""
    neighbours: dict[tuple[str, str], dict[str, Any]]
    routes: dict[int, list[tuple[Network, dict[str, Any]]]]
    """The main table by IP version."""
    dark: set[str]
    """Devices that are down or without a carrier: the kernel goes on sending that way where it has not been told to stop."""
    messages: int
    """How many messages the questions have made the kernel send."""

    @classmethod
    def by(cls, ns: Namespace, destinations: list[str]) -> Said:
        pairs = [(i, d) for i in KNOWN for d in destinations]
        answers = dict(zip(pairs, _each(ns, list(map(_question, pairs))), strict=True))
        messages = 0
        if doubtful := [pair for pair, answer in answers.items() if not answer and version_of(pair[1]) == 6]:
            messages = _forget_clones(ns)
            answers |= dict(zip(doubtful, _each(ns, list(map(_question, doubtful))), strict=True))
        neighbours = {(n["dst"], n["dev"]): n for n in ns.json("neigh show")}
        routes = {v: [(_network(v, r["dst"]), r) for r in ns.json(f"-{v} route show table main")] for v in (4, 6)}
        dark = {link["ifname"] for link in ns.json("link show") if not {"UP", "LOWER_UP"} <= set(link["flags"])}
        return cls(answers, neighbours, routes, dark, messages)

    def forwarded(self, ingress: str, destination: str) -> Answer:
        """(fsctl's name of the interface, MAC address); None: not forwarded, or by an interface that fsctl does not know."""
        answer = self.answers[ingress, destination]
        if {ingress, answer.get("dev")} & self.dark:
            return None
        neighbour = self.neighbour(ingress, destination)
        if answer.get("type", "unicast") != "unicast" or answer.get("dev") not in KNOWN or "lladdr" not in neighbour:
            return None
        return (KNOWN[answer["dev"]], parse_mac(neighbour["lladdr"])) if SENDABLE & set(neighbour["state"]) else None

    def neighbour(self, ingress: str, destination: str) -> dict[str, Any]:
        answer = self.answers[ingress, destination]
        to = answer.get("gateway") or answer.get("via", {}).get("host") or destination
        return self.neighbours.get((to, answer.get("dev", "")), {})

    def is_special(self, destination: str) -> bool:
        """Whether the route has something for which the agent leaves a hole, as docs/agent.md says."""
        address = ipaddress.ip_address(destination)
        there = [(net, r) for net, r in self.routes[address.version] if address in net]
        longest = max((net.prefixlen for net, _ in there), default=0)
        routes = [r for net, r in there if net.prefixlen == longest]
        lowest = min((r.get("metric", 0) for r in routes), default=0)
        best = [r for r in routes if r.get("metric", 0) == lowest]
        if len(best) > 1 or any("tos" in r or "from" in r or "expires" in r for r in routes):
            return True
        return any("nexthops" in r or r.get("metrics") or "encap" in r or "dead" in r.get("flags", ()) for r in best)


def _network(version: int, text: str) -> Network:
    if text == "default":
        text = "0.0.0.0/0" if version == 4 else "::/0"
    return ipaddress.ip_network(text)


def _each(ns: Namespace, lines: list[str]) -> list[dict[str, Any]]:
    """The answer to each line of a batch; {} where the kernel refused."""
    text = "".join(f"{line}\n" for line in lines)
    words = ["ip", "-n", ns.name, "-j", "-force", "-batch", "-"]
    done = subprocess.run(words, input=text, text=True, capture_output=True, check=False, timeout=60)
    failed = {int(n) for n in re.findall(r"Command failed -:(\d+)", done.stderr)}
    decoder, at, found = json.JSONDecoder(), 0, list[dict[str, Any]]()
    for number in range(1, len(lines) + 1):
        if number in failed:
            found.append({})
            continue
        while done.stdout[at].isspace():
            at += 1
        values, at = decoder.raw_decode(done.stdout, at)
        found.append(values[0])
    return found
