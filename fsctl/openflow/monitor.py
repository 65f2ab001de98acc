"""The flow monitor: a switch reports every change of a rule (OpenFlow 1.4.1, section 7.3.5.15)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fsctl.openflow import const as c
from fsctl.openflow.encode import message

ADDED, REMOVED, MODIFIED, ABBREVIATED, PAUSED, RESUMED = 1, 2, 3, 4, 5, 6
"""ofp_flow_update_event. ABBREVIATED reports a change of one's own; after PAUSED, changes may be missing."""
_WATCH_ADD, _WATCH_REMOVED, _WATCH_MODIFY = 1 << 1, 1 << 2, 1 << 3
_FULL = struct.Struct("!HHBBHHH4xQ")
_MATCH_ALL = b"\0\1\0\4\0\0\0\0"


class FlowUpdate(NamedTuple):
    """One event; full events also have the rule's table, priority and cookie (else 0)."""

    event: int
    table: int = 0
    priority: int = 0
    cookie: int = 0


def flow_monitor(xid: int, tables: Sequence[int]) -> bytes:
    """A request to report changes in these tables; present rules are not listed."""
    flags = _WATCH_ADD | _WATCH_REMOVED | _WATCH_MODIFY
    monitors = [
        struct.pack("!IIIHBB", number, c.ANY, c.ANY, flags, table, 0) + _MATCH_ALL for number, table in enumerate(tables, 1)
    ]
    return message(c.MULTIPART_REQUEST, xid, struct.pack("!HH4x", c.MP_FLOW_MONITOR, 0) + b"".join(monitors))


def decode_flow_updates(body: bytes) -> Iterator[FlowUpdate]:
    """The updates in an OFPMP_FLOW_MONITOR reply, without one's own changes. Raises ValueError for other bytes."""
    at = 0
    while at < len(body):
        length, event = struct.unpack_from("!HH", body, at)
        if length < 8 or at + length > len(body):
            raise ValueError(f"flow update of length {length} at {at} of {len(body)}")
        if event in (ADDED, REMOVED, MODIFIED) and length >= _FULL.size:
            _, _, table, _, _, _, priority, cookie = _FULL.unpack_from(body, at)
            yield FlowUpdate(event, table, priority, cookie)
        elif event != ABBREVIATED:
            yield FlowUpdate(event)
        at += length
