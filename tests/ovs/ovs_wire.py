"""Raw OpenFlow 1.4 with a bridge over its management socket, for tests that look at bytes."""

from __future__ import annotations

import itertools
import socket
from pathlib import Path

from fsctl.openflow import const, decode_error, requests


class Wire:
    """A connection; use as a context manager."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        self._socket.connect(str(path))
        self._stream = self._socket.makefile("rb")
        self.xids = itertools.count(1)
        self.send(requests.hello(next(self.xids)))
        self.receive()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stream.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self) -> bytes:
        head = self._stream.read(8)
        return head + self._stream.read(int.from_bytes(head[2:4], "big") - 8)

    def errors(self) -> dict[int, str]:
        """Errors about all that was sent so far, by xid."""
        xid, found = next(self.xids), {}
        self.send(requests.barrier(xid))
        while (raw := self.receive())[1] != const.BARRIER_REPLY:
            if raw[1] == const.ERROR:
                error = decode_error(raw)
                found[error.xid] = error.name
        return found

    def ask(self, request: bytes) -> list[bytes]:
        """The bodies of a multipart request's replies."""
        self.send(request)
        bodies, more = [], True
        while more:
            raw = self.receive()
            assert raw[1] == const.MULTIPART_REPLY, raw.hex()
            more = bool(raw[11] & const.MP_REPLY_MORE)
            bodies.append(raw[16:])
        return bodies

    def flow_entries(self) -> list[bytes]:
        """Every ofp_flow_stats of fsctl's in the bridge."""
        entries = []
        for body in self.ask(requests.flow_stats(next(self.xids))):
            at = 0
            while at < len(body):
                length = int.from_bytes(body[at : at + 2], "big")
                entries.append(body[at : at + length])
                at += length
        return entries
