"""JSON answers as tables and lines for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fsctl.cli.output import Output
from fsctl.client import WriteAnswer

Json = Mapping[str, Any]


def status(
    output: Output,
    problems: Sequence[str],
    notices: Sequence[str],
    routers: Sequence[Json],
    bridges: Sequence[Json] | None,
) -> None:
    """Readiness, then bridges and routers."""
    if not problems:
        output.line("ready: every bridge is connected and in step", "green")
    for line in (*problems, *notices):
        output.line(line, "yellow")
    if bridges is not None:
        output.line("")
        _bridges(output, bridges)
    output.line("")
    flows = [(r["name"], f"{r['flows']}/{r['max_flows']}", _agent(r["session"])) for r in routers]
    output.table(("ROUTER", "FLOWS>", "AGENT"), flows, empty="no routers")
    output.line("")
    columns = ("INTERFACE", "BRIDGE", "PORT", "MAC", "MTU>", "ADDRESSES", "STATE")
    rows = [_interface_row(r, name, i) for r in routers for name, i in r["interfaces"].items()]
    output.table(columns, rows, empty="no interfaces")
    for router in routers:
        for warning in router["warnings"]:
            output.line(f"{router['name']}: {warning}", "yellow")
        for reason in router["not_bypassed"]:
            output.line(f"{router['name']}: not bypassed: {_not_bypassed(reason)}", "yellow")


def _agent(session: Json | None) -> str:
    """What is known of a router's agent: without one its delegations stay as they were written."""
    if session is None:
        return "none"
    is_synced = "in sync" if session["synced"] else "has not sent its table"
    return f"{is_synced}, lease {session['lease']:g} s, since {session['since']}"


def _not_bypassed(reason: Json) -> str:
    """What an agent has told; which members it gives is its own affair (docs/rest.md, sessions)."""
    version = f"IPv{reason['ip']}" if reason.get("ip") else ""
    limits = ", ".join(filter(None, (str(reason.get("direction") or ""), version)))
    where = str(reason.get("scope", "router")) + (f" ({limits})" if limits else "")
    return f"{where}: {reason.get('reason', '')} [{reason.get('name', '')}]"


def _bridges(output: Output, bridges: Sequence[Json]) -> None:
    columns = ("BRIDGE", "CONNECTED", "IN STEP", "RULES>", "REPAIRS>", "LINKS")
    rows = [
        (b["name"], _yes(b["connected"]), _yes(b["in_step"]), b["rules"], b["repairs"], ", ".join(b["links"]) or "-")
        for b in bridges
    ]
    output.table(columns, rows, empty="no bridges")
    for bridge in bridges:
        for warning in bridge["warnings"]:
            output.line(f"{bridge['name']}: {warning}", "yellow")


def _interface_row(router: Json, name: str, interface: Json) -> tuple[object, ...]:
    state = "up" if interface["up"] else f"down: {interface['why_down']}" if interface["why_down"] else "down"
    mac, addresses = interface["mac"] or "-", ", ".join(interface["addresses"]) or "-"
    return f"{router['name']}.{name}", interface["bridge"], interface["port"] or "-", mac, interface["mtu"], addresses, state


def orphans_line(output: Output, orphans: Sequence[Json]) -> None:
    """One line if delegations are kept aside."""
    if not orphans:
        return
    counts = Counter[str]()
    for orphan in orphans:
        counts[orphan["router"]] += orphan["count"]
    text = ", ".join(f"{router}: {count} delegations" for router, count in counts.items())
    output.line(f"kept aside: {text} of what is not configured: `fsctl orphans`", "yellow")


def orphans(output: Output, orphans: Sequence[Json]) -> None:
    """Each set of delegations that is kept aside, and under it its flows."""
    if not orphans:
        output.line("nothing is kept aside")
    for orphan in orphans:
        output.line(f"{orphan['router']}: {orphan['count']} delegations since {orphan['since']}: {orphan['why']}", "bold")
        for flow in orphan["flows"]:
            output.line(f"    {match_text(flow['match'])} -> {verdict_text(flow)}")


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def flows(output: Output, flows: Sequence[Json]) -> None:
    """One delegation a line."""
    columns = ("MATCH", "VERDICT", "STATE", "HOPS>", "PACKETS>", "BYTES>", "REASON")
    rows = []
    for flow in flows:
        state = flow["status"]
        counts = (state["hops"], state["packets"], state["bytes"])
        rows.append((match_text(flow["match"]), verdict_text(flow), state["state"], *counts, state["reason"]))
    output.table(columns, rows, empty="no delegations")


def match_text(match: Json) -> str:
    """`eth0 10.0.2.0/24`, `eth0 tcp 10.0.1.7:40000 > 10.0.2.5:80`, with `from MAC` where a sender is named."""
    dst = match.get("ipv4_dst") or match.get("ipv6_dst")
    src = match.get("ipv4_src") or match.get("ipv6_src")
    text = f"{match['in']} {dst}"
    if src is not None:
        protocol = "tcp" if "tcp_src" in match else "udp"
        text = f"{match['in']} {protocol} {src}:{match[protocol + '_src']} > {dst}:{match[protocol + '_dst']}"
    return f"{text} from {match['eth_src']}" if "eth_src" in match else text


def verdict_text(flow: Json) -> str:
    """`eth1 02:00:00:00:00:0b`, punt or drop."""
    return f"{flow['out']} {flow['set']['eth_dst']}" if flow["action"] == "forward" else str(flow["action"])


def rules(output: Output, rules: Sequence[Json]) -> None:
    """One rule a line, and under it the delegations that it stands for."""
    if not rules:
        output.line("no rules")
    for rule in rules:
        output.line(f"{rule['bridge']}: {rule['text']}", "bold")
        output.line(f"    {rule['packets']} packets, {rule['bytes']} bytes; {_chain(rule)}")


def _chain(rule: Json) -> str:
    hops = [f"{hop['router']} {match_text(hop['match'])} -> {verdict_text(hop)}" for hop in rule["chain"]]
    return "collapsed from " + ", then ".join(hops) if hops else "no delegation"


def walk(output: Output, packet: Json, report: Json) -> None:
    """The packet, each hop, how it ends, and what does it."""
    dst = packet.get("ipv4_dst") or packet.get("ipv6_dst")
    output.line(f"{packet['bridge']} port {packet['in_port']}: to {dst} at {packet['eth_dst']}")
    for number, hop in enumerate(report["hops"], start=1):
        flow = hop["delegation"]
        decided = "no delegation" if flow is None else f"{match_text(flow['match'])} -> {verdict_text(flow)}"
        output.line(f"{number:3}  {hop['router']}.{hop['interface']}: {decided}")
    final = report["final"]
    style = {"bridged": "green", "dropped": "red"}.get(report["end"], "yellow")
    output.line(f"{report['end']}: {report['reason']}", style)
    if report["end"] == "bridged":
        output.line(f"     on {final['bridge']} from {final['eth_src']} to {final['eth_dst']}, ttl {final['ttl']}")
    if report["rule"] is not None:
        output.line(f"rule {report['rule']['bridge']}: {report['rule']['text']}")


def written(output: Output, answer: WriteAnswer) -> None:
    """One line, and one more per problem."""
    counts = ", ".join(f"{answer[name]} {name}" for name in ("added", "changed", "removed", "unchanged"))
    output.line(f"revision {answer['revision']}: {counts}")
    for failure in answer["failed"]:
        output.line(f"refused by {failure['bridge']}: {match_text(failure['match'])}: {failure['error']}", "red")
    if answer["waiting_for"]:
        output.note(f"not confirmed yet by: {', '.join(answer['waiting_for'])}; the rules follow when they answer")
    for left in answer.get("not_bypassed", []):
        output.note(f"not bypassed: {match_text(left['match'])}: {left['reason']}")
    for warning in answer.get("warnings", []):
        output.note(f"warning: {warning}")
    if not answer["stored"]:
        output.note("in force, but not stored yet: the store does not work; fsctl tries again every second")
