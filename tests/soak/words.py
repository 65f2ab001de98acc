"""What REST says, held against the switch and the packets."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from tests.soak.judge import BYPASSED, ROUTED, Sent
from tests.soak.plan import BY_MAC, LEASED, ROUTERS
from tests.soak.walk import walk

if TYPE_CHECKING:
    from tests.soak.harness import Soak


def bridges(said: list[dict[str, Any]]) -> list[str]:
    """`in_step` and `connected` of every bridge."""
    return [
        f"{b['name']}: connected {b['connected']}, in_step {b['in_step']}" for b in said if not (b["connected"] and b["in_step"])
    ]


def flows(soak: Soak, sents: list[Sent], is_decisive: bool) -> list[str]:
    """`installed`: its packets do not come to the router, if that `is_decisive`; anything else has a reason."""
    found = []
    for router in ROUTERS:
        if router == LEASED or router not in soak.control.config["routers"]:
            continue
        said = soak.control.client.flows(router)
        found += [f"{router}: {_match(f)} is {f['status']['state']} without a reason" for f in said if _is_unexplained(f)]
        for sent in sents:
            flow = _flow_of(router, said, sent)
            if flow is not None:
                found += _held(soak, flow, sent, is_decisive)
    return found


def _is_unexplained(flow: dict[str, Any]) -> bool:
    return flow["status"]["state"] != "installed" and not flow["status"]["reason"]


def _match(flow: dict[str, Any]) -> str:
    match = flow["match"]
    return f"{match['in']} {match.get('ipv4_dst') or match.get('ipv6_dst')}"


def _flow_of(router: str, said: list[dict[str, Any]], sent: Sent) -> dict[str, Any] | None:
    """The flow that decides about a plain probe where it enters this router first."""
    port = BY_MAC.get(sent.probe.eth_dst)
    if port is None or port.station != router or not sent.probe.is_plain:
        return None
    dst = ipaddress.ip_address(sent.probe.dst)
    key = f"ipv{dst.version}_dst"
    there = [f for f in said if f["match"]["in"] == port.device and key in f["match"] and "eth_src" not in f["match"]]
    covering = [f for f in there if dst in ipaddress.ip_network(f["match"][key])]
    return max(covering, key=lambda f: ipaddress.ip_network(f["match"][key]).prefixlen, default=None)


def _held(soak: Soak, flow: dict[str, Any], sent: Sent, is_decisive: bool) -> list[str]:
    port = BY_MAC[sent.probe.eth_dst]
    outcome = walk(soak.tables, sent.probe)
    is_own = sent.probe.dst in soak.tables[port.station].own or sent.probe.src in soak.tables[port.station].own
    if is_own or outcome.asked:
        return []  # the router's own addresses, or a word of a router: not decided by the flow alone
    saw = port.name in sent.routers[BYPASSED]
    state = flow["status"]["state"]
    if state == "installed" and saw and is_decisive:
        return [f"{port.station}: {_match(flow)} is installed, and {port.name} saw a packet to {sent.probe.dst}"]
    # With several routers a part of the flow may be bypassed: where another router's FIB is more specific.
    alone = len(outcome.routers) == 1 and port.name in sent.routers[ROUTED]
    if state == "slow_path" and flow["action"] == "forward" and not saw and alone:
        return [f"{port.station}: {_match(flow)} is slow_path ({flow['status']['reason']}), and {port.name} saw nothing"]
    return []
