"""OpenFlow rules as plain values.

Field names are OpenFlow's OXM names (and Nicira's where OVS extends them); numbers are integers.
`openflow` turns these into bytes and ovs-ofctl text, `pipeline` builds them, `specification.interpreter` reads them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

TABLES = range(10)
"""The tables that fsctl uses (docs/pipeline.md)."""
GUARD, FLOW_SWITCH, EGRESS, ADMISSION, TTL, WAYS, MTU, SENDERS, LEARN, ELSEWHERE = TABLES

COOKIE = 0x6673_6374_6C00_0000
"""Marks the rules that fsctl writes ("fsctl"). A rule with another cookie is replaced only where it took the place of one."""
COOKIE_MASK = 0xFFFF_FFFF_FF80_0000
"""The bits that tell COOKIE and the cookies of others apart."""
LEARNED_COOKIE, LEARNED_MASK = 0x6673_6C00_0000_0000, 0xFFFF_FF00_0000_0000
"""Marks the rules that the switch learns by `Learn` ("fsl", and the bits that hold it); see `Learn.cookie`."""
EPOCHS = 1 << 24
"""How many epochs of a port `Learn.cookie` tells apart."""
LEARNED = 10
"""The priority of learned rules in table SENDERS."""
NORMAL_BIT = 2
"""In reg0: the receiver was last seen where NORMAL alone can deliver."""
LINK_MARK = 0x6673_6374
"""The packet mark ("fsct") that a rewrite sets before a patch port. No guest can set it."""


class Field(NamedTuple):
    """One OXM: `mask` None means an exact match."""

    name: str
    value: int
    mask: int | None = None


# Actions are dataclasses and not NamedTuples, because these would be equal across types: Output(3) == Resubmit(3).


@dataclass(frozen=True, slots=True)
class DecTtl:
    """Decrement nw_ttl / hop limit `times` times."""

    times: int = 1


@dataclass(frozen=True, slots=True)
class SetField:
    """`name` is eth_src, eth_dst, in_port, pkt_mark, reg0 or reg1."""

    name: str
    value: int


@dataclass(frozen=True, slots=True)
class Output:
    """To an OpenFlow port of this bridge."""

    port: int


@dataclass(frozen=True, slots=True)
class Normal:
    """The bridge's own L2 learning switch (OFPP_NORMAL)."""


@dataclass(frozen=True, slots=True)
class Learn:
    """Add or refresh a rule of table SENDERS that sends packets to this packet's eth_src out at its in_port.

    The rule goes after `age_s` seconds without such packets, and with the rule that contains this action. `port` is
    the port that this action is for; at most `limit` senders are learned there. `by_normal`: the rule has no output, it
    sets NORMAL_BIT, and table ELSEWHERE leaves the packet to NORMAL. `epoch` (below EPOCHS) tells what the port has learned
    apart from what another port with its number had learned before.
    """

    port: int
    age_s: int
    limit: int
    epoch: int = 0
    by_normal: bool = False

    @property
    def cookie(self) -> int:
        """Of the rules that it adds: the port in the low 16 bits, above them age and epoch.

        A rule keeps its timeout when it is refreshed, and its output when its port's number goes to another port. So in
        both cases the cookie changes, and Open vSwitch deletes what was learned with the old one. Were two ports' epochs
        the same, frames would go on to the port that the number has left: hence 24 bits, and not a few.
        """
        return LEARNED_COOKIE | (self.age_s + self.epoch) % EPOCHS << 16 | self.port & 0xFFFF


@dataclass(frozen=True, slots=True)
class CheckLarger:
    """reg0[0] = 1 if the frame is longer than `bytes` (Ethernet header included), else 0."""

    bytes: int


@dataclass(frozen=True, slots=True)
class Resubmit:
    """Look up in another table and come back."""

    table: int


@dataclass(frozen=True, slots=True)
class GotoTable:
    """Instruction, not action; last in a list."""

    table: int


Action = DecTtl | SetField | Output | Normal | Learn | CheckLarger | Resubmit | GotoTable


class RuleKey(NamedTuple):
    """What identifies a rule in a bridge: (table, priority, match). `match` is in OXM order (see FIELD_ORDER)."""

    table: int
    priority: int
    match: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """One OpenFlow flow entry. No actions: drop."""

    key: RuleKey
    actions: tuple[Action, ...] = ()


FIELD_ORDER = (
    "in_port", "eth_dst", "eth_src", "eth_type", "vlan_tci", "ipv4_src", "ipv4_dst", "ipv6_src", "ipv6_dst",
    "ip_proto", "nw_ttl", "nw_frag", "tcp_src", "tcp_dst", "udp_src", "udp_dst", "icmpv6_type", "reg0", "reg1", "pkt_mark",
)  # fmt: skip
"""The order of fields in a RuleKey; `match_of` sorts by it."""
_RANK = {name: n for n, name in enumerate(FIELD_ORDER)}


def match_of(*fields: Field) -> tuple[Field, ...]:
    """A match in canonical order."""
    return tuple(sorted(fields, key=lambda f: _RANK[f.name]))


@dataclass(slots=True)
class RuleTable:
    """All of fsctl's rules of one bridge."""

    rules: dict[RuleKey, tuple[Action, ...]] = field(default_factory=dict)

    def add(self, *rules: Rule) -> None:
        for rule in rules:
            self.rules[rule.key] = rule.actions


class RuleChange(NamedTuple):
    """`actions` None: delete. `is_new` tells an add from a modification."""

    key: RuleKey
    actions: tuple[Action, ...] | None
    is_new: bool = True


@dataclass(slots=True)
class Update:
    """An ordered list of changes for one bridge: applied as one bundle, all or nothing."""

    bridge: str
    changes: list[RuleChange] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.changes)
