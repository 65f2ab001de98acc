"""Which device of this router is which interface of fsctl's: by MAC address (hazard 38). And why one is not found. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fsctl.agent.decide import VIRTUAL_KINDS
from fsctl.agent.events import Link
from fsctl.agent.safety import Refusal
from fsctl.agent.state import State
from fsctl.model.addresses import format_mac, parse_mac

NOT_FOUND, TWINS = "interface", "twins"
"""Names of refusals; neither can be allowed."""

Owners = Mapping[int, tuple[str, ...]]
"""MAC address -> fsctl's names of the interfaces that have it."""


def owners(interfaces: Mapping[str, Mapping[str, Any]]) -> dict[int, tuple[str, ...]]:
    """From `GET /v1/routers/{r}`."""
    found: dict[int, tuple[str, ...]] = {}
    for name, interface in sorted(interfaces.items()):
        if interface.get("mac"):
            mac = parse_mac(interface["mac"])
            found[mac] = (*found.get(mac, ()), name)
    return found


def alone(by_mac: Owners) -> dict[int, str]:
    """MAC address -> name, where it says which interface it is."""
    return {mac: names[0] for mac, names in by_mac.items() if len(names) == 1}


def unusable(state: State, by_mac: Owners) -> Iterator[Refusal]:
    """Why interfaces that fsctl knows are not used here (`decide.usable_interfaces`)."""
    devices: dict[int, list[Link]] = {}
    for link in sorted(state.links.values(), key=lambda link: link.name):
        if link.mac is not None and link.mac in by_mac and link.kind not in VIRTUAL_KINDS:
            devices.setdefault(link.mac, []).append(link)
    for mac, names in by_mac.items():
        there = devices.get(mac, [])
        for name in names:
            if len(names) > 1:
                others = ", ".join(n for n in names if n != name)
                yield Refusal(TWINS, f"has the MAC address {format_mac(mac)}, as {others} has", 0, name)
            elif len(there) > 1:
                which = ", ".join(link.name for link in there)
                yield Refusal(TWINS, f"several devices have its MAC address {format_mac(mac)}: {which}", 0, name)
            elif why := _why_not(there[0] if there else None, state):
                yield Refusal(NOT_FOUND, why, 0, name)


def _why_not(link: Link | None, state: State) -> str:
    if link is None:
        return "no device here has its MAC address"
    if link.master:
        master = state.links.get(link.master)
        return f"{link.name} is a port of {master.name if master else 'another device'}"
    return "" if link.up else f"{link.name} is down"
