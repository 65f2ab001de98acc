"""Rules for people and programs: structured JSON with OXM names, and one line as ovs-ofctl writes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fsctl.model.addresses import format_ip, format_mac
from fsctl.openflow.rules import (  # fmt: skip
    Action,
    CheckLarger,
    DecTtl,
    Field,
    GotoTable,
    Learn,
    Normal,
    Output,
    Resubmit,
    RuleKey,
    SetField,
)
from fsctl.schema.text import Json

_ETH_TYPE, _VLAN_TCI = "eth_type", "vlan_tci"
_OFCTL_NAMES = {
    "eth_dst": "dl_dst", "eth_src": "dl_src", _ETH_TYPE: "dl_type", "ipv4_src": "nw_src", "ipv4_dst": "nw_dst",
    "ip_proto": "nw_proto", "tcp_src": "tp_src", "tcp_dst": "tp_dst", "udp_src": "tp_src", "udp_dst": "tp_dst",
}  # fmt: skip
"""OXM name -> ovs-fields(7)'s short name; others are the same."""


def _value(name: str, value: int) -> Json:
    """A field's value: texts for addresses, numbers for numbers."""
    if name in ("eth_dst", "eth_src"):
        return format_mac(value)
    if name.startswith(("ipv4_", "ipv6_")):
        return format_ip(int(name[3]), value)
    return value


def _bits(name: str) -> int:
    return {"eth_": 48, "ipv4": 32, "ipv6": 128}.get(name[:4], 0)


def field_json(field: Field) -> Json:
    """The value with its mask: CIDR for address prefixes, `value/mask` otherwise."""
    value = _value(field.name, field.value)
    if field.mask is None:
        return value
    bits = _bits(field.name)
    length = field.mask.bit_count()
    if field.name.startswith("ip") and field.mask == ((1 << length) - 1) << (bits - length):
        return f"{value}/{length}"
    mask = _value(field.name, field.mask)
    return f"{value:#x}/{mask:#x}" if isinstance(value, int) else f"{value}/{mask}"


_ACTION_JSON: dict[type, Callable[..., Json]] = {
    DecTtl: lambda a: {"dec_ttl": a.times},
    SetField: lambda a: {"set_field": {a.name: _value(a.name, a.value)}},
    Output: lambda a: {"output": a.port},
    Normal: lambda _: {"output": "NORMAL"},
    Learn: lambda a: {"learn": {"hard_timeout": a.age_s, "limit": a.limit}},
    CheckLarger: lambda a: {"check_pkt_larger": a.bytes},
    Resubmit: lambda a: {"resubmit": a.table},
    GotoTable: lambda a: {"goto_table": a.table},
}
_ACTION_TEXT: dict[type, Callable[..., str]] = {
    DecTtl: lambda a: ",".join(["dec_ttl"] * a.times),
    SetField: lambda a: f"set_field:{_text_value(a.name, a.value)}->{a.name}",
    Output: lambda a: f"output:{a.port}",
    Normal: lambda _: "NORMAL",
    Learn: lambda a: f"learn(hard_timeout={a.age_s},limit={a.limit},NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[])",
    CheckLarger: lambda a: f"check_pkt_larger({a.bytes})->NXM_NX_REG0[0]",
    Resubmit: lambda a: f"resubmit(,{a.table})",
    GotoTable: lambda a: f"goto_table:{a.table}",
}


def _text_value(name: str, value: int) -> str:
    return f"{value:#x}" if name.startswith(("reg", "pkt_mark")) else str(_value(name, value))


def actions_json(actions: Iterable[Action]) -> list[Json]:
    """Each action as a one-member object."""
    return [_ACTION_JSON[type(action)](action) for action in actions]


def actions_text(actions: Iterable[Action]) -> str:
    """`actions=` of ovs-ofctl(8); no action drops."""
    return ",".join(_ACTION_TEXT[type(action)](action) for action in actions) or "drop"


def match_json(key: RuleKey) -> dict[str, Json]:
    """The match with OXM names."""
    return {field.name: field_json(field) for field in key.match}


def rule_text(key: RuleKey, actions: Iterable[Action]) -> str:
    """The rule as a line of `ovs-ofctl dump-flows`, without its counters."""
    parts = [f"table={key.table}", f"priority={key.priority}"]
    for field in key.match:
        value = field_json(field)
        name = _OFCTL_NAMES.get(field.name, field.name)
        is_hex = field.name in (_ETH_TYPE, _VLAN_TCI) and isinstance(value, int)
        parts.append(f"{name}={value:#06x}" if is_hex else f"{name}={value}")
    return f"{','.join(parts)} actions={actions_text(actions)}"
