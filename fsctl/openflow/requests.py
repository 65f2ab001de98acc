"""Requests that ask a switch what it has."""

from __future__ import annotations

import struct

from fsctl.openflow import const as c
from fsctl.openflow.encode import message
from fsctl.openflow.rules import COOKIE, COOKIE_MASK


def _multipart(kind: int, xid: int, body: bytes = b"") -> bytes:
    return message(c.MULTIPART_REQUEST, xid, struct.pack("!HH4x", kind, 0) + body)


def flow_stats(xid: int, table: int = c.ALL_TABLES, *, only_ours: bool = True) -> bytes:
    """Flows of one table or all, with counters."""
    cookie, mask = (COOKIE, COOKIE_MASK) if only_ours else (0, 0)
    return _multipart(c.MP_FLOW, xid, struct.pack("!B3xII4xQQHH4x", table, c.ANY, c.ANY, cookie, mask, 1, 4))


def port_desc(xid: int) -> bytes:
    """All ports. In OpenFlow 1.4 the request has no body (1.5 added a port number)."""
    return _multipart(c.MP_PORT_DESC, xid)


def barrier(xid: int) -> bytes:
    """Answered once everything sent before is done."""
    return message(c.BARRIER_REQUEST, xid)


def hello(xid: int) -> bytes:
    return message(c.HELLO, xid)
