"""The ports of a switch (OFPMP_PORT_DESC)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from fsctl.openflow import const as c

_PORT_FIXED = 40
_BARRED = {c.NO_RECV: "receives nothing (no-receive)", c.NO_FWD: "sends nothing (no-forward)"}


@dataclass(frozen=True, slots=True)
class Port:
    """A port as OpenFlow describes it.

    `up` is neither OFPPC_PORT_DOWN nor OFPPS_LINK_DOWN; `barred` names what OFPPC_NO_RECV and OFPPC_NO_FWD forbid
    ("receives nothing (no-receive)"), empty if nothing.
    """

    name: str
    ofport: int
    up: bool
    barred: str = ""


def decode_ports(body: bytes) -> Iterator[Port]:
    """The ports in the body of an OFPMP_PORT_DESC reply. Raises ValueError."""
    at = 0
    while at < len(body):
        _, length = struct.unpack_from("!IH", body, at)
        if length < _PORT_FIXED or at + length > len(body):
            raise ValueError(f"port of length {length} at {at} of {len(body)}")
        yield _port(body, at)
        at += length


def _port(body: bytes, at: int) -> Port:
    number, name, config, state = struct.unpack_from("!I12x16sII", body, at)
    text = name.split(b"\0", 1)[0].decode("utf-8", "replace")
    barred = " and ".join(words for bit, words in _BARRED.items() if config & bit)
    return Port(text, number, not (config & c.PORT_DOWN or state & c.LINK_DOWN), barred)
