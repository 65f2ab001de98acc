"""OpenFlow 1.4 spoken directly with a bridge: as its manager over the management socket, or as its reactive controller."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from fsctl.openflow import Encoder, bundle_control, const, decode_error, requests
from fsctl.openflow.actions import encode_actions
from fsctl.openflow.encode import flow_mod, message
from fsctl.openflow.rules import Action, RuleChange
from topologies.ovs import LabError

PACKET_IN, PACKET_OUT = 10, 13
CONTROLLER = 0xFFFF_FFFD
WHOLE = 0xFFFF
PATIENCE_S = 60.0
PIECE = 1024


class Messages:
    """OpenFlow messages on a stream socket."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._socket.settimeout(PATIENCE_S)
        self._stream = connected.makefile("rb")

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def interrupt(self) -> None:
        """End a `receive` that another thread waits in."""
        _shut_down(self._socket)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self) -> bytes | None:
        """The next message; None at the end of the stream."""
        head = self._stream.read(8)
        if len(head) < 8:
            return None
        return head + self._stream.read(int.from_bytes(head[2:4], "big") - 8)


class Management:
    """Changes rules of a bridge at `path`, its management socket."""

    def __init__(self, path: Path) -> None:
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(str(path))
        self._messages = Messages(connected)
        self._xids = itertools.count(1)
        self._messages.send(requests.hello(next(self._xids)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._messages.close()

    def apply(self, changes: Sequence[RuleChange]) -> float:
        """One bundle: seconds until it is committed. LabError if something is refused."""
        first = next(self._xids)
        self._xids = itertools.count(first + len(changes) + 2)
        start = time.perf_counter()
        encoder = Encoder(first)
        self._messages.send(bundle_control(const.BUNDLE_OPEN, first, first))
        for at in range(0, len(changes), PIECE):
            self._messages.send(encoder.encode(changes[at : at + PIECE], first + 1 + at))
        commit = first + len(changes) + 1
        self._messages.send(bundle_control(const.BUNDLE_COMMIT, first, commit))
        while (raw := self._messages.receive()) is not None:
            if raw[1] == const.ERROR:
                raise LabError(f"the bridge refuses: {decode_error(raw).name}")
            if raw[1] == const.BUNDLE_CONTROL and int.from_bytes(raw[4:8], "big") == commit:
                return time.perf_counter() - start
        raise LabError("the bridge has closed the connection")


def _shut_down(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it may be at its end already
        sock.shutdown(socket.SHUT_RDWR)


Decide = Callable[[bytes], tuple[RuleChange, tuple[Action, ...]] | None]
"""The entry that a frame needs, and what to do with the frame itself; None: drop it."""


class Reactive:
    """A controller that a bridge asks about every packet that meets no rule, as reactive Ryu applications are."""

    def __init__(self, path: Path, decide: Decide) -> None:
        self.path, self._decide = path, decide
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._ready = threading.Event()
        self._messages: Messages | None = None
        self.error: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        # Wakes the thread wherever it waits: shutdown(2) ends accept(2) and recv(2) alike.
        _shut_down(self._listener)
        if self._messages is not None:
            self._messages.interrupt()
        self._thread.join()
        self._listener.close()
        if value is None and self.error is not None:
            raise LabError(f"reactive controller: {self.error}") from self.error

    def wait(self) -> None:
        """Until the bridge has connected; LabError if it does not."""
        if not self._ready.wait(PATIENCE_S):
            raise LabError("the bridge has not connected to its controller")

    def _serve(self) -> None:
        try:
            connected, _ = self._listener.accept()
        except OSError:
            return  # ended before the bridge came
        self._messages = messages = Messages(connected)
        try:
            messages.send(requests.hello(1))
            messages.send(message(const.ECHO_REQUEST, 2))
            while (raw := messages.receive()) is not None:
                if raw[1] == const.ECHO_REQUEST:
                    messages.send(message(const.ECHO_REPLY, int.from_bytes(raw[4:8], "big"), raw[8:]))
                elif raw[1] == const.ECHO_REPLY:
                    self._ready.set()
                elif raw[1] == PACKET_IN:
                    self._answer(messages, raw)
        except (OSError, struct.error) as e:
            self.error = e
        finally:
            messages.close()

    def _answer(self, messages: Messages, raw: bytes) -> None:
        """ofp_packet_in (OpenFlow 1.4.1, section 7.4.1): the entry first, then the packet."""
        xid = int.from_bytes(raw[4:8], "big")
        match_length = int.from_bytes(raw[26:28], "big")
        data = raw[24 + (match_length + 7) // 8 * 8 + 2 :]
        decided = self._decide(data)
        if decided is None:
            return
        change, actions = decided
        encoded = encode_actions(actions)
        out = struct.pack("!IIH6x", const.ANY, CONTROLLER, len(encoded)) + encoded + data
        messages.send(flow_mod(change, xid) + message(PACKET_OUT, xid, out))
