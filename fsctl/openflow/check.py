"""Is a message that a switch sends well-formed? Asked before anything parses it.

Ryu's parsers trust lengths: a HELLO element or a port property of length 0 keeps them busy for ever. So the structure of
every message that they would parse is checked here, in one pass over its bytes (OpenFlow 1.4.1, section 7).
"""

from __future__ import annotations

import struct

from fsctl.openflow import const as c

HEADER = 8
MOST_ELEMENTS = 64
"""Elements of a HELLO, and properties of a port. The specification knows one and three kinds of them."""
_LEAST = {
    c.HELLO: HEADER,
    c.ERROR: HEADER + 4,
    c.ECHO_REQUEST: HEADER,
    c.ECHO_REPLY: HEADER,
    c.FEATURES_REPLY: HEADER + 24,
    c.PORT_STATUS: HEADER + 8,
    c.MULTIPART_REPLY: HEADER + 8,
    c.BARRIER_REPLY: HEADER,
    c.BUNDLE_CONTROL: HEADER + 8,
}
"""The messages that fsctl needs, and the length of their fixed part in bytes."""
_PORT_FIXED = 40


def is_needed(kind: int) -> bool:
    """Whether fsctl needs messages of this type; others are passed over unread."""
    return kind in _LEAST


def fault_of(message: bytes) -> str:
    """What is wrong with a message of a needed type; empty if nothing is. `message` is as long as its header says."""
    version, kind, length, _ = struct.unpack_from("!BBHI", message)
    least = _LEAST[kind]
    if version != c.VERSION and kind not in (c.HELLO, c.ERROR):
        return f"version {version} of OpenFlow, expected {c.VERSION} (1.4)"
    if length < least:
        return f"{length} bytes, expected at least {least}"
    if kind == c.HELLO:
        # Ryu does not skip the padding of an element, so one that needs padding would be read wrongly.
        return _parts(message, HEADER, "hello element", is_padded=False)
    if kind == c.PORT_STATUS:
        return _ports(message, HEADER + 8, only_one=True)
    if kind == c.MULTIPART_REPLY and struct.unpack_from("!H", message, HEADER)[0] == c.MP_PORT_DESC:
        return _ports(message, HEADER + 8)
    return ""


def _parts(message: bytes, at: int, what: str, *, is_padded: bool = True) -> str:
    """Elements or properties up to the end: type, length, and padding to 8 bytes; none needs it unless `is_padded`."""
    for _ in range(MOST_ELEMENTS):
        if at >= len(message):
            return ""
        if at + 4 > len(message):
            return f"{what}: {len(message) - at} bytes are left over"
        (length,) = struct.unpack_from("!H", message, at + 2)
        if length < 4 or at + length > len(message) or not (is_padded or length % 8 == 0):
            return f"{what} of length {length}"
        at += length + -length % 8
    return f"more than {MOST_ELEMENTS} of: {what}" if at < len(message) else ""


def _ports(message: bytes, at: int, *, only_one: bool = False) -> str:
    if only_one and at >= len(message):
        return "no port"
    while at < len(message):
        if at + _PORT_FIXED > len(message):
            return f"port: {len(message) - at} bytes are left over"
        (length,) = struct.unpack_from("!H", message, at + 4)
        if length < _PORT_FIXED or at + length > len(message) or (only_one and at + length != len(message)):
            return f"port of length {length}"
        fault = _parts(message[at : at + length], _PORT_FIXED, "port property")
        if fault:
            return fault
        at += length
    return ""
