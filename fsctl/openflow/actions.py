"""Actions and instructions as bytes, in the form in which Open vSwitch dumps them.

Every distinct tuple of actions is encoded and decoded once (the caches below): 10,000 rules share a few ways out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

from fsctl.openflow import const as c
from fsctl.openflow.match import encode_field, header_and_mask, name_of, oxm_of
from fsctl.openflow.rules import (
    EPOCHS,
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
    SetField,
)

_NXM_IN_PORT, _NXM_ETH_DST, _NXM_ETH_SRC = 0x0000_0002, 0x0000_0206, 0x0000_0406
_SPEC_MATCH, _SPEC_OUTPUT, _SPEC_LOAD_IMMEDIATE = 0x0000, 0x1000, 0x2800
"""NX_LEARN_SRC_FIELD with NX_LEARN_DST_MATCH or NX_LEARN_DST_OUTPUT, NX_LEARN_SRC_IMMEDIATE with NX_LEARN_DST_LOAD
(nicira-ext.h), to be combined with a width in bits."""
_CACHE = 65536


@dataclass(frozen=True, slots=True)
class Opaque:
    """An action that fsctl does not write. It equals no wanted action, so a rule with fsctl's cookie that has it is replaced."""

    hex: str


def _nicira(subtype: int, body: bytes) -> bytes:
    length = 10 + len(body)
    padding = -length % 8
    return struct.pack("!HHIH", c.NICIRA_ACTION, length + padding, c.NICIRA, subtype) + body + bytes(padding)


def _output(port: int) -> bytes:
    return struct.pack("!HHIH6x", c.OUTPUT, 16, port, 0)


def _dec_ttl(action: DecTtl) -> bytes:
    return struct.pack("!HH4x", c.DEC_TTL, 8) * action.times


def _set_field(action: SetField) -> bytes:
    """in_port, pkt_mark and registers by Nicira's load, as OVS writes them itself; header fields by OXM set_field."""
    if action.name == "in_port":
        return _nicira(c.NX_LOAD, struct.pack("!HIQ", 15, _NXM_IN_PORT, action.value))
    if action.name.startswith(("reg", "pkt_mark")):
        oxm = oxm_of(action.name)
        return _nicira(c.NX_LOAD, struct.pack("!HIQ", oxm.bits - 1, oxm.header, action.value))
    field = encode_field(Field(action.name, action.value))
    length = 4 + len(field)
    return struct.pack("!HH", c.SET_FIELD, length + -length % 8) + field + bytes(-length % 8)


_LEARN2 = struct.Struct("!HHHQHBxHHIHH")
"""Idle and hard timeout, priority, cookie, flags, table, two more timeouts, limit, two fields for a result."""
_LEARN_SENDER = struct.pack("!HIHIH", _SPEC_MATCH | 48, _NXM_ETH_SRC, 0, _NXM_ETH_DST, 0)
"""eth_dst of the new rule is this packet's eth_src."""
_LEARN_OUTPUT = _LEARN_SENDER + struct.pack("!HIH", _SPEC_OUTPUT | 16, _NXM_IN_PORT, 0)
_LEARN_NORMAL = _LEARN_SENDER + struct.pack(
    "!HHIH", _SPEC_LOAD_IMMEDIATE | 1, 1, oxm_of("reg0").header, NORMAL_BIT.bit_length() - 1
)  # fmt: skip


def _learn(action: Learn) -> bytes:
    head = _LEARN2.pack(0, action.age_s, LEARNED, action.cookie, c.NX_LEARN_DELETE_LEARNED, SENDERS, 0, 0, action.limit, 0, 0)
    return _nicira(c.NX_LEARN2, head + (_LEARN_NORMAL if action.by_normal else _LEARN_OUTPUT))


def _check_larger(action: CheckLarger) -> bytes:
    return _nicira(c.NX_CHECK_LARGER, struct.pack("!HH4s", action.bytes, 0, header_and_mask("reg0", None)[0]))


_ENCODERS: dict[type[Any], Callable[[Any], bytes]] = {
    DecTtl: _dec_ttl,
    SetField: _set_field,
    Output: lambda a: _output(a.port),
    Normal: lambda _: _output(c.NORMAL_PORT),
    Learn: _learn,
    CheckLarger: _check_larger,
    Resubmit: lambda a: _nicira(c.NX_RESUBMIT_TABLE, struct.pack("!HB", c.NX_IN_PORT_SAME, a.table)),
}


@lru_cache(maxsize=_CACHE)
def encode_actions(actions: tuple[Action, ...]) -> bytes:
    """An action list. GotoTable is an instruction and has no place here."""
    return b"".join(_ENCODERS[type(a)](a) for a in actions)


@lru_cache(maxsize=_CACHE)
def encode_instructions(actions: tuple[Action, ...]) -> bytes:
    """apply_actions, then goto_table where the actions end in GotoTable."""
    goto = b""
    if actions and isinstance(actions[-1], GotoTable):
        goto = struct.pack("!HHB3x", c.GOTO_TABLE, 8, actions[-1].table)
        actions = actions[:-1]
    if not actions:
        return goto
    body = encode_actions(actions)
    return struct.pack("!HH4x", c.APPLY_ACTIONS, 8 + len(body)) + body + goto


def _decode_output(raw: bytes) -> Action | None:
    port: int = struct.unpack_from("!I", raw, 4)[0]
    if port == c.NORMAL_PORT:
        return Normal()
    return Output(port) if port < c.MAX_PORT else None


def _decode_set_field(raw: bytes) -> Action | None:
    header: int = struct.unpack_from("!I", raw, 4)[0]
    return SetField(name_of(header), int.from_bytes(raw[8 : 8 + (header & 0x7F)], "big"))


def _decode_load(raw: bytes) -> Action | None:
    header, value = struct.unpack_from("!IQ", raw, 12)
    return SetField("in_port" if header == _NXM_IN_PORT else name_of(header), value)


def _decode_learn(raw: bytes) -> Action | None:
    if len(raw) < 10 + _LEARN2.size:
        return None
    _, age_s, _, cookie, _, _, _, _, limit, _, _ = _LEARN2.unpack_from(raw, 10)
    port = cookie & 0xFFFF
    by_normal = raw[10 + _LEARN2.size :].startswith(_LEARN_NORMAL)
    epoch = ((cookie >> 16) - age_s) % EPOCHS
    return Learn(port if port < c.MAX_PORT & 0xFFFF else port | 0xFFFF_0000, age_s, limit, epoch, by_normal)


_DECODERS: dict[int, Callable[[bytes], Action | None]] = {
    c.OUTPUT: _decode_output,
    c.DEC_TTL: lambda _: DecTtl(1),
    c.SET_FIELD: _decode_set_field,
}
_NICIRA_DECODERS: dict[int, Callable[[bytes], Action | None]] = {
    c.NX_LOAD: _decode_load,
    c.NX_RESUBMIT_TABLE: lambda raw: Resubmit(raw[12]),
    c.NX_LEARN2: _decode_learn,
    c.NX_CHECK_LARGER: lambda raw: CheckLarger(struct.unpack_from("!H", raw, 10)[0]),
}


def tlvs(raw: bytes) -> Iterator[bytes]:
    """The pieces of a list whose elements begin with type and length (2 bytes each)."""
    at = 0
    while at + 4 <= len(raw):
        length = int.from_bytes(raw[at + 2 : at + 4], "big")
        if length < 4:
            raise ValueError(f"element of length {length} in {raw.hex()}")
        yield raw[at : at + length]
        at += length


def _decode_one(raw: bytes) -> Action:
    """The action, if encoding it gives exactly these bytes; else Opaque (a load to other bits, a set_field of a register)."""
    kind = int.from_bytes(raw[:2], "big")
    decoder = _DECODERS.get(kind)
    if kind == c.NICIRA_ACTION and raw[4:8] == c.NICIRA.to_bytes(4, "big"):
        decoder = _NICIRA_DECODERS.get(int.from_bytes(raw[8:10], "big"))
    action = decoder(raw) if decoder else None
    if action is not None and encode_actions((action,)) == raw:
        return action
    return cast("Action", Opaque(raw.hex()))


@lru_cache(maxsize=_CACHE)
def decode_actions(raw: bytes) -> tuple[Action, ...]:
    """An action list; what fsctl never writes becomes `Opaque`. Raises ValueError if it is no action list."""
    actions: list[Action] = []
    for piece in tlvs(raw):
        action = _decode_one(piece)
        if isinstance(action, DecTtl) and actions and isinstance(actions[-1], DecTtl):
            actions[-1] = DecTtl(actions[-1].times + 1)
        else:
            actions.append(action)
    return tuple(actions)


@lru_cache(maxsize=_CACHE)
def decode_instructions(raw: bytes) -> tuple[Action, ...]:
    """The inverse of `encode_instructions`; other instructions become `Opaque`."""
    actions: tuple[Action, ...] = ()
    for piece in tlvs(raw):
        kind = int.from_bytes(piece[:2], "big")
        if kind == c.APPLY_ACTIONS:
            actions += decode_actions(piece[8:])
        elif kind == c.GOTO_TABLE:
            actions += (GotoTable(piece[4]),)
        else:
            actions += (cast("Action", Opaque(piece.hex())),)
    return actions
