"""The agent's state as text: for people, and for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]


def human(state: Json, flows: Sequence[Json] = ()) -> str:
    """A page of text."""
    return "\n".join([*_summary(state), *_flow_lines(flows)]) + "\n"


def _summary(state: Json) -> Iterator[str]:
    session = state["session"]
    word = "in step" if session["in_step"] else "session open" if session["open"] else "no session"
    since = f" since {session['since']}" if session["since"] else ""
    yield f"router {state['router']} at {state['url']}: {word}{since}, {state['delegations']} delegations"
    if session["lag"] >= 1 or session["late"]:
        yield f"  fsctl is {session['lag']:.1f} s behind; withdrawn for being too late: {session['late']} times"
    if session["problem"]:
        yield f"  problem: {session['problem']}"
    pairs = ", ".join(f"{name} is {ifname}" for name, ifname in sorted(state["interfaces"].items()))
    yield f"interfaces: {pairs or 'none known to fsctl'}"
    if state["unusable"]:
        yield f"  not used (the reasons are below): {', '.join(state['unusable'])}"
    routes, n = state["routes"], state["neighbours"]
    used = f"{n['gateways']} next hops, {n['hosts']} hosts in use"
    yield f"kernel: {routes['ipv4']} IPv4 and {routes['ipv6']} IPv6 prefixes; {used}"
    if state["holes"]:
        yield "left to the router: " + ", ".join(f"{count} {why}" for why, count in sorted(state["holes"].items()))
    for title, key in (("not bypassed", "refused"), ("bypassed although (allowed)", "allowed")):
        for r in state[key]:
            version = f", IPv{r['ip']}" if r["ip"] else ""
            yield f"{title}: {r['scope']} ({r['direction']}{version}): {r['reason']} [{r['name']}]"
    for note in state["notes"]:
        yield f"note: {note}"
    for failure in state["failed_flows"]:
        yield f"refused by a switch: {failure['match']}: {failure['error']}"


def _flow_lines(flows: Sequence[Json]) -> Iterator[str]:
    if not flows:
        return
    yield ""
    yield f"{'IN':<8} {'DESTINATION':<44} {'TO':<28} {'STATE':<10} {'HOPS':>4} {'PACKETS':>12} {'BYTES':>15}"
    for flow in flows:
        match, status = flow["match"], flow["status"]
        dst = match.get("ipv4_dst") or match.get("ipv6_dst")
        to = f"{flow['out']} {flow['set']['eth_dst']}" if flow["action"] == "forward" else flow["action"]
        counts = f"{status['hops']:>4} {status['packets']:>12} {status['bytes']:>15}"
        yield f"{match['in']:<8} {dst:<44} {to:<28} {status['state']:<10} {counts} {status['reason']}".rstrip()


def prometheus(state: Json, flows: Iterable[Json]) -> str:
    """Prometheus' text exposition format 0.0.4."""
    router = {"router": state["router"]}
    session, counters = state["session"], state["counters"]
    lines = [
        *_metric("fsctl_agent_in_step", "gauge", "fsctl has confirmed the whole FIB.", [(router, int(session["in_step"]))]),
        *_metric("fsctl_agent_lag_seconds", "gauge", "Age of the oldest unconfirmed change.", [(router, session["lag"])]),
        *_metric("fsctl_agent_late_total", "counter", "Withdrawals because fsctl was behind.", [(router, session["late"])]),
        *_metric("fsctl_agent_delegations", "gauge", "Delegations in the FIB.", [(router, state["delegations"])]),
        *_metric("fsctl_agent_refusals", "gauge", "Reasons for not bypassing.", _by_name(router, state["refused"])),
        *_metric("fsctl_agent_calls_total", "counter", "Calls to fsctl.", [(router, counters["calls"])]),
        *_metric("fsctl_agent_failures_total", "counter", "Calls that failed.", [(router, counters["failures"])]),
        *_metric("fsctl_agent_dumps_total", "counter", "Dumps of the kernel's tables.", [(router, state["kernel"]["dumps"])]),
    ]
    labelled = [(_labels(flow) | router, flow["status"]) for flow in flows]
    for name in ("packets", "bytes"):
        values = [(labels, status[name]) for labels, status in labelled]
        lines += _metric(f"fsctl_bypassed_{name}_total", "counter", f"{name.capitalize()} that bypassed this router.", values)
    return "\n".join(lines) + "\n"


def _by_name(router: dict[str, str], refused: Sequence[Json]) -> list[tuple[dict[str, str], int]]:
    names = sorted({r["name"] for r in refused})
    return [(router | {"name": name}, sum(r["name"] == name for r in refused)) for name in names]


def _labels(flow: Json) -> dict[str, str]:
    match = flow["match"]
    return {"in": match["in"], "dst": str(match.get("ipv4_dst") or match.get("ipv6_dst"))}


def _metric(name: str, kind: str, help_text: str, values: Iterable[tuple[Mapping[str, str], int]]) -> Iterator[str]:
    yield f"# HELP {name} {help_text}"
    yield f"# TYPE {name} {kind}"
    for labels, value in values:
        text = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
        yield f"{name}{{{text}}} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
