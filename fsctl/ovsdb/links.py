"""Patch port pairs: wanted against present.

A link is made only between two managed bridges of the same datapath type. Patch ports of another fsctl that still has a
Controller row on either bridge are left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fsctl.ovsdb.edits import Add, Change, Edit, Key, New, Remove, Set
from fsctl.ovsdb.marks import LINK, LINK_TAG, NO_SPANNING_TREE, OWNER, PEER, Pair, ids, is_link, link_name
from fsctl.ovsdb.rows import BridgeRow, Database, InterfaceRow, PortRow
from fsctl.ovsdb.settings import Check, is_our_controller, marked
from fsctl.ovsdb.wanted import Wanted


@dataclass(frozen=True, slots=True)
class Half:
    """One of fsctl's patch ports: it is on `bridge`, and leads to the bridge named `peer`."""

    bridge: BridgeRow
    port: PortRow
    peer: str

    @property
    def pair(self) -> Pair:
        return frozenset((self.bridge.name, self.peer))


def datapath_type(bridge: BridgeRow) -> str:
    """Open vSwitch takes "" for "system"."""
    return bridge.datapath_type or "system"


def halves(database: Database, wanted: Wanted) -> list[Half]:
    """All patch ports that belong to this fsctl, in order of their bridges and names."""
    names = database.bridge_names()
    found = []
    for bridge in names.values():
        for port in database.ports_of(bridge):
            if not is_link(port.external_ids):
                continue
            half = Half(bridge, port, _peer_of(bridge.name, port, names))
            if _is_ours(database, wanted, half, names):
                found.append(half)
    return found


def _peer_of(bridge: str, port: PortRow, names: Mapping[str, BridgeRow]) -> str:
    """The peer's name. The port's name tells it even if external_ids have been changed."""
    stated = port.external_ids.get(PEER, "")
    if link_name(bridge, stated) == port.name:
        return stated
    return next((name for name in names if link_name(bridge, name) == port.name), stated)


def _is_ours(database: Database, wanted: Wanted, half: Half, names: Mapping[str, BridgeRow]) -> bool:
    owner = half.port.external_ids.get(OWNER, "")
    if owner and owner == wanted.controller:
        return True
    ends = [half.bridge, *([names[half.peer]] if half.peer in names else [])]
    controllers = [row for end in ends for row in database.controllers_of(end)]
    if owner and any(row.target == owner for row in controllers):
        return False
    # The first version named no owner; an owner without a Controller row is gone.
    return any(wanted.manages(end.name) for end in ends) or (
        not owner and any(is_our_controller(row, wanted.controller) for row in controllers)
    )


@dataclass(slots=True)
class Links:
    """The changes of patch ports. `problems`: why a wanted link cannot be made, by pair."""

    database: Database
    wanted: Wanted
    problems: dict[Pair, str] = field(default_factory=dict)
    _impossible: set[Pair] = field(default_factory=set)
    _halves: list[Half] = field(init=False)
    _bridges: dict[str, BridgeRow] = field(init=False)
    _ports: dict[str, tuple[BridgeRow, PortRow]] = field(init=False)
    _interfaces: dict[str, InterfaceRow] = field(init=False)

    def __post_init__(self) -> None:
        self._halves = halves(self.database, self.wanted)
        self._bridges = self.database.bridge_names()
        self._ports = {port.name: (bridge, port) for bridge in self._bridges.values() for port in self.database.ports_of(bridge)}
        self._interfaces = {interface.name: interface for interface in self.database.interfaces.values()}

    def unsafe(self) -> Iterator[Change]:
        """Urgent: own ports that NORMAL may flood into, or that take part in a spanning tree."""
        for half in self._halves:
            wrong = _fence(half.port)
            if wrong:
                why = f"patch port {half.port.name} from {half.bridge.name} to {half.peer}: {', '.join(wrong)} set again"
                yield Change(_key(half.pair), why, (Set("Port", half.port.uuid, wrong),), is_urgent=True)

    def checks(self) -> Iterator[Check]:
        """A check of every wanted link that can be made; fills `problems`."""
        for pair in sorted(self.wanted.links or (), key=sorted):
            why_not = self._why_not(pair)
            if why_not:
                self.problems[pair] = why_not
                self._impossible.add(pair)
                continue
            here, there = sorted(pair)
            edits: list[Edit] = []
            reasons: list[str] = []
            for end, peer in ((here, there), (there, here)):
                wrong = self._half(self._bridges[end], peer)
                edits += wrong
                reasons += [f"{link_name(end, peer)} ({_words(wrong)})"] if wrong else []
            why = f"patch ports between {here} and {there}: {', '.join(reasons)}"
            if not edits and (error := self._error(here, there) or self._error(there, here)):
                self.problems[pair] = error
            yield _key(pair), Change(_key(pair), why, tuple(edits)) if edits else None

    def _error(self, here: str, there: str) -> str:
        name = link_name(here, there)
        error = self._interfaces[name].error if name in self._interfaces else None
        return f"Open vSwitch could not make patch port {name}: {error}" if error else ""

    def unwanted(self) -> dict[Pair, list[Half]]:
        """Own links between managed bridges that are not wanted, or cannot be; call it after `checks`.

        Empty until it is known which links are wanted.
        """
        if self.wanted.links is None:
            return {}
        kept = self.wanted.links - self._impossible
        return {pair: found for pair, found in self._grouped(is_managed=True).items() if pair not in kept}

    def unmanaged(self) -> dict[Pair, list[Half]]:
        """Own links with an end on a bridge that is not managed any more."""
        return self._grouped(is_managed=False)

    def _grouped(self, *, is_managed: bool) -> dict[Pair, list[Half]]:
        found: dict[Pair, list[Half]] = {}
        for half in self._halves:
            ends = (half.bridge.name, half.peer)
            if all(self.wanted.manages(end) or end not in self._bridges for end in ends) == is_managed:
                found.setdefault(half.pair, []).append(half)
        return found

    def _why_not(self, pair: Pair) -> str:
        if len(pair) != 2:
            return "a link joins two bridges"
        here, there = sorted(pair)
        for name in (here, there):
            if not self.wanted.manages(name):
                return f"bridge {name} is not one that fsctl manages"
            if name not in self._bridges:
                return f"Open vSwitch has no bridge {name}"
        kinds = [datapath_type(self._bridges[name]) for name in (here, there)]
        if kinds[0] != kinds[1]:
            return f"{here} is {kinds[0]}, {there} is {kinds[1]}: patch ports between them carry nothing"
        return self._foreign(here, there) or self._foreign(there, here)

    def _foreign(self, here: str, there: str) -> str:
        """Why fsctl may not use the name of a patch port."""
        name = link_name(here, there)
        interface = self._interfaces.get(name)
        at = self._ports.get(name)
        if at is None:
            return f"an interface that is not fsctl's has the name of a patch port, {name}" if interface else ""
        bridge, port = at
        if any(half.port.uuid == port.uuid for half in self._halves):
            return ""
        if is_link(port.external_ids):
            owner = port.external_ids.get(OWNER, "")
            return f"patch port {name} on {bridge.name} belongs to the fsctl at {owner or 'another database entry'}"
        if interface is not None and interface.type == "patch" and interface.options.get("peer") == link_name(there, here):
            return ""  # our own: somebody has cleared its external_ids
        return f"a port that is not fsctl's has the name of a patch port, {name}; rename it"

    def _half(self, bridge: BridgeRow, peer: str) -> list[Edit]:
        """The edits that make or correct the patch port on `bridge` towards `peer`."""
        name, mark = link_name(bridge.name, peer), ids(LINK, self.wanted.controller, **{PEER: peer})
        patch = {"name": name, "type": "patch", "options": {"peer": link_name(peer, bridge.name)}, "external_ids": mark}
        at = self._ports.get(name)
        if at is None:
            columns = {"name": name, **_fenced({}), "external_ids": mark, "interfaces": [New("Interface", patch)]}
            return [Add("Bridge", bridge.uuid, "ports", New("Port", columns), is_exclusive=False)]
        owner, port = at
        edits: list[Edit] = []
        if owner.uuid != bridge.uuid:
            edits += [
                Remove("Bridge", owner.uuid, "ports", port.uuid),
                Add("Bridge", bridge.uuid, "ports", port.uuid, is_exclusive=False),
            ]
        wrong: dict[str, object] = {}
        if not marked(port.external_ids, mark):
            wrong["external_ids"] = {**port.external_ids, **mark}
        interface = self._interfaces.get(name)
        if interface is None:
            wrong["interfaces"] = [New("Interface", patch)]
        elif port.interfaces != (interface.uuid,):
            wrong["interfaces"] = [interface.uuid]
        if wrong:
            edits.append(Set("Port", port.uuid, wrong))
        return edits + (_interface(interface, patch) if interface else [])


def _interface(interface: InterfaceRow, patch: Mapping[str, object]) -> list[Edit]:
    wrong: dict[str, object] = {name: patch[name] for name in ("type", "options") if getattr(interface, name) != patch[name]}
    mark = patch["external_ids"]
    assert isinstance(mark, dict)
    if not marked(interface.external_ids, mark):
        wrong["external_ids"] = {**interface.external_ids, **mark}
    return [Set("Interface", interface.uuid, wrong)] if wrong else []


def _fenced(other_config: Mapping[str, str]) -> dict[str, object]:
    """The columns that keep NORMAL and spanning trees off a patch port."""
    return {
        "tag": [LINK_TAG],
        "trunks": [],
        "cvlans": [],
        "vlan_mode": [],
        "other_config": {**other_config, **NO_SPANNING_TREE},
    }


def _fence(port: PortRow) -> dict[str, object]:
    """Those columns of `_fenced` that differ, with the values that they must have."""
    wanted = _fenced(port.other_config)
    wrong = {
        "tag": port.tag != LINK_TAG,
        "trunks": bool(port.trunks),
        "cvlans": bool(port.cvlans),
        "vlan_mode": port.vlan_mode is not None,
        "other_config": port.other_config != wanted["other_config"],
    }
    return {name: wanted[name] for name, is_wrong in wrong.items() if is_wrong}


def removal(pair: Pair, found: list[Half], why: str) -> Change:
    """The change that removes a link, or what is left of it."""
    edits = tuple(Remove("Bridge", half.bridge.uuid, "ports", half.port.uuid) for half in found)
    return Change(("unlink", *sorted(pair)), f"patch ports between {' and '.join(sorted(pair))} removed: {why}", edits)


def _key(pair: Pair) -> Key:
    return ("link", *sorted(pair))


def _words(edits: list[Edit]) -> str:
    if len(edits) == 1 and isinstance(edits[0], Add):
        return "made"
    return f"{', '.join(sorted({name for e in edits if isinstance(e, Set) for name in e.columns}) or ['moved'])} set again"
