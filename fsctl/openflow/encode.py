"""Changes as flow_mod messages inside a bundle; fast, because a FIB has many of them.

All flow switch rules towards one next hop differ in their destination alone, so everything around it is packed once
(`_Template`) and one struct.pack per rule remains.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from fsctl.openflow import const as c
from fsctl.openflow.actions import encode_instructions
from fsctl.openflow.match import encode_fields, encode_match, header_and_mask, oxm_of
from fsctl.openflow.rules import COOKIE, COOKIE_MASK, Action, Field, RuleChange

_HEADER = struct.Struct("!BBHI")
_BUNDLE_ADD = struct.Struct("!BBHIIHH")
_FLOW_MOD = struct.Struct("!QQBBHHHIIIHH")
_MATCH = struct.Struct("!HH")
_LAST = frozenset({"ipv4_dst", "ipv6_dst"})
"""Fields that end a match on the wire where they end it in canonical order."""


def message(kind: int, xid: int, body: bytes = b"") -> bytes:
    """An OpenFlow message."""
    return _HEADER.pack(c.VERSION, kind, 8 + len(body), xid) + body


def _command(change: RuleChange) -> int:
    """The OFPFC_ command; modifications keep the rule's counters."""
    if change.actions is None:
        return c.FLOW_DELETE_STRICT
    return c.FLOW_ADD if change.is_new else c.FLOW_MODIFY_STRICT


def _flow_mod_fixed(table: int, priority: int, command: int) -> bytes:
    """A flow_mod between header and match.

    Additions carry the cookie; modifications and deletions are restricted to it, so a rule of somebody else with
    the same match stays as it is. No flags: nobody wants a FLOW_REMOVED for each rule.
    """
    mask = 0 if command == c.FLOW_ADD else COOKIE_MASK
    return _FLOW_MOD.pack(COOKIE, mask, table, command, 0, 0, priority, c.ANY, c.ANY, c.ANY, 0, 0)


def flow_mod(change: RuleChange, xid: int) -> bytes:
    """One flow_mod: add, modify_strict or delete_strict."""
    table, priority, match = change.key
    body = _flow_mod_fixed(table, priority, _command(change)) + encode_match(match)
    return message(c.FLOW_MOD, xid, body + encode_instructions(change.actions or ()))


def bundle_control(kind: int, bundle: int, xid: int) -> bytes:
    """Open, commit or discard an atomic, ordered bundle."""
    return message(c.BUNDLE_CONTROL, xid, struct.pack("!IHH", bundle, kind, c.BUNDLE_ATOMIC_ORDERED))


def bundle_add(inner: bytes, bundle: int) -> bytes:
    """`inner` as a part of a bundle; both carry the same xid, as the specification wants."""
    xid = int.from_bytes(inner[4:8], "big")
    return message(c.BUNDLE_ADD, xid, struct.pack("!IHH", bundle, 0, c.BUNDLE_ATOMIC_ORDERED) + inner)


_Template = Callable[..., bytes]
_TemplateKey = tuple[int, int, tuple[Field, ...], str, int | None, tuple[Action, ...] | None, bool]


class Encoder:
    """Encodes the changes of one bundle. Not kept between bundles: its templates go with it."""

    def __init__(self, bundle: int) -> None:
        self._bundle = bundle
        self._templates: dict[_TemplateKey, tuple[_Template, bytes, bytes, bytes, bytes, int]] = {}

    def encode(self, changes: Sequence[RuleChange], first_xid: int) -> bytes:
        """Bundle-add messages of `changes`, numbered from `first_xid` on."""
        parts: list[bytes] = []
        xid, templates, last_fields = first_xid, self._templates, _LAST
        for change in changes:
            if (match := change[0][2]) and match[-1][0] in last_fields:
                (table, priority, _), actions, is_new = change
                name, value, mask = match[-1]
                key = (table, priority, match[:-1], name, mask, actions, is_new)
                template = templates.get(key)
                if template is None:
                    template = templates[key] = self._template(change)
                pack, outer, inner, body, tail, size = template
                parts.append(pack(outer, xid, self._bundle, inner, xid, body, value.to_bytes(size, "big"), tail))
            else:
                parts.append(bundle_add(flow_mod(change, xid), self._bundle))
            xid += 1
        return b"".join(parts)

    @staticmethod
    def _template(change: RuleChange) -> tuple[_Template, bytes, bytes, bytes, bytes, int]:
        """Everything of a bundled flow_mod but its xid and the value of its last field."""
        (table, priority, match), actions, _ = change
        size = oxm_of(match[-1].name).length
        before, mask = header_and_mask(match[-1].name, match[-1].mask)
        before = encode_fields(match[:-1]) + before
        match_length = 4 + len(before) + size + len(mask)
        body = _flow_mod_fixed(table, priority, _command(change)) + _MATCH.pack(1, match_length) + before
        tail = mask + bytes(-match_length % 8) + encode_instructions(actions or ())
        length = 8 + len(body) + size + len(tail)
        outer = _HEADER.pack(c.VERSION, c.BUNDLE_ADD, 16 + length, 0)[:4]
        inner = struct.pack("!HH", 0, c.BUNDLE_ATOMIC_ORDERED) + _HEADER.pack(c.VERSION, c.FLOW_MOD, length, 0)[:4]
        pack = struct.Struct(f"!4sII8sI{len(body)}s{size}s{len(tail)}s").pack
        return pack, outer, inner, body, tail, size
