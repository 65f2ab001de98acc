"""Flows as JSON <-> delegations: the request's grammar, checked flow by flow.

    {"match": {"in": "eth0", "ipv4_dst": "10.0.2.0/24"}, "action": "forward",
     "set": {"eth_dst": "02:00:00:00:00:0b"}, "out": "eth1"}

Most flows of a large write differ in their destination only. What the rest of a flow means is worked out once
and remembered by its texts; a flow that was seen before costs a look-up and the reading of one prefix. Whatever
is unusual or wrong takes the careful way, which names index, field and value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from fsctl.errors import InvalidError
from fsctl.model.addresses import IPV4, IPV6, format_ip, format_mac, parse_mac
from fsctl.model.delegations import DROP, PUNT, Delegation, FiveTuple, Forward, Match, Verdict
from fsctl.model.fib import Change, PartKey, change_of, match_of_change
from fsctl.model.ip_protocols import TCP, UDP
from fsctl.model.network import Interface, Router
from fsctl.model.prefix_keys import Key
from fsctl.schema.addresses import host, key_of_text, prefix_key
from fsctl.schema.text import BREATH, Json, array, fields, integer, join, one_of

ACTIONS = ("forward", "punt", "drop")
DESTINATIONS = {"ipv4_dst": IPV4, "ipv6_dst": IPV6}
SOURCES = {"ipv4_src": IPV4, "ipv6_src": IPV6}
PORTS = {"tcp_src": TCP, "tcp_dst": TCP, "udp_src": UDP, "udp_dst": UDP}
PROTOCOLS = {TCP: "tcp", UDP: "udp"}
MATCH_FIELDS = ("in", "eth_dst", "eth_src", *DESTINATIONS, *SOURCES, "ip_proto", *PORTS)
_CONNECTION_FIELDS = (*SOURCES, "ip_proto", *PORTS)


def no_pause() -> None:
    """Nobody else is to run."""


class _Shape(NamedTuple):
    """What a flow means apart from its destination, and which destinations were seen with it."""

    part: PartKey
    verdict: Verdict | None
    version: int
    dst_field: str
    seen: dict[Key | FiveTuple, str]


class FlowReader:
    """Reads the flows of one request of one router; each match may stand there once.

    All methods raise InvalidError with the field's path, `flows[17].match.ipv4_dst`.
    """

    def __init__(self, router: Router, pause: Callable[[], None] = no_pause) -> None:
        """`pause` lets others run, between some flows and the next."""
        self._router, self._pause = router, pause
        self._by_mac: dict[int, list[Interface]] = {}
        for interface in router.interfaces.values():
            self._by_mac.setdefault(interface.mac, []).append(interface)
        self._shapes: dict[object, _Shape] = {}
        self._seen: dict[PartKey, dict[Key | FiveTuple, str]] = {}

    def flows(self, value: Json, path: str) -> list[Change]:
        """An array of flows, to be set."""
        changes = []
        for index, flow in enumerate(array(value, path)):
            if not index % BREATH:
                self._pause()
            where = f"{path}[{index}]"
            change = self._quick(flow, where) or self._flow(flow, where)
            changes.append(change)
        return changes

    def matches(self, value: Json, path: str) -> list[Change]:
        """An array of matches, to be removed."""
        changes = []
        for index, match in enumerate(array(value, path)):
            if not index % BREATH:
                self._pause()
            where = f"{path}[{index}]"
            change = change_of(self.match(match, where), None)
            self._once(change.part, change.key, where)
            changes.append(change)
        return changes

    def _quick(self, flow: Json, where: str) -> Change | None:
        """A flow of a known shape; None where the careful way has to look at it."""
        try:
            match = flow["match"]
            shape = self._shapes[_texts(flow, match)]
            key = key_of_text(shape.version, match[shape.dst_field])
        except (KeyError, TypeError, AttributeError, ValueError, OSError):
            return None  # not a failure: the careful way finds out what it is, and says so
        if (first := shape.seen.setdefault(key, where)) is not where:
            raise _twice(first, where)
        return Change(shape.part, key, shape.verdict)

    def _flow(self, flow: Json, where: str) -> Change:
        members = fields(flow, where, ("match", "action"), ("set", "out"))
        match = self.match(members["match"], f"{where}.match")
        action = one_of(members["action"], f"{where}.action", ACTIONS)
        if action == "forward":
            verdict: Verdict = self._forward(members, where)
        else:
            for name in ("set", "out"):
                if name in members:
                    detail = f"only forward takes this field, not {action}"
                    raise InvalidError(detail, field=join(where, name), value=members[name])
            verdict = PUNT if action == "punt" else DROP
        part, key, _ = change = change_of(match, verdict)
        seen = self._once(part, key, where)
        if match.connection is None:
            dst_field = "ipv4_dst" if match.dst.version == IPV4 else "ipv6_dst"
            self._shapes[_texts(flow, flow["match"])] = _Shape(part, verdict, match.dst.version, dst_field, seen)
        return change

    def _once(self, part: PartKey, key: Key | FiveTuple, where: str) -> dict[Key | FiveTuple, str]:
        seen = self._seen.setdefault(part, {})
        if (first := seen.setdefault(key, where)) is not where:
            raise _twice(first, where)
        return seen

    def _forward(self, members: Json, where: str) -> Forward:
        for name in ("set", "out"):
            if name not in members:
                raise InvalidError("a forward needs this field", field=join(where, name))
        out = self._interface(members["out"], f"{where}.out")
        rewrite = fields(members["set"], f"{where}.set", ("eth_dst",), ("eth_src",))
        eth_dst = parse_mac(rewrite["eth_dst"], f"{where}.set.eth_dst")
        if eth_dst == out.mac:
            detail = f"expected the next hop's MAC address; this is {out.name}'s own"
            raise InvalidError(detail, field=f"{where}.set.eth_dst", value=rewrite["eth_dst"])
        if "eth_src" in rewrite and parse_mac(rewrite["eth_src"], f"{where}.set.eth_src") != out.mac:
            detail = f"expected the MAC address of {out.name} ({_mac_text(out)}): a router sends as itself only"
            raise InvalidError(detail, field=f"{where}.set.eth_src", value=rewrite["eth_src"])
        return Forward(out.name, eth_dst)

    def _interface(self, name: Json, path: str) -> Interface:
        interface = self._router.interfaces.get(name) if isinstance(name, str) else None
        if interface is None:
            known = ", ".join(self._router.interfaces)
            raise InvalidError(f"expected an interface of {self._router.name} ({known})", field=path, value=name)
        return interface

    def match(self, value: Json, where: str) -> Match:
        """One match object."""
        members = fields(value, where, (), MATCH_FIELDS)
        in_port = self._ingress(members, where)
        eth_src = parse_mac(members["eth_src"], f"{where}.eth_src") if "eth_src" in members else None
        dst_fields = [name for name in DESTINATIONS if name in members]
        if len(dst_fields) != 1:
            raise InvalidError("expected either ipv4_dst or ipv6_dst", field=where, value=value)
        name = dst_fields[0]
        version = DESTINATIONS[name]
        part = (in_port, version, eth_src)
        if not any(name in members for name in _CONNECTION_FIELDS):
            return match_of_change(part, prefix_key(version, members[name], f"{where}.{name}"))
        dst = host(version, members[name], f"{where}.{name}")
        return match_of_change(part, _connection(members, version, dst, where))

    def _ingress(self, members: Json, where: str) -> str:
        """The interface that `in`, `eth_dst` or both name."""
        if "in" not in members and "eth_dst" not in members:
            raise InvalidError("expected in (an interface) or eth_dst (its MAC address)", field=where, value=members)
        named = self._interface(members["in"], f"{where}.in") if "in" in members else None
        if "eth_dst" not in members:
            assert named is not None
            return named.name
        path, text = f"{where}.eth_dst", members["eth_dst"]
        owners = self._by_mac.get(parse_mac(text, path), [])
        if named is not None:
            if named not in owners:
                raise InvalidError(f"expected the MAC address of {named.name} ({_mac_text(named)})", field=path, value=text)
            return named.name
        if not owners:
            raise InvalidError(f"expected the MAC address of one of {self._router.name}'s interfaces", field=path, value=text)
        if len(owners) > 1:
            names = ", ".join(i.name for i in owners)
            raise InvalidError(f"several interfaces have this MAC address ({names}): say which with in", field=path, value=text)
        return owners[0].name


def _mac_text(interface: Interface) -> str:
    return format_mac(interface.mac) if interface.mac else "not known yet"


def _texts(flow: Json, match: Json) -> object:
    """Everything in a flow but the values of its destination and connection, as one hashable value."""
    rewrite = flow.get("set")
    return (
        tuple(flow),
        flow["action"],
        flow.get("out"),
        tuple(match),
        match.get("in"),
        match.get("eth_dst"),
        match.get("eth_src"),
        None if rewrite is None else tuple(rewrite.items()),
    )


def _twice(first: str, second: str) -> InvalidError:
    return InvalidError(f"the same match stands in {first} and {second}", field=second, value=first)


def _connection(members: Json, version: int, dst: int, where: str) -> FiveTuple:
    """A full 5-tuple: all its fields or none."""
    src_field = "ipv4_src" if version == IPV4 else "ipv6_src"
    proto = integer(_needed(members, "ip_proto", where), f"{where}.ip_proto", TCP, UDP)
    if proto not in PROTOCOLS:
        raise InvalidError(f"expected {TCP} (TCP) or {UDP} (UDP)", field=f"{where}.ip_proto", value=proto)
    sport_field, dport_field = f"{PROTOCOLS[proto]}_src", f"{PROTOCOLS[proto]}_dst"
    for name in _CONNECTION_FIELDS:
        if name in members and name not in (src_field, "ip_proto", sport_field, dport_field):
            detail = f"does not go with IPv{version} and ip_proto {proto}; expected {src_field}, {sport_field}, {dport_field}"
            raise InvalidError(detail, field=join(where, name), value=members[name])
    src = host(version, _needed(members, src_field, where), f"{where}.{src_field}")
    sport = integer(_needed(members, sport_field, where), f"{where}.{sport_field}", 0, 65535)
    dport = integer(_needed(members, dport_field, where), f"{where}.{dport_field}", 0, 65535)
    return FiveTuple(version, src, dst, proto, sport, dport)


def _needed(members: Json, name: str, where: str) -> Json:
    if name not in members:
        detail = "missing: a connection is named by source, destination, ip_proto and both ports, or not at all"
        raise InvalidError(detail, field=join(where, name))
    return members[name]


def match_json(match: Match) -> dict[str, Json]:
    """A match in its shortest form; `FlowReader.match` reads it back."""
    version = match.dst.version
    out: dict[str, Json] = {"in": match.in_port}
    if match.eth_src is not None:
        out["eth_src"] = format_mac(match.eth_src)
    if match.connection is None:
        out[f"ipv{version}_dst"] = str(match.dst)
        return out
    c = match.connection
    out[f"ipv{version}_src"], out[f"ipv{version}_dst"] = format_ip(version, c.src), format_ip(version, c.dst)
    out["ip_proto"] = c.ip_proto
    protocol = PROTOCOLS[c.ip_proto]
    out[f"{protocol}_src"], out[f"{protocol}_dst"] = c.sport, c.dport
    return out


def flow_json(delegation: Delegation) -> dict[str, Json]:
    """A delegation as a flow, the way `FlowReader.flows` reads it."""
    verdict = delegation.verdict
    out: dict[str, Json] = {"match": match_json(delegation.match)}
    if isinstance(verdict, Forward):
        return out | {"action": "forward", "set": {"eth_dst": format_mac(verdict.eth_dst)}, "out": verdict.out}
    return out | {"action": "punt" if verdict == PUNT else "drop"}
