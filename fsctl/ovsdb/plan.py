"""The changes from what is there to what is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from fsctl.ovsdb import settings
from fsctl.ovsdb.edits import Change, Key
from fsctl.ovsdb.links import Links, removal
from fsctl.ovsdb.marks import Pair
from fsctl.ovsdb.release import keeps_rules, release, to_release
from fsctl.ovsdb.rows import Database
from fsctl.ovsdb.wanted import Wanted

LINK_LINGER_S = 10.0
"""How long an unwanted link stays: flapping routes must not make ports flap."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`right` are the things that are as wanted; `unwanted` are links to be removed after LINK_LINGER_S."""

    changes: tuple[Change, ...] = ()
    right: frozenset[Key] = frozenset()
    unwanted: frozenset[Pair] = frozenset()
    link_problems: Mapping[Pair, str] = field(default_factory=dict)
    to_release: tuple[str, ...] = ()
    keeps_rules: frozenset[str] = frozenset()
    """Of the bridges to release, those where another controller remains."""


def plan(database: Database, wanted: Wanted, lingered: Set[Pair] = frozenset()) -> Plan:
    """`lingered`: links that have been unwanted for LINK_LINGER_S. Urgent changes come first."""
    if wanted.bridges is None:
        return Plan()
    links = Links(database, wanted)
    found = [
        check
        for name, bridge in database.bridge_names().items()
        if wanted.manages(name)
        for check in settings.checks(database, bridge, wanted.controller)
    ]
    found += links.checks()
    unwanted = links.unwanted()
    leaving = to_release(database, wanted)
    changes = [
        *links.unsafe(),
        *(change for _, change in found if change is not None),
        *(removal(pair, gone, "not wanted any more") for pair, gone in unwanted.items() if pair in lingered),
    ]
    if wanted.may_release:
        changes += [removal(pair, gone, "a bridge is not managed any more") for pair, gone in links.unmanaged().items()]
        changes += [release(database, bridge, wanted) for bridge in leaving]
    wrong = {change.key for change in changes}
    return Plan(
        tuple(changes),
        frozenset(key for key, change in found if change is None and key not in wrong),
        frozenset(unwanted),
        links.problems,
        tuple(bridge.name for bridge in leaving),
        frozenset(bridge.name for bridge in leaving if keeps_rules(database, bridge, wanted)),
    )
