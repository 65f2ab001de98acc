"""What each router's table must hold: the test's own books, which share nothing with fsctl."""

from __future__ import annotations

import ipaddress
from typing import Any

Flow = dict[str, Any]
Counts = tuple[int, int, int, int]
"""What a write says of itself: added, changed, removed, unchanged."""


def key_of(flow: Flow) -> tuple[str, str, str]:
    """What tells two flows of a router apart."""
    match = flow["match"]
    version = 4 if "ipv4_dst" in match else 6
    return match["in"], match.get("eth_src", ""), str(ipaddress.ip_network(match[f"ipv{version}_dst"]))


def plain(flow: Flow) -> Flow:
    """A flow as it was delegated, in one spelling."""
    name, eth_src, dst = key_of(flow)
    kept: Flow = {"in": name, "eth_src": eth_src, "dst": dst, "action": flow["action"]}
    if flow["action"] == "forward":
        kept |= {"to": flow["set"]["eth_dst"].lower(), "out": flow["out"]}
    return kept


class Books:
    """The tables of all routers."""

    def __init__(self, routers: tuple[str, ...]) -> None:
        self.tables: dict[str, dict[tuple[str, str, str], Flow]] = {name: {} for name in routers}

    def put(self, router: str, flows: list[Flow]) -> Counts:
        before = self.tables[router]
        after = self.tables[router] = {key_of(flow): plain(flow) for flow in flows}
        both = before.keys() & after.keys()
        changed = sum(before[key] != after[key] for key in both)
        return len(after) - len(both), changed, len(before) - len(both), len(both) - changed

    def patch(self, router: str, add: list[Flow], remove: list[Flow]) -> Counts:
        """`remove` are flows of which the matches count."""
        table = self.tables[router]
        removed = sum(table.pop(key_of(flow), None) is not None for flow in remove)
        added = changed = 0
        for flow in add:
            key, value = key_of(flow), plain(flow)
            added += key not in table
            changed += key in table and table[key] != value
            table[key] = value
        return added, changed, removed, len(add) + len(remove) - added - changed - removed

    def move(self, router: str, out: str, old: str, new: str) -> None:
        """A neighbour has another MAC address."""
        for flow in self.tables[router].values():
            if flow.get("out") == out and flow["to"] == old.lower():
                flow["to"] = new.lower()

    def difference(self, router: str, shown: list[Flow]) -> str:
        """What differs between these books and what fsctl shows; empty if nothing does."""
        found = {key_of(flow): plain(flow) for flow in shown}
        wanted = self.tables[router]
        if found == wanted and len(shown) == len(found):
            return ""
        missing, extra = wanted.keys() - found.keys(), found.keys() - wanted.keys()
        other = [key for key in wanted.keys() & found.keys() if wanted[key] != found[key]]
        return f"{router}: missing {sorted(missing)[:3]}, too much {sorted(extra)[:3]}, other {other[:3]}"
