"""Match raw replies to requests by xid, before Ryu parses them.

For a flow dump, Ryu builds objects for every match and action: about a second per thousand rules, without yielding. So
a reply to one of fsctl's xids is handed over as bytes, and Ryu does not see it.
"""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Callable
from typing import Any, Protocol

from ryu.controller import handler
from ryu.lib import hub
from ryu.ofproto import ofproto_parser, ofproto_v1_4, ofproto_v1_4_parser

from fsctl.errors import SilentError, UnavailableError
from fsctl.openflow import const, decode_error

LOG = logging.getLogger(__name__)
_ATTRIBUTE = "fsctl_connection"
_SLICE_S = 1.0
"""How often a waiter checks that its connection is still there."""


class Datapath(Protocol):
    """What fsctl uses of ryu.controller.controller.Datapath."""

    xid: int
    state: str
    address: Any
    ports: Any
    ofproto: Any

    def send(self, buf: bytes) -> bool: ...
    def end(self) -> None: ...


class Conversation:
    """A range of xids and the messages that answer them."""

    def __init__(self, connection: Connection, first: int, count: int) -> None:
        self._connection = connection
        self.first, self.last = first, first + count - 1
        self._inbox = hub.Queue()

    def __enter__(self) -> Conversation:
        self._connection.conversations.append(self)
        return self

    def __exit__(self, *exc: object) -> None:
        self._connection.conversations.remove(self)

    def put(self, raw: bytes | None) -> None:
        """A message, or None: the connection is gone."""
        self._inbox.put(raw)

    def receive(self, deadline: float) -> bytes:
        """The next message. Raises UnavailableError when the connection goes, or at `deadline` (time.monotonic())."""
        while True:
            left = deadline - time.monotonic()
            try:
                raw: bytes | None = self._inbox.get(timeout=max(0.0, min(left, _SLICE_S)))
            except hub.QueueEmpty:
                self._connection.check()
                if left <= 0:
                    raise SilentError("no answer in time", field="bridge", value=self._connection.bridge) from None
                continue
            if raw is None:
                raise self._connection.lost("the connection was closed")
            return raw


class Connection:
    """Numbers requests, and hands replies to the conversations that they answer."""

    def __init__(self, datapath: Datapath, bridge: str) -> None:
        if datapath.ofproto.OFP_VERSION != const.VERSION:
            raise UnavailableError(
                "the bridge must speak OpenFlow 1.4 (ovs-vsctl set bridge NAME protocols=OpenFlow14)",
                field="bridge",
                value=bridge,
            )
        self.bridge = bridge
        self.conversations: list[Conversation] = []
        self.on_flow_updates: Callable[[bytes], None] | None = None
        """Gets the bodies of the flow monitor's messages, which have xid 0."""
        self._datapath = datapath
        self._closed = False
        setattr(datapath, _ATTRIBUTE, self)
        intercept()

    def lost(self, why: str) -> UnavailableError:
        return UnavailableError(why, field="bridge", value=self.bridge)

    @property
    def is_closed(self) -> bool:
        return self._closed or bool(self._datapath.state == handler.DEAD_DISPATCHER)

    def check(self) -> None:
        """Raises UnavailableError if the connection is gone."""
        if self.is_closed:
            raise self.lost("not connected")

    def close(self) -> None:
        """Wake up all waiters. May be called twice."""
        self._closed = True
        for conversation in self.conversations:
            conversation.put(None)

    def disconnect(self) -> None:
        """End the connection."""
        self.close()
        self._datapath.end()

    def conversation(self, count: int = 1) -> Conversation:
        """`count` new xids in a row, out of the range that Ryu numbers its own messages from."""
        first = self._datapath.xid + 1
        if first + count > ofproto_v1_4.MAX_XID:
            first = 1
        self._datapath.xid = first + count - 1
        return Conversation(self, first, count)

    def send(self, data: bytes) -> None:
        """Queue bytes. Waits while Ryu's queue is full, so that echo replies are not delayed. Raises UnavailableError."""
        self.check()
        if not self._datapath.send(data):
            raise self.lost("not connected")

    def take(self, kind: int, xid: int, raw: bytes) -> bool:
        """Hand a message to the conversation that waits for it; false if there is none."""
        for conversation in self.conversations:
            if conversation.first <= xid <= conversation.last:
                conversation.put(bytes(raw))
                return True
        if kind == const.MULTIPART_REPLY and xid == 0 and self.on_flow_updates is not None:
            self.on_flow_updates(bytes(raw[16:]))
            return True
        if kind == const.ERROR:
            self._log_stray(bytes(raw))
        return False

    def _log_stray(self, raw: bytes) -> None:
        error = decode_error(raw)
        LOG.warning("%s: %s for xid %#x, which fsctl does not know: %s", self.bridge, error.name, error.xid, error.data.hex())


def bridge_name(datapath: Datapath) -> str:
    """The bridge's name, which is that of its local port; raises UnavailableError if Ryu has not got its ports."""
    local = (datapath.ports or {}).get(ofproto_v1_4.OFPP_LOCAL)
    if local is None:
        raise UnavailableError("the switch has no local port", field="datapath", value=str(datapath.address))
    name: bytes | str = local.name
    return name.rstrip(b"\0").decode() if isinstance(name, bytes) else name


def _parse(datapath: Any, version: int, kind: int, length: int, xid: int, raw: bytes) -> Any:
    """Replaces Ryu's parser for OpenFlow 1.4; None for a message that is fsctl's own."""
    connection: Connection | None = getattr(datapath, _ATTRIBUTE, None)
    if connection is not None and connection.take(kind, xid, raw):
        return None
    if kind == const.MULTIPART_REPLY and struct.unpack_from("!H", raw, 8)[0] != const.MP_PORT_DESC:
        return None  # Ryu itself asks for ports only
    if kind == const.BUNDLE_CONTROL:
        return None  # an answer for which nobody waits any more
    return ofproto_v1_4_parser.msg_parser(datapath, version, kind, length, xid, raw)


def intercept() -> None:
    """Register `_parse` in place of Ryu's parser; a second call changes nothing."""
    ofproto_parser.register_msg_parser(ofproto_v1_4.OFP_VERSION)(_parse)
