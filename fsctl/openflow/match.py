"""Matches as OXM bytes, in the order and form in which Open vSwitch gives them back in a dump.

Byte-identical matters: what was sent and what is dumped then need no interpretation to be compared,
and `decode_match(encode_match(m)) == m` holds through the switch as well.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from fsctl.openflow.rules import Field, match_of


class Oxm(NamedTuple):
    """`header` without the has-mask bit; its low byte is the value's length in bytes. `bits` are significant."""

    header: int
    bits: int

    @property
    def length(self) -> int:
        return self.header & 0x7F


HAS_MASK = 0x100

#: In wire order, as OVS dumps them. FIELD_ORDER differs: eth_dst before eth_src, ip_proto before nw_ttl and nw_frag.
OXM: dict[str, Oxm] = {
    "in_port": Oxm(0x8000_0004, 32),
    "eth_src": Oxm(0x8000_0806, 48),
    "eth_dst": Oxm(0x8000_0606, 48),
    "eth_type": Oxm(0x8000_0A02, 16),
    "vlan_tci": Oxm(0x8000_0C02, 13),
    "ipv4_src": Oxm(0x8000_1604, 32),
    "ipv4_dst": Oxm(0x8000_1804, 32),
    "ipv6_src": Oxm(0x8000_3410, 128),
    "ipv6_dst": Oxm(0x8000_3610, 128),
    "nw_frag": Oxm(0x0001_3401, 2),
    "nw_ttl": Oxm(0x0001_3A01, 8),
    "ip_proto": Oxm(0x8000_1401, 8),
    "tcp_src": Oxm(0x8000_1A02, 16),
    "tcp_dst": Oxm(0x8000_1C02, 16),
    "udp_src": Oxm(0x8000_1E02, 16),
    "udp_dst": Oxm(0x8000_2002, 16),
    "icmpv6_type": Oxm(0x8000_3A01, 8),
    "reg0": Oxm(0x0001_0004, 32),
    "reg1": Oxm(0x0001_0204, 32),
    "pkt_mark": Oxm(0x0001_4204, 32),
}
_WIRE_RANK = {name: n for n, name in enumerate(OXM)}
_NAME = {oxm.header: name for name, oxm in OXM.items()}
_UNKNOWN = "oxm_"


def oxm_of(name: str) -> Oxm:
    """The OXM of a field; names `oxm_XXXXXXXX`, as `decode_fields` makes for unknown ones, are understood."""
    found = OXM.get(name)
    if found is None:
        assert name.startswith(_UNKNOWN), f"no OXM for {name}"
        header = int(name[len(_UNKNOWN) :], 16)
        found = Oxm(header, 8 * (header & 0x7F))
    return found


def name_of(header: int) -> str:
    """The field's name; `header` without the has-mask bit."""
    return _NAME.get(header) or f"{_UNKNOWN}{header:08x}"


@lru_cache(maxsize=4096)
def header_and_mask(name: str, mask: int | None) -> tuple[bytes, bytes]:
    """What stands before and after a field's value.

    A mask must be canonical (None for all bits, the field left out for none), because OVS gives back no other.
    """
    oxm = oxm_of(name)
    if mask is None:
        # vlan_tci is VLAN_VID on the wire: 12 bits of VID and the "present" bit, no priority.
        return oxm.header.to_bytes(4, "big"), b""
    assert 0 < mask < (1 << oxm.bits) - 1, f"{name}: mask {mask:#x} is not canonical"
    return ((oxm.header & ~0x7F) | HAS_MASK | oxm.length << 1).to_bytes(4, "big"), mask.to_bytes(oxm.length, "big")


def encode_field(field: Field) -> bytes:
    header, mask = header_and_mask(field.name, field.mask)
    return header + field.value.to_bytes(oxm_of(field.name).length, "big") + mask


def _wire_rank(field: Field) -> int:
    return _WIRE_RANK.get(field.name, len(_WIRE_RANK))


def wire_order(match: tuple[Field, ...]) -> tuple[Field, ...]:
    return tuple(sorted(match, key=_wire_rank))


def encode_fields(match: tuple[Field, ...]) -> bytes:
    """The OXM TLVs of a match, without the ofp_match around them."""
    return b"".join(map(encode_field, wire_order(match)))


def wrap_match(oxms: bytes) -> bytes:
    """An ofp_match (type OXM), padded to 8 bytes."""
    length = 4 + len(oxms)
    return b"\0\x01" + length.to_bytes(2, "big") + oxms + bytes(-length % 8)


def encode_match(match: tuple[Field, ...]) -> bytes:
    return wrap_match(encode_fields(match))


def decode_wire_fields(oxms: bytes) -> tuple[Field, ...]:
    """The fields of OXM TLVs in the order found; unknown ones are named `oxm_` and their header in hex."""
    fields, at = [], 0
    while at < len(oxms):
        raw = int.from_bytes(oxms[at : at + 4], "big")
        size, at = raw & 0xFF, at + 4
        body, at = oxms[at : at + size], at + size
        if raw & HAS_MASK:
            half = size >> 1
            name = name_of((raw & ~0x1FF) | half)
            fields.append(Field(name, int.from_bytes(body[:half], "big"), int.from_bytes(body[half:], "big")))
        else:
            fields.append(Field(name_of(raw), int.from_bytes(body, "big")))
    return tuple(fields)


def decode_fields(oxms: bytes) -> tuple[Field, ...]:
    """A match in canonical order (`rules.match_of`); fields that fsctl does not know follow at the end."""
    fields = decode_wire_fields(oxms)
    known = match_of(*(f for f in fields if f.name in OXM))
    return known + tuple(f for f in fields if f.name not in OXM)
