"""Rules as ovs-ofctl writes and reads them (ovs-ofctl(8), ovs-fields(7), ovs-actions(7))."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from fsctl.model.addresses import IPV4, IPV6, format_ip, format_mac
from fsctl.openflow.actions import Opaque
from fsctl.openflow.rules import (
    COOKIE,
    LEARNED,
    NORMAL_BIT,
    SENDERS,
    Action,
    CheckLarger,
    DecTtl,
    Field,
    GotoTable,
    Learn,
    Normal,
    Output,
    Resubmit,
    Rule,
    RuleKey,
    SetField,
)

_ETH_TYPES = {0x0800: "ip", 0x86DD: "ipv6", 0x0806: "arp"}
_PROTOCOLS = {
    (0x0800, 6): "tcp", (0x0800, 17): "udp", (0x0800, 1): "icmp",
    (0x86DD, 6): "tcp6", (0x86DD, 17): "udp6", (0x86DD, 58): "icmp6",
}  # fmt: skip
_FRAGMENTS = {(0, 3): "no", (1, 3): "first", (3, 3): "later", (1, 1): "yes", (0, 2): "not_later"}
_NAMES = {
    "eth_dst": "dl_dst", "eth_src": "dl_src", "ipv4_src": "nw_src", "ipv4_dst": "nw_dst", "ip_proto": "nw_proto",
    "tcp_src": "tp_src", "tcp_dst": "tp_dst", "udp_src": "tp_src", "udp_dst": "tp_dst", "icmpv6_type": "icmp_type",
}  # fmt: skip


def _prefix_or_mask(field: Field, version: int, bits: int) -> str:
    """`/length` for a prefix mask, else the mask as an address."""
    assert field.mask is not None
    ones = field.mask.bit_count()
    if field.mask == ((1 << ones) - 1) << (bits - ones):
        return f"{format_ip(version, field.value)}/{ones}"
    return f"{format_ip(version, field.value)}/{format_ip(version, field.mask)}"


def _value_text(field: Field) -> str:
    name, value, mask = field
    if name in ("eth_dst", "eth_src"):
        return format_mac(value) + ("" if mask is None else "/" + format_mac(mask))
    if name.startswith(("ipv4", "ipv6")):
        version, bits = (IPV4, 32) if name.startswith("ipv4") else (IPV6, 128)
        return format_ip(version, value) if mask is None else _prefix_or_mask(field, version, bits)
    if name == "nw_frag":
        return _FRAGMENTS.get((value & (mask or 3), 3 if mask is None else mask), f"{value:#x}/{mask or 3:#x}")
    if name == "vlan_tci":
        return f"{value:#06x}/{0x1FFF if mask is None else mask:#06x}"
    if name == "eth_type":
        return f"{value:#06x}"
    if name.startswith(("reg", "oxm_", "pkt_mark")):
        return f"{value:#x}" + ("" if mask is None else f"/{mask:#x}")
    return f"{value}" + ("" if mask is None else f"/{mask:#x}")


def match_text(match: tuple[Field, ...]) -> str:
    """`ip,dl_dst=...,nw_dst=...`; empty for a match of everything."""
    values = {f.name: f.value for f in match if f.mask is None}
    eth_type, proto = values.get("eth_type", 0), values.get("ip_proto", 0)
    words: list[str] = []
    hidden: set[str] = set()
    if (eth_type, proto) in _PROTOCOLS:
        words, hidden = [_PROTOCOLS[eth_type, proto]], {"eth_type", "ip_proto"}
    elif eth_type in _ETH_TYPES:
        words, hidden = [_ETH_TYPES[eth_type]], {"eth_type"}
    words += [f"{_NAMES.get(f.name, f.name)}={_value_text(f)}" for f in match if f.name not in hidden]
    return ",".join(words)


def _set_field_text(action: SetField) -> str:
    if action.name == "in_port":
        return f"load:{action.value:#x}->NXM_OF_IN_PORT[]"
    if action.name.startswith(("reg", "pkt_mark")):
        return f"load:{action.value:#x}->NXM_NX_{action.name.upper()}[]"
    return f"set_field:{_value_text(Field(action.name, action.value))}->{action.name}"


def _learned_text(action: Learn) -> str:
    return f"load:1->NXM_NX_REG0[{NORMAL_BIT.bit_length() - 1}]" if action.by_normal else "output:NXM_OF_IN_PORT[]"


def _learn_text(action: Learn) -> str:
    return (f"learn(table={SENDERS},hard_timeout={action.age_s},priority={LEARNED},delete_learned,limit={action.limit},"
            f"cookie={action.cookie:#x},"
            f"NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],{_learned_text(action)})")  # fmt: skip


_ACTION_TEXTS: dict[type[Any], Callable[[Any], str]] = {
    DecTtl: lambda a: ",".join(["dec_ttl"] * a.times),
    SetField: _set_field_text,
    Output: lambda a: f"output:{a.port}",
    Normal: lambda _: "NORMAL",
    Learn: _learn_text,
    CheckLarger: lambda a: f"check_pkt_larger({a.bytes})->NXM_NX_REG0[0]",
    Resubmit: lambda a: f"resubmit(,{a.table})",
    GotoTable: lambda a: f"goto_table:{a.table}",
}


def actions_text(actions: Iterable[Action | Opaque]) -> str:
    """`dec_ttl,set_field:...,output:7`, or `drop`. Actions that fsctl never writes: `opaque(hex)`."""
    texts = [f"opaque({a.hex})" if isinstance(a, Opaque) else _ACTION_TEXTS[type(a)](a) for a in actions]
    return ",".join(texts) or "drop"


def key_text(key: RuleKey) -> str:
    """`table=1,priority=1048,ip,dl_dst=...`."""
    match = match_text(key.match)
    return f"table={key.table},priority={key.priority}" + (f",{match}" if match else "")


def ovs_ofctl_text(rule: Rule) -> str:
    """A line that `ovs-ofctl add-flow` takes and that means exactly this rule."""
    return f"cookie={COOKIE:#x},{key_text(rule.key)},actions={actions_text(rule.actions)}"


def foreign_text(key: RuleKey, cookie: int, actions: tuple[Action, ...]) -> str:
    """A rule of somebody else, for people to read."""
    return f"cookie={cookie:#x},{key_text(key)},actions={actions_text(actions)}"
