"""Something that connects as a switch and sends echo requests: how late does the controller answer?

Open vSwitch's inactivity probe works just so (ovs-vswitchd.conf.db(5), Controller:inactivity_probe): a controller
that does not answer an echo request within the probe's interval is given up.
"""

from __future__ import annotations

import itertools
import socket
import struct
import threading
import time
from types import TracebackType
from typing import Self

from topologies.ovs import LabError

VERSION, HELLO, ECHO_REQUEST, ECHO_REPLY = 5, 0, 2, 3
HEADER = struct.Struct("!BBHI")
INTERVAL_S = 0.02
PATIENCE_S = 30.0


class EchoProbe:
    """Sends an echo request every INTERVAL_S as long as the `with` block lasts; `delays_s` are the answers'."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._error: Exception | None = None
        self.delays_s: list[float] = []

    def __enter__(self) -> Self:
        self._socket.sendall(HEADER.pack(VERSION, HELLO, HEADER.size, 0))
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._end.set()
        self._thread.join()
        self._socket.close()
        if value is None and self._error is not None:
            raise LabError(f"echo requests to the controller: {self._error}") from self._error

    def _run(self) -> None:
        try:
            for xid in itertools.count(1):
                if self._end.wait(INTERVAL_S):
                    return
                start = time.monotonic()
                self._socket.sendall(HEADER.pack(VERSION, ECHO_REQUEST, HEADER.size, xid))
                self._await_reply(xid)
                self.delays_s.append(time.monotonic() - start)
        except (OSError, LabError) as e:
            self._error = e

    def _await_reply(self, xid: int) -> None:
        while True:
            _, kind, length, got = HEADER.unpack(self._exactly(HEADER.size))
            self._exactly(length - HEADER.size)
            if kind == ECHO_REPLY and got == xid:
                return

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self._socket.recv(size - len(data))
            if not piece:
                raise LabError("the controller closed the connection")
            data += piece
        return data
