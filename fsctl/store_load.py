"""Rows of the store -> values; every row that is read is checked (`store_rows`)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from typing import Any

from fsctl.errors import InvalidError, StoreError
from fsctl.model.addresses import BITS, IPV4, MAX_MTU, MIN_MTU
from fsctl.model.delegations import FiveTuple, Forward
from fsctl.model.fib import DROP_ID, PUNT_ID, Fib, Part, PartKey
from fsctl.model.ip_protocols import TCP, UDP
from fsctl.model.network import Address
from fsctl.model.prefix_keys import HOST_MASKS, Key
from fsctl.status import Override, Session
from fsctl.store_rows import KEY_BYTES, Column, bad_row, checksum, load_revision, prefix_checksum, verify

_MAC_BITS = 48


def load_fibs(db: sqlite3.Connection) -> dict[str, Fib]:
    """All FIBs by router, with the next hops that they use."""
    names = _load_routers(db)
    fibs = {name: Fib() for name in names.values()}
    used: dict[int, set[int]] = {owner: set() for owner in names}
    prefixes = connections = 0
    for number, owner, key in _load_parts(db, names):
        part = Part(_load_prefixes(db, number, key[1]))
        for connection, verdict in _load_connections(db, number, key[1]).items():
            part.set_connection(connection, verdict)
        prefixes, connections = prefixes + len(part.prefixes), connections + len(part.connections)
        if part.prefixes or part.connections:
            fibs[names[owner]].parts[key] = part
            used[owner] |= {*part.prefixes.values(), *part.connections.values()}
        else:
            db.execute("DELETE FROM part WHERE id = ?", (number,))
    for table, read in (("prefix", prefixes), ("connection", connections)):
        (count,) = db.execute(f"SELECT count(*) FROM {table}").fetchone()
        if count != read:
            bad_row(table, (count - read,), "the number of rows that belong to no router, or are there twice")
    _load_nexthops(db, names, fibs, used)
    return fibs


def _load_routers(db: sqlite3.Connection) -> dict[int, str]:
    names: dict[int, str] = {}
    for row in db.execute("SELECT id, name, checksum FROM router"):
        owner, name = verify("router", row)
        if not isinstance(name, str) or name in names.values():
            bad_row("router", row, "expected a name of its own")
        names[owner] = name
    return names


def _load_parts(db: sqlite3.Connection, names: Mapping[int, str]) -> Iterator[tuple[int, int, PartKey]]:
    seen: set[tuple[int, PartKey]] = set()
    for row in db.execute("SELECT id, router, in_port, version, eth_src, checksum FROM part").fetchall():
        number, owner, in_port, version, eth_src = verify("part", row)
        if owner not in names:
            bad_row("part", row, "no such router")
        if not isinstance(in_port, str) or version not in BITS or not _is_within(eth_src, -1, 1 << _MAC_BITS):
            bad_row("part", row, "expected an interface, 4 or 6, and a MAC address or -1")
        key = (in_port, version, None if eth_src < 0 else eth_src)
        if (owner, key) in seen:
            bad_row("part", row, "duplicate")
        seen.add((owner, key))
        yield number, owner, key


def _load_prefixes(db: sqlite3.Connection, part: int, version: int) -> dict[Key, int]:
    prefixes: dict[Key, int] = {}
    bits, is_ipv4 = BITS[version], version == IPV4
    column: Any
    host_masks = HOST_MASKS[version]
    for column, verdict, found in db.execute("SELECT key, verdict, checksum FROM prefix WHERE part = ?", (part,)):
        row = (part, column, verdict, found)
        if is_ipv4:
            key = column
        else:
            key = int.from_bytes(column, "big") if type(column) is bytes and len(column) == KEY_BYTES else None
        if type(key) is not int or type(verdict) is not int:
            bad_row("prefix", row, "expected a prefix and the number of a verdict")
        if prefix_checksum(part, key, verdict) != found:
            bad_row("prefix", row, "the checksum is wrong")
        value, length = key >> 8, key & 0xFF
        if length > bits or value >> bits or value & host_masks[length]:
            bad_row("prefix", row, "expected a network prefix without host bits")
        prefixes[key] = verdict
    return prefixes


def _load_connections(db: sqlite3.Connection, part: int, version: int) -> dict[FiveTuple, int]:
    connections: dict[FiveTuple, int] = {}
    select = "SELECT part, src, dst, ip_proto, sport, dport, verdict, checksum FROM connection WHERE part = ?"
    for row in db.execute(select, (part,)):
        _, src, dst, ip_proto, sport, dport, verdict = verify("connection", row)
        ports = _is_within(sport, 0, 1 << 16) and _is_within(dport, 0, 1 << 16)
        if ip_proto not in (TCP, UDP) or not ports or type(verdict) is not int:
            bad_row("connection", row, "expected ip_proto 6 or 17, two ports and the number of a verdict")
        source, destination = _end(version, src), _end(version, dst)
        if source is None or destination is None:
            bad_row("connection", row, f"expected two IPv{version} addresses")
        connections[FiveTuple(version, source, destination, ip_proto, sport, dport)] = verdict
    return connections


def _end(version: int, column: Column) -> int | None:
    """An address as an integer; None if the column holds none."""
    if version == IPV4:
        return column if isinstance(column, int) and _is_within(column, 0, 1 << 32) else None
    return int.from_bytes(column, "big") if isinstance(column, bytes) and len(column) == 16 else None


def _load_nexthops(db: sqlite3.Connection, names: Mapping[int, str], fibs: dict[str, Fib], used: dict[int, set[int]]) -> None:
    """Give every FIB the next hops that it uses; delete those that no delegation uses."""
    unused = []
    for row in db.execute("SELECT router, number, out, eth_dst, checksum FROM nexthop ORDER BY number").fetchall():
        owner, number, out, eth_dst = verify("nexthop", row)
        if owner not in names:
            bad_row("nexthop", row, "no such router")
        if not isinstance(out, str) or not _is_within(eth_dst, 0, 1 << _MAC_BITS) or number <= 0:
            bad_row("nexthop", row, "expected a number, an interface and a MAC address")
        if number in used[owner]:
            fibs[names[owner]].add_nexthop(number, Forward(out, eth_dst))
            used[owner].discard(number)
        else:
            unused.append((owner, number))
    for owner, rest in used.items():
        if missing := rest - {PUNT_ID, DROP_ID}:
            detail = f"delegations of router {names[owner]} use next hops that are not there"
            raise StoreError(detail, field="nexthop", value=sorted(missing))
    db.executemany("DELETE FROM nexthop WHERE router = ? AND number = ?", unused)


def load_overrides(db: sqlite3.Connection) -> dict[tuple[str, str], Override]:
    """What routers said of their interfaces."""
    found = {}
    for row in db.execute("SELECT router, name, addresses, mtu, checksum FROM interface"):
        router, name, addresses, mtu = verify("interface", row)
        if not isinstance(router, str) or not isinstance(name, str) or not isinstance(addresses, str | None):
            bad_row("interface", row, "expected a router, an interface and addresses")
        if mtu is not None and not _is_within(mtu, MIN_MTU, MAX_MTU + 1):
            bad_row("interface", row, f"expected an MTU, {MIN_MTU} to {MAX_MTU}")
        try:
            parsed = None if addresses is None else tuple(Address.parse(text) for text in addresses.split())
        except InvalidError as e:
            bad_row("interface", row, str(e))
        found[router, name] = Override(parsed, mtu)
    return found


def load_sessions(db: sqlite3.Connection) -> dict[str, Session]:
    """The sessions by router, with `beat` 0."""
    found = {}
    for row in db.execute("SELECT router, id, lease_s, grace_s, checksum FROM session"):
        router, id_, lease_s, grace_s = verify("session", row)
        texts = isinstance(router, str) and isinstance(id_, str)
        if not texts or not all(isinstance(s, float) and 0 <= s < 1e9 for s in (lease_s, grace_s)):
            bad_row("session", row, "expected a router, an id and two durations")
        found[router] = Session(router, id_, lease_s, grace_s, 0.0)
    return found


def _is_within(value: object, least: int, end: int) -> bool:
    return type(value) is int and least <= value < end


# --- a file of an older format -------------------------------------------------------------------------------

_CHECKED = {
    "state": ("id", "revision"),
    "router": ("id", "name"),
    "part": ("id", "router", "in_port", "version", "eth_src"),
    "nexthop": ("router", "number", "out", "eth_dst"),
    "connection": ("part", "src", "dst", "ip_proto", "sport", "dport", "verdict"),
    "interface": ("router", "name", "addresses", "mtu"),
    "session": ("router", "id", "lease_s", "grace_s"),
}
"""The columns that a row's checksum covers, by table."""


def add_checksums(db: sqlite3.Connection) -> None:
    """Migrate a file without checksums: compute them for all rows, and check the values. Raises StoreError."""
    db.create_function("fsctl_checksum", -1, checksum, deterministic=True)
    db.create_function("fsctl_prefix_checksum", 3, _checksum_of_columns, deterministic=True)
    for table, columns in _CHECKED.items():
        db.execute(f"UPDATE {table} SET checksum = fsctl_checksum({', '.join(columns)})")
    db.execute("UPDATE prefix SET checksum = fsctl_prefix_checksum(part, key, verdict)")
    for load in (load_revision, load_fibs, load_overrides, load_sessions):
        load(db)


def _checksum_of_columns(part: Column, key: Column, verdict: Column) -> int:
    number = int.from_bytes(key, "big") if isinstance(key, bytes) else key
    if not (isinstance(part, int) and isinstance(number, int) and isinstance(verdict, int)):
        return -1  # invalid columns: `load_fibs` reports the row
    return prefix_checksum(part, number, verdict)
