"""Numbers of OpenFlow 1.4 (wire version 5) and of the Nicira extensions that fsctl speaks.

Sources: OpenFlow Switch Specification 1.4.1, section 7; ovs-actions(7), ovs-fields(7).
"""

from __future__ import annotations

VERSION = 5

HELLO, ERROR, ECHO_REQUEST, ECHO_REPLY, EXPERIMENTER = 0, 1, 2, 3, 4
FLOW_MOD, GROUP_MOD = 14, 15
MULTIPART_REQUEST, MULTIPART_REPLY = 18, 19
BARRIER_REQUEST, BARRIER_REPLY = 20, 21
BUNDLE_CONTROL, BUNDLE_ADD = 33, 34

MP_FLOW, MP_GROUP_DESC, MP_PORT_DESC = 1, 7, 13
MP_REPLY_MORE = 1

FLOW_ADD, FLOW_MODIFY_STRICT, FLOW_DELETE_STRICT = 0, 2, 4
GROUP_ADD, GROUP_MODIFY, GROUP_DELETE = 0, 1, 2
GROUP_INDIRECT = 2
BUNDLE_OPEN, BUNDLE_OPENED, BUNDLE_COMMIT, BUNDLE_COMMITTED, BUNDLE_DISCARD, BUNDLE_DISCARDED = 0, 1, 4, 5, 6, 7
BUNDLE_ATOMIC_ORDERED = 1 | 2

ANY = 0xFFFF_FFFF
"""OFPP_ANY, OFPG_ANY and OFP_NO_BUFFER."""
ALL_TABLES = 0xFF
NORMAL_PORT = 0xFFFF_FFFA
MAX_PORT = 0xFFFF_FF00

GOTO_TABLE, APPLY_ACTIONS = 1, 4
OUTPUT, GROUP, DEC_TTL, SET_FIELD = 0, 22, 24, 25
NICIRA_ACTION = 0xFFFF
NICIRA = 0x0000_2320
NX_MOVE, NX_LOAD, NX_RESUBMIT_TABLE, NX_CLONE, NX_CHECK_LARGER = 6, 7, 14, 42, 49
NX_IN_PORT_SAME = 0xFFF8
"""OFPP_IN_PORT, for resubmit: keep the packet's in_port."""

PORT_DOWN = 1
LINK_DOWN = 1

GROUP_BASE = 0x8000_0000
GROUP_SPAN = 0x7FFF_FF00
"""Groups carry no cookie, so fsctl's are known by their numbers: group N is GROUP_BASE + N in the switch.

Groups below GROUP_BASE belong to others (who count from 1) and are never touched; OFPG_MAX bounds the span.
"""
