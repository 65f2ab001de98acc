"""Messages that no switch sends are found before Ryu parses them (D4)."""

from __future__ import annotations

import os
import random
import struct

import pytest
from ryu.ofproto import ofproto_v1_4_parser

from fsctl.openflow import const as c
from fsctl.openflow.check import MOST_ELEMENTS, fault_of, is_needed
from fsctl.openflow.encode import message

NAME = b"b0".ljust(16, b"\0")
ETHERNET = struct.pack("!HH4xIIIIII", 0, 32, 0, 0, 0, 0, 0, 0)


def port(properties: bytes = ETHERNET, length: int | None = None) -> bytes:
    size = 40 + len(properties) if length is None else length
    return struct.pack("!IH2x6s2x16sII", 1, size, b"\2\0\0\0\0\1", NAME, 0, 0) + properties


def hello(*elements: bytes) -> bytes:
    return message(c.HELLO, 1, b"".join(elements))


BITMAP = struct.pack("!HHI", 1, 8, 1 << 5)
STATUS = b"\2" + bytes(7)
GOOD = {
    "hello": hello(BITMAP),
    "old hello": hello(),
    "port status": message(c.PORT_STATUS, 1, STATUS + port()),
    "port without properties": message(c.PORT_STATUS, 1, STATUS + port(b"")),
    "ports": message(c.MULTIPART_REPLY, 1, struct.pack("!HH4x", c.MP_PORT_DESC, 0) + port() * 3),
    "no ports": message(c.MULTIPART_REPLY, 1, struct.pack("!HH4x", c.MP_PORT_DESC, 0)),
    "features": message(c.FEATURES_REPLY, 1, bytes(24)),
    "echo": message(c.ECHO_REQUEST, 1, b"data"),
}
BAD = {
    "a hello element of length 0": hello(struct.pack("!HHI", 1, 0, 0)),
    "a hello element longer than the message": hello(struct.pack("!HHI", 1, 16, 0)),
    "a hello element that needs padding": hello(struct.pack("!HHI", 1, 5, 0)),
    "half a hello element": hello(b"\0\1"),
    "too many hello elements": hello(*[BITMAP] * (MOST_ELEMENTS + 1)),
    "a port property of length 0": message(c.PORT_STATUS, 1, STATUS + port(bytes(8))),
    "a port longer than the message": message(c.PORT_STATUS, 1, STATUS + port(b"", 64)),
    "a port of length 0": message(c.PORT_STATUS, 1, STATUS + port(b"", 0)),
    "a port status without a port": message(c.PORT_STATUS, 1, STATUS),
    "a list of ports with a property of length 0": message(
        c.MULTIPART_REPLY, 1, struct.pack("!HH4x", c.MP_PORT_DESC, 0) + port() + port(bytes(8))
    ),
    "short features": message(c.FEATURES_REPLY, 1, bytes(23)),
    "another version": b"\4" + message(c.FEATURES_REPLY, 1, bytes(24))[1:],
}


@pytest.mark.parametrize("name", GOOD)
def test_what_switches_send_passes(name: str) -> None:
    assert is_needed(GOOD[name][1])
    assert fault_of(GOOD[name]) == ""


@pytest.mark.parametrize("name", BAD)
def test_d4_what_hangs_or_misleads_ryu_is_found(name: str) -> None:
    assert is_needed(BAD[name][1])
    assert fault_of(BAD[name])


def test_d4_whatever_passes_does_not_hang_ryu() -> None:
    """Ryu's parsers end on every mutation that the check lets through (they may raise)."""
    rng = random.Random(4)
    originals = [m for m in GOOD.values() if m[1] in (c.HELLO, c.PORT_STATUS, c.MULTIPART_REPLY)]
    passed = 0
    for _ in range(int(os.environ.get("FSCTL_FUZZ_MESSAGES", "20000"))):
        raw = bytearray(rng.choice(originals))
        for _ in range(rng.randint(1, 3)):
            raw[rng.randrange(8, len(raw)) if len(raw) > 8 else 7] = rng.choice((0, 1, 4, 7, 8, 32, 40, 255))
        raw[2:4] = struct.pack("!H", len(raw))
        is_for_ryu = raw[1] != c.MULTIPART_REPLY or raw[8:10] == struct.pack("!H", c.MP_PORT_DESC)  # as replies.py has it
        if fault_of(bytes(raw)) or not is_for_ryu:
            continue
        passed += 1
        try:
            ofproto_v1_4_parser.msg_parser(None, raw[0], raw[1], len(raw), 1, bytes(raw))
        except (struct.error, AssertionError, LookupError, AttributeError):
            continue
    assert passed > 1000


def test_other_types_are_not_needed() -> None:
    assert not is_needed(10)
    assert not is_needed(11)
    assert not is_needed(200)
