"""HTTP/1.1 as strictly as RFC 9112 allows, under eventlet's WSGI server.

What a proxy and a server read differently lets one client's request end inside another's. So a request whose end is not
beyond doubt is answered with 400 (or 431), and its connection is closed. Header, body and answer each have a deadline.
"""

from __future__ import annotations

import io
import json
import os
import re
import socket
import struct
import time
from typing import Any

import eventlet
from eventlet import wsgi

from fsctl.errors import MalformedError

HEADER_S = 10.0
"""How long a request's header may take from its first byte on."""
BODY_S, BODY_BYTES_PER_S = 30.0, 100_000
"""How long a body may take, and how much longer a long one."""
ANSWER_S = 300.0
"""How long a request may take from its header on, its answer included; longer with a long body."""
MOST_LINES, MOST_BYTES = 64, 16_384
"""Lines and bytes of a request's header."""
MOST_DISCARDED = 1 << 20
"""Bytes of a body that nobody wants which are read, so that the connection can be used again."""
PEER_UID = "fsctl.peer_uid"
"""In the WSGI environment: the user id of the process at the other end of a unix socket."""
_REQUEST_LINE = re.compile(rb"[A-Z]{1,16} [\x21-\x7e]{1,4096} HTTP/1\.[01]\r\n")
_FIELD_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t\x20-\x7e\x80-\xff]*)\r\n")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})(;[\t\x20-\x7e]*)?\r\n")
_LENGTH = re.compile(rb"[0-9]{1,15}")
_CHUNK_LINE_BYTES = 256


class _RefusedError(Exception):
    """A request that is not read any further: its status line, and why."""


class _Body(wsgi.Input):
    """A request's body, read until a deadline; chunks as RFC 9112, 7.1, has them."""

    def __init__(self, protocol: Protocol, given: wsgi.Input) -> None:
        super().__init__(
            given.rfile, given.content_length, given.get_socket(), given.wfile, given.wfile_line, given.chunked_input
        )
        self._protocol = protocol
        self._ends = time.monotonic() + BODY_S + (self.content_length or 0) / BODY_BYTES_PER_S
        self._left, self._is_over = 0, False

    def read(self, length: int | None = None) -> bytes:
        with eventlet.Timeout(max(0.0, self._ends - time.monotonic()), TimeoutError("the body takes too long")):
            data: bytes = super().read(length)
        if self.chunked_input:
            self._ends += len(data) / BODY_BYTES_PER_S
        return data

    def discard(self, buffer_size: int = 16 << 10) -> None:
        """Read what is left, or close the connection where that is much."""
        read = 0
        while data := self.read(buffer_size):
            read += len(data)
            if read > MOST_DISCARDED:
                self._protocol.close_connection = True
                return

    def _chunked_read(self, rfile: Any, length: int | None = None, _use_readline: bool = False) -> bytes:
        if self.should_send_hundred_continue:
            self.send_hundred_continue_response()
            self.is_hundred_continue_response_sent = True
        pieces, wanted = [], length if length is not None and length >= 0 else None
        while not self._is_over and wanted != 0:
            if not self._left:
                self._left = self._next_chunk(rfile)
                continue
            piece = rfile.read(self._left if wanted is None else min(self._left, wanted))
            if not piece:
                raise self._bad("the body ends in the middle of a chunk")
            pieces.append(piece)
            self._left -= len(piece)
            wanted = None if wanted is None else wanted - len(piece)
            if not self._left and rfile.read(2) != b"\r\n":
                raise self._bad("a chunk is not followed by CRLF")
        return b"".join(pieces)

    def _next_chunk(self, rfile: Any) -> int:
        """The size of the next chunk; 0 and `_is_over` after the last."""
        found = _CHUNK_LINE.fullmatch(rfile.readline(_CHUNK_LINE_BYTES))
        if found is None:
            raise self._bad("expected a chunk's size in hexadecimal digits")
        size = int(found[1], 16)
        if not size:
            for _ in range(MOST_LINES):
                line = rfile.readline(_CHUNK_LINE_BYTES)
                if line == b"\r\n":
                    self._is_over = True
                    return 0
                if _FIELD_LINE.fullmatch(line) is None:
                    break
            raise self._bad("the trailer of the body is not well-formed")
        return size

    def _bad(self, why: str) -> MalformedError:
        self._is_over = True
        self._protocol.close_connection = True
        return MalformedError(why, field="Transfer-Encoding")


class Protocol(wsgi.HttpProtocol):
    """One connection's requests."""

    close_connection: bool
    rfile: Any

    def setup(self) -> None:
        """An answer in pieces must not wait 40 ms for the client's acknowledgement of its first piece (RFC 896, Nagle)."""
        if self.request.family != socket.AF_UNIX:
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().setup()

    def _read_request_line(self) -> bytes:
        """Wait for a request as long as the connection may be idle; from its first byte on, the header has a deadline."""
        try:
            if not self.rfile.peek(1):
                return b""
            with eventlet.Timeout(HEADER_S, TimeoutError("the request takes too long")):
                line: bytes = self.rfile.readline(MOST_BYTES)
        except OSError:
            return b""
        self._header_ends = time.monotonic() + HEADER_S
        return line

    def handle_one_response(self) -> None:
        """Whoever reads the answer too slowly does not get all of it."""
        length = self.environ["eventlet.input"].content_length or 0
        with eventlet.Timeout(ANSWER_S + length / BODY_BYTES_PER_S, TimeoutError("the answer takes too long")):
            super().handle_one_response()

    def parse_request(self) -> bool:
        try:
            if _REQUEST_LINE.fullmatch(self.raw_requestline) is None:
                raise _RefusedError("400 Bad Request", "expected METHOD PATH HTTP/1.1")
            lines = self._field_lines()
        except _RefusedError as e:
            self._refuse(*e.args)
            return False
        except OSError:
            self.close_connection = True
            return False
        whole, self.rfile = self.rfile, io.BytesIO(b"".join(lines))
        try:
            return bool(super().parse_request())
        finally:
            self.rfile = whole

    def _field_lines(self) -> list[bytes]:
        """The lines of the header up to the empty one, checked. Raises _RefusedError, and OSError where they end."""
        lines: list[bytes] = []
        lengths: list[bytes] = []
        codings: list[bytes] = []
        size = 0
        with eventlet.Timeout(max(0.0, self._header_ends - time.monotonic()), TimeoutError("the request takes too long")):
            while (line := self.rfile.readline()) != b"\r\n":
                if not line:
                    raise OSError("the connection ended in the middle of a header")
                lines.append(line)
                size += len(line)
                if len(lines) > MOST_LINES or size > MOST_BYTES:
                    detail = f"expected at most {MOST_LINES} lines and {MOST_BYTES} bytes of header"
                    raise _RefusedError("431 Request Header Fields Too Large", detail)
                found = _FIELD_LINE.fullmatch(line)
                if found is None:
                    raise _RefusedError("400 Bad Request", "a line of the header is not NAME: VALUE")
                name, value = found[1].lower(), found[2].strip()
                if name == b"content-length":
                    lengths.append(value)
                elif name == b"transfer-encoding":
                    codings.append(value)
        self._check_framing(lengths, codings)
        return [*lines, b"\r\n"]

    def _check_framing(self, lengths: list[bytes], codings: list[bytes]) -> None:
        """Where the body ends must be beyond doubt (RFC 9112, 6.1 and 6.3)."""
        if len(lengths) > 1 or any(_LENGTH.fullmatch(length) is None for length in lengths):
            raise _RefusedError("400 Bad Request", "expected one Content-Length, of digits only")
        if codings and (lengths or len(codings) > 1 or codings[0].lower() != b"chunked"):
            raise _RefusedError("400 Bad Request", "expected Transfer-Encoding: chunked, once, and no Content-Length beside it")
        if codings and not self.raw_requestline.endswith(b"HTTP/1.1\r\n"):
            raise _RefusedError("400 Bad Request", "HTTP/1.0 has no Transfer-Encoding")

    def _refuse(self, status: str, detail: str) -> None:
        code, _, title = status.partition(" ")
        problem = {"type": "about:blank", "title": title, "status": int(code), "detail": detail}
        body = json.dumps(problem).encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/problem+json\r\nContent-Length: {len(body)}\r\nConnection: close"
        self.wfile.write(head.encode() + b"\r\n\r\n" + body)
        self.wfile.flush()
        self.close_connection = True

    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environ()
        environ["wsgi.input"] = environ["eventlet.input"] = _Body(self, environ["eventlet.input"])
        uid = _peer_uid(self.connection)
        if uid is not None:
            environ[PEER_UID] = uid
        return environ


def _peer_uid(connection: Any) -> int | None:
    """Whose process is at the other end of a unix socket (unix(7), SO_PEERCRED); None for other sockets."""
    if connection.family != socket.AF_UNIX:
        return None
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", raw)[1])


def is_administrator(environ: dict[str, Any]) -> bool:
    """Whether the caller is root, or runs as the controller's own user, and came by the unix socket."""
    return environ.get(PEER_UID) in (0, os.geteuid())
