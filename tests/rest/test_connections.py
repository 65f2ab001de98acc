"""Whoever opens connections, with no token, keeps nobody else out."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from typing import Any

import eventlet
import pytest
from eventlet.green import socket

from fsctl.northbound import server

Connect = Callable[[], Any]


def app(_environ: Any, start: Any) -> list[bytes]:
    start("200 OK", [("Content-Length", "2")])
    return [b"ok"]


@pytest.fixture
def listener() -> Iterator[Any]:
    listener = eventlet.listen(("127.0.0.1", 0))
    yield listener
    listener.close()


@pytest.fixture
def connect(listener: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    monkeypatch.setattr(server, "SILENCE_S", 0.5)
    monkeypatch.setattr(server, "MOST_OF_ONE", 3)
    opened: list[Any] = []

    def make() -> Any:
        opened.append(socket.create_connection(listener.getsockname(), timeout=3))
        return opened[-1]

    thread = eventlet.spawn(server.serve, listener, app)
    yield make
    for one in opened:
        one.close()
    eventlet.sleep(0.05)
    thread.kill()


def answer(connection: Any) -> bytes:
    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    got = b""
    while piece := connection.recv(4096):
        got += piece
    return got


def test_one_address_has_so_many_connections(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_origin", lambda _: "192.0.2.7")
    idle = [connect() for _ in range(3)]
    eventlet.sleep(0.1)
    assert connect().recv(1) == b""
    monkeypatch.setattr(server, "_origin", lambda _: "192.0.2.8")
    assert answer(connect()).endswith(b"ok")
    idle[0].close()
    eventlet.sleep(0.1)
    monkeypatch.setattr(server, "_origin", lambda _: "192.0.2.7")
    assert answer(connect()).endswith(b"ok")


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n"])
def test_a_silent_connection_is_closed(connect: Connect, said: bytes) -> None:
    silent = connect()
    silent.sendall(said)
    assert silent.recv(1) == b""


def test_no_file_for_a_connection_is_not_the_end(listener: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, left = listener.accept, [OSError(errno.EMFILE, "too many open files"), OSError(errno.ECONNABORTED, "gone")]

    def accept() -> Any:
        if left:
            raise left.pop()
        return whole()

    monkeypatch.setattr(listener, "accept", accept)
    thread = eventlet.spawn(server.serve, listener, app)
    connection = socket.create_connection(listener.getsockname(), timeout=3)
    assert answer(connection).endswith(b"ok")
    connection.close()
    thread.kill()


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        (("192.0.2.7", 5), "192.0.2.7"),
        (("127.0.0.1", 5), ""),
        (("::1", 5, 0, 0), ""),
        (("::ffff:192.0.2.7", 5, 0, 0), "192.0.2.7"),
        (("2001:db8::1:2", 5, 0, 0), "2001:db8::/64"),
        (("fe80::1%eth0", 5, 0, 2), "fe80::1"),
    ],
)
def test_origins(address: Any, origin: str) -> None:
    assert server._origin(address) == origin


def test_an_answer_in_pieces_does_not_wait_for_acknowledgements(listener: Any) -> None:
    """Nagle's algorithm and the client's delayed acknowledgement made each long list 40 ms slower."""

    def pieces(_environ: Any, start: Any) -> Any:
        start("200 OK", [])
        yield from (b"ok",)

    thread = eventlet.spawn(server.serve, listener, pieces)
    connection = socket.create_connection(listener.getsockname(), timeout=3)
    took = []
    for _ in range(20):
        began, got = time.monotonic(), b""
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        while not got.endswith(b"\r\n0\r\n\r\n"):
            got += connection.recv(4096)
        took.append(time.monotonic() - began)
    connection.close()
    eventlet.sleep(0.05)
    thread.kill()
    assert sorted(took)[10] < 0.02
