"""One OpenFlow connection: Ryu's `Datapath`, whose messages are checked before anything parses them."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import struct
from typing import Any

import eventlet
from ryu.controller import controller, ofp_event
from ryu.controller.handler import DEAD_DISPATCHER, MAIN_DISPATCHER
from ryu.lib import hub
from ryu.ofproto import ofproto_parser

from fsctl.openflow import check

_LOG = logging.getLogger(__name__)
HANDSHAKE_S = 10.0
"""How long a connection may take to say which switch it is."""
_READ = 1 << 16
_TURN = 64
"""Messages that are handled before others run."""


class _BadMessageError(Exception):
    """The other side does not speak OpenFlow as fsctl needs it."""


class Link(controller.Datapath):
    """A connection to what says that it is a switch.

    A message that is malformed ends the connection; types that fsctl does not need are passed over unread.
    """

    def __init__(self, connection: Any, address: Any) -> None:
        super().__init__(_Socket(connection), address)

    def _recv_loop(self) -> None:
        """Replaces Ryu's, which trusts every length."""
        buffer = bytearray()
        try:
            while self.state != DEAD_DISPATCHER:
                with contextlib.suppress(TimeoutError, ssl.SSLError):  # nothing came; eventlet says it in two ways
                    received = self.socket.recv(_READ)
                    if not received:
                        break
                    buffer += received
                    self._take_all(buffer)
        except _BadMessageError as e:
            _LOG.warning("OpenFlow: %s sent what no switch sends, its connection is closed: %s", self.address, e)
        except OSError:
            pass  # the connection is gone
        finally:
            self.socket.close()

    def end(self) -> None:
        """Close the connection."""
        self.set_state(DEAD_DISPATCHER)
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def _take_all(self, buffer: bytearray) -> None:
        """Handle the whole messages at the start of `buffer`, and delete them."""
        at = count = 0
        while len(buffer) - at >= check.HEADER and self.state != DEAD_DISPATCHER:
            version, kind, length, xid = struct.unpack_from("!BBHI", buffer, at)
            if length < check.HEADER:
                raise _BadMessageError(f"a message of {length} bytes")
            if len(buffer) - at < length:
                break
            if check.is_needed(kind):
                self._take(version, kind, length, xid, bytes(buffer[at : at + length]))
            at += length
            count += 1
            if not count % _TURN:
                hub.sleep(0)
        del buffer[:at]

    def _take(self, version: int, kind: int, length: int, xid: int, raw: bytes) -> None:
        fault = check.fault_of(raw)
        if fault:
            raise _BadMessageError(f"type {kind}: {fault}")
        try:
            message = ofproto_parser.msg(self, version, kind, length, xid, raw)
            if message:
                self._dispatch(message)
        except (ValueError, LookupError, TypeError, AttributeError, AssertionError, struct.error) as e:
            # Ryu and its handlers fail in many ways on what they do not expect.
            raise _BadMessageError(f"type {kind}: {e!r}") from e

    def _dispatch(self, message: Any) -> None:
        event = ofp_event.ofp_msg_to_ev(message)
        self.ofp_brick.send_event_to_observers(event, self.state)
        for handler in self.ofp_brick.get_handlers(event):
            if self.state in handler.callers[event.__class__].dispatchers:
                handler(event)


class _Socket:
    """A socket that bears being told TCP_NODELAY when it is not TCP."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def setsockopt(self, level: int, *arguments: Any) -> None:
        if level != socket.IPPROTO_TCP or self._connection.family != socket.AF_UNIX:
            self._connection.setsockopt(level, *arguments)


def serve(connection: Any, address: Any) -> None:
    """Speak OpenFlow over a connection until it ends."""
    with contextlib.closing(Link(connection, address)) as link:
        late = eventlet.spawn_after(HANDSHAKE_S, _end_unless_known, link)
        try:
            link.serve()
        finally:
            late.cancel()


def _end_unless_known(link: Link) -> None:
    if link.state != MAIN_DISPATCHER:
        _LOG.warning("OpenFlow: %s has not said which switch it is in %.0f s", link.address, HANDSHAKE_S)
        link.end()
