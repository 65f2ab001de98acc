"""What the controller answers, as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import cast

from fsctl.errors import FsctlError
from fsctl.model.addresses import format_mac
from fsctl.model.delegations import Delegation
from fsctl.model.fib import Fib
from fsctl.model.network import Interface, Router
from fsctl.schema.flows import flow_json, match_json
from fsctl.schema.packets import packet_json
from fsctl.schema.rules import actions_json, actions_text, rule_text
from fsctl.schema.rules import match_json as rule_match_json
from fsctl.schema.text import Json, shown
from fsctl.status import (
    BridgeStatus,
    Failure,
    FlowStatus,
    HopReport,
    Orphan,
    Override,
    RuleStatus,
    Session,
    WalkReport,
    WriteResult,
)

NO_OVERRIDE = Override()
PROBLEM_PREFIX = "urn:fsctl:problem:"
"""A problem's `type` (RFC 9457, 3.1.1) is this and the error's slug."""


def write_result_json(result: WriteResult) -> dict[str, Json]:
    return {
        "revision": result.revision,
        "added": result.added,
        "changed": result.changed,
        "removed": result.removed,
        "unchanged": result.unchanged,
        "failed": [_failure_json(f) for f in result.failed],
        "waiting_for": list(result.waiting_for),
        "stored": result.is_stored,
    }


def _failure_json(failure: Failure) -> dict[str, Json]:
    return {"match": match_json(failure.match), "bridge": failure.bridge, "error": failure.error}


def flow_status_json(status: FlowStatus) -> dict[str, Json]:
    """The flow as it was delegated, and `status` beside it."""
    state = {
        "state": status.state,
        "reason": status.reason,
        "hops": status.hops,
        "packets": status.packets,
        "bytes": status.bytes,
    }
    return flow_json(status.delegation) | {"status": state}


def interface_json(interface: Interface, override: Override = NO_OVERRIDE) -> dict[str, Json]:
    """An interface; `mtu_from` and `addresses_from` say whether the configuration holds, or what the router said over REST."""
    return {
        "bridge": interface.bridge,
        "port": interface.port,
        "ofport": interface.ofport,
        "mac": format_mac(interface.mac) if interface.mac else None,
        "mtu": interface.mtu,
        "mtu_from": _origin(override.mtu),
        "addresses": [str(a) for a in interface.addresses],
        "addresses_from": _origin(override.addresses),
        "up": interface.up,
        "why_down": interface.why_down,
    }


def _origin(said: object) -> str:
    return "configuration" if said is None else "rest"


def session_json(session: Session) -> dict[str, Json]:
    """An agent's session: whether it has replaced the whole FIB, and the number of its last write."""
    return {
        "id": session.id,
        "lease": session.lease_s,
        "graceful_restart": session.grace_s,
        "synced": session.is_synced,
        "seq": session.seq,
    }


def router_json(
    router: Router,
    fib: Fib | None,
    session: Session | None = None,
    overrides: Mapping[str, Override] = MappingProxyType({}),
    warnings: Sequence[str] = (),
) -> dict[str, Json]:
    """A router, its interfaces, how many of its `max_flows` it uses, and what its agent says is not bypassed.

    `warnings` are about its delegations (`hosts.warnings_of`).
    """
    return {
        "name": router.name,
        "flows": 0 if fib is None else len(fib),
        "max_flows": router.max_flows,
        "interfaces": {name: interface_json(i, overrides.get(name, NO_OVERRIDE)) for name, i in router.interfaces.items()},
        "session": None if session is None else {**session_json(session), "since": _utc(session.opened)},
        "not_bypassed": [] if session is None else [cast("dict[str, Json]", dict(r)) for r in session.reasons],
        "warnings": [*warnings],
    }


def _utc(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def orphan_json(orphan: Orphan, *, with_flows: bool = True) -> dict[str, Json]:
    """Delegations kept aside; `since` as RFC 3339 writes it."""
    shown: dict[str, Json] = {"router": orphan.router, "since": _utc(orphan.since), "count": orphan.count, "why": orphan.why}
    return shown | ({"flows": [dict(flow) for flow in orphan.flows]} if with_flows else {})


def bridge_json(status: BridgeStatus) -> dict[str, Json]:
    return {
        "name": status.name,
        "connected": status.connected,
        "in_step": status.in_sync,
        "datapath_id": None if status.datapath_id is None else f"{status.datapath_id:016x}",
        "rules": status.rules,
        "ways": status.ways,
        "ports": {name: status.ofports.get(name) for name in status.ports},
        "links": list(status.links),
        "repairs": status.repairs,
        "warnings": list(status.warnings),
    }


def rule_status_json(status: RuleStatus) -> dict[str, Json]:
    """An installed rule, its actions resolved through its way, and the chain it was collapsed from."""
    return {
        "bridge": status.bridge,
        "table": status.key.table,
        "priority": status.key.priority,
        "match": rule_match_json(status.key),
        "way": status.way,
        "actions": actions_json(status.actions),
        "actions_text": actions_text(status.actions),
        "text": rule_text(status.key, status.actions),
        "chain": [{"router": router} | flow_json(delegation) for router, delegation in status.chain],
        "packets": status.packets,
        "bytes": status.bytes,
    }


def walk_json(report: WalkReport, bridges: Iterable[BridgeStatus] = ()) -> dict[str, Json]:
    """Each hop with the delegation that decided it, the packet as it ends, and the rule that does it."""
    last = next((b for b in bridges if b.name == report.final.bridge), None)
    return {
        "end": report.end,
        "reason": report.reason,
        "hops": [_hop_json(hop) for hop in report.hops],
        "final": packet_json(report.final, last),
        "rule": None if report.rule is None else rule_status_json(report.rule),
    }


def _hop_json(hop: HopReport) -> dict[str, Json]:
    return {"router": hop.router, "interface": hop.interface, "delegation": _delegation_json(hop.delegation)}


def _delegation_json(delegation: Delegation | None) -> Json:
    return None if delegation is None else flow_json(delegation)


def problem_json(error: FsctlError, instance: str, extra: Mapping[str, Json] | None = None) -> dict[str, Json]:
    """An error as application/problem+json (RFC 9457), with the field and the value that caused it."""
    problem: dict[str, Json] = {
        "type": PROBLEM_PREFIX + error.slug,
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": instance,
    }
    if error.field is not None:
        problem |= {"field": error.field, "value": shown(error.value)}
    return problem | dict(extra or {})
