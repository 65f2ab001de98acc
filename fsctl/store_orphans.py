"""Delegations kept aside: they name a router or an interface that the configuration no longer has.

They are not installed again automatically. Once the configuration has the router or the interface again, the owner
sends them anew, or an operator does with `fsctl flows put`. They are deleted after ORPHAN_DAYS.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from fsctl.model.delegations import PUNT, Delegation, Forward
from fsctl.model.fib import Change, Fib, change_of
from fsctl.schema.flows import flow_json
from fsctl.schema.text import dumps, loads
from fsctl.status import Orphan, Override
from fsctl.store_load import load_fibs, load_overrides, load_sessions
from fsctl.store_rows import FibWriter, Numbers, bad_row, checksum, forget_router, owner_of, write_override

ORPHAN_DAYS = 7
ORPHANS_PER_ROUTER = 10
_COLUMNS = "router, since, count, why, flows"
Known = Mapping[str, Collection[str]]
"""The configuration's routers, each with the names of its interfaces."""


def set_aside(db: sqlite3.Connection, known: Known, now: float) -> list[Orphan]:
    """Move delegations that name what is not configured; delete expired ones, and sessions and overrides of unknown routers."""
    _forget_old(db, int(now) - ORPHAN_DAYS * 86400)
    _forget_words(db, known)
    found = []
    if _is_something_unknown(db, known):
        for router, fib in load_fibs(db).items():
            orphan = _split(db, router, fib, known.get(router), int(now))
            if orphan is not None:
                found.append(orphan)
    return found


def drop(db: sqlite3.Connection, router: str) -> bool:
    """Delete what is kept aside for a router; true if there was something."""
    return db.execute("DELETE FROM orphan WHERE router = ?", (router,)).rowcount > 0


def load(db: sqlite3.Connection, *, with_flows: bool) -> list[Orphan]:
    """What is kept aside, newest first."""
    if not with_flows:
        rows = db.execute("SELECT router, since, count, why FROM orphan ORDER BY since DESC, id DESC")
        return [Orphan(router, since, count, why) for router, since, count, why in rows]
    found = []
    for row in db.execute(f"SELECT {_COLUMNS}, checksum FROM orphan ORDER BY since DESC, id DESC"):
        router, since, count, why, flows = _verify(row)
        found.append(Orphan(router, since, count, why, _flows(flows)))
    return found


def _verify(row: Sequence[Any]) -> Sequence[Any]:
    *columns, seal = row
    if seal != checksum(*columns):
        bad_row("orphan", row[:4], "the checksum is wrong")
    return columns


def _flows(text: str) -> tuple[Mapping[str, Any], ...]:
    value = loads(text.encode())
    assert isinstance(value, list)
    return tuple(flow for flow in value if isinstance(flow, dict))


def _forget_old(db: sqlite3.Connection, before: int) -> None:
    for id_, *row in db.execute(f"SELECT id, {_COLUMNS}, checksum FROM orphan WHERE since < ?", (before,)).fetchall():
        _verify(row)
        db.execute("DELETE FROM orphan WHERE id = ?", (id_,))


def _forget_words(db: sqlite3.Connection, known: Known) -> None:
    """Delete sessions and overrides of routers and interfaces that are not configured."""
    for router in load_sessions(db).keys() - known.keys():
        db.execute("DELETE FROM session WHERE router = ?", (router,))
    for router, name in load_overrides(db):
        if name not in known.get(router, ()):
            write_override(db, router, name, Override())


def _is_something_unknown(db: sqlite3.Connection, known: Known) -> bool:
    """Whether any name is unknown. Cheap: reads no delegations."""
    if any(router not in known for (router,) in db.execute("SELECT name FROM router")):
        return True
    named = "SELECT DISTINCT name, {} FROM {} JOIN router ON router.id = {}.router"
    selects = (named.format("in_port", "part", "part"), named.format("out", "nexthop", "nexthop"))
    return any(name not in known.get(router, ()) for select in selects for router, name in db.execute(select))


def _split(db: sqlite3.Connection, router: str, fib: Fib, interfaces: Collection[str] | None, now: int) -> Orphan | None:
    """Move a router's delegations that name unknown interfaces (`interfaces` None: the router is unknown, move all).

    A punt replaces one that forwards to an unknown interface: otherwise its packets would follow a shorter prefix.
    """
    names = interfaces or ()
    lost = [d for d in fib if _names(d) - set(names)]
    owner = owner_of(db, router)
    if interfaces is None:
        forget_router(db, owner)
        why = "the configuration has no such router"
    elif lost:
        writer = FibWriter(db, owner, Numbers.of(fib))
        writer.write([_left(d, names) for d in lost])
        unknown = sorted(set().union(*map(_names, lost)) - set(names))
        why = f"the configuration has no such interface of the router: {', '.join(unknown)}"
    return _keep(db, Orphan(router, now, len(lost), why, tuple(map(flow_json, lost)))) if lost else None


def _names(delegation: Delegation) -> set[str]:
    """The interfaces that a delegation names."""
    verdict = delegation.verdict
    return {delegation.match.in_port} | ({verdict.out} if isinstance(verdict, Forward) else set())


def _left(delegation: Delegation, names: Collection[str]) -> Change:
    """The change that replaces a moved delegation by a punt, or removes it."""
    return change_of(delegation.match, PUNT if delegation.match.in_port in names else None)


def _keep(db: sqlite3.Connection, orphan: Orphan) -> Orphan:
    row = (orphan.router, orphan.since, orphan.count, orphan.why, dumps(list(map(dict, orphan.flows))))
    db.execute(f"INSERT INTO orphan ({_COLUMNS}, checksum) VALUES (?, ?, ?, ?, ?, ?)", (*row, checksum(*row)))
    newest = "SELECT id FROM orphan WHERE router = ?1 ORDER BY id DESC LIMIT ?2"
    db.execute(f"DELETE FROM orphan WHERE router = ?1 AND id NOT IN ({newest})", (orphan.router, ORPHANS_PER_ROUTER))
    return orphan
