"""Replies of a switch: flows with counters, ports.

Most of the 40,000 matches of a dump differ in the destination only: a match of a known shape costs two slices and a
dictionary look-up; only a new shape is read field by field.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import NamedTuple

from fsctl.openflow.actions import decode_instructions
from fsctl.openflow.match import decode_fields, decode_wire_fields, oxm_of
from fsctl.openflow.rules import (
    COOKIE,
    COOKIE_MASK,
    GUARD,
    LEARNED_COOKIE,
    LEARNED_MASK,
    Action,
    Field,
    Normal,
    RuleKey,
)
from fsctl.openflow.text import foreign_text

_FLOW = struct.Struct("!HBxIIHHHHH2xQQQ")
_FLOW_FIXED = _FLOW.size + 4
_LAST = {"ipv4_dst", "ipv6_dst"}
FOREIGN_TEXTS = 50
"""A bridge may hold 100,000 rules of others; so many are shown."""
MAX_POLICIES = 10_000
"""Rules of others in table 0 that are compared with the routers' ports; with more, all ports count as affected."""
_NORMAL: tuple[Action, ...] = (Normal(),)


class ForeignRule(NamedTuple):
    """A rule with another cookie in table 0 that does more than NORMAL: a policy of somebody else."""

    match: tuple[Field, ...]
    text: str


@dataclass(slots=True)
class FlowDump:
    """A bridge's flows: fsctl's rules with their (packets, bytes), and the rules of others.

    `foreign` are texts for people, the first FOREIGN_TEXTS of `foreign_count`; `foreign_keys` are the keys of all rules of
    others; `learned` counts the senders that the switch has learned (`rules.Learn`); `policies`: see `status.Dump`.
    """

    rules: dict[RuleKey, tuple[Action, ...]] = field(default_factory=dict)
    counters: dict[RuleKey, tuple[int, int]] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)
    foreign_count: int = 0
    foreign_keys: set[RuleKey] = field(default_factory=set)
    learned: int = 0
    policies: list[ForeignRule] = field(default_factory=list)


class FlowDecoder:
    """Decodes the bodies of OFPMP_FLOW replies into `dump`; one per request."""

    def __init__(self) -> None:
        self.dump = FlowDump()
        self._shapes: dict[int, tuple[int, int]] = {}
        self._prefixes: dict[tuple[bytes, bytes], tuple[tuple[Field, ...], str, int | None]] = {}
        self._others: dict[bytes, tuple[Field, ...]] = {}

    def feed(self, body: bytes) -> None:
        """One reply's body: a sequence of ofp_flow_stats. Raises ValueError for other bytes."""
        at, dump = 0, self.dump
        while at < len(body):
            length, table, _, _, priority, _, _, _, _, cookie, packets, octets = _FLOW.unpack_from(body, at)
            if length < _FLOW_FIXED or at + length > len(body):
                raise ValueError(f"flow of length {length} at {at} of {len(body)}")
            match_at = at + _FLOW.size
            match_end = match_at + int.from_bytes(body[match_at + 2 : match_at + 4], "big")
            actions_at = match_end + (match_at - match_end) % 8
            at += length
            if cookie & LEARNED_MASK == LEARNED_COOKIE:
                dump.learned += 1
                continue
            key = RuleKey(table, priority, self._match(body[match_at + 4 : match_end]))
            actions = body[actions_at:at]
            if cookie & COOKIE_MASK == COOKIE:
                dump.rules[key] = decode_instructions(actions)
                dump.counters[key] = (packets, octets)
            else:
                self._foreign(key, cookie, actions)

    def _foreign(self, key: RuleKey, cookie: int, raw: bytes) -> None:
        dump = self.dump
        dump.foreign_keys.add(key)
        dump.foreign_count += 1
        actions = decode_instructions(raw)
        is_shown = len(dump.foreign) < FOREIGN_TEXTS
        is_policy = key.table == GUARD and key.priority > 0 and actions != _NORMAL and len(dump.policies) <= MAX_POLICIES
        if not is_shown and not is_policy:
            return
        text = foreign_text(key, cookie, actions)
        if is_shown:
            dump.foreign.append(text)
        if is_policy and len(dump.policies) < MAX_POLICIES:
            dump.policies.append(ForeignRule(key.match, text))
        elif is_policy:
            dump.policies.append(ForeignRule((), f"more than {MAX_POLICIES} rules of others"))

    def _match(self, oxms: bytes) -> tuple[Field, ...]:
        shape = self._shapes.get(len(oxms))
        if shape is not None:
            start, end = shape
            known = self._prefixes.get((oxms[:start], oxms[end:]))
            if known is not None:
                fields, name, mask = known
                return (*fields, Field(name, int.from_bytes(oxms[start:end], "big"), mask))
        return self._others.get(oxms) or self._new(oxms)

    def _new(self, oxms: bytes) -> tuple[Field, ...]:
        """Read field by field; remember the shape if its last field is a destination."""
        match = decode_fields(oxms)
        if not match or match[-1].name not in _LAST or decode_wire_fields(oxms)[-1] != match[-1]:
            self._others[oxms] = match
            return match
        last = match[-1]
        size = oxm_of(last.name).length
        end = len(oxms) - (0 if last.mask is None else size)
        self._shapes[len(oxms)] = (end - size, end)
        self._prefixes[oxms[: end - size], oxms[end:]] = (match[:-1], last.name, last.mask)
        return match
