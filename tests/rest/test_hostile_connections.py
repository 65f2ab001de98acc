"""Whoever reaches the port, with no token, keeps nobody else out (D2, D3, D20, D22)."""

from __future__ import annotations

import os
import ssl
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import eventlet
import pytest
from eventlet.green import socket
from eventlet.green import ssl as green_ssl

from fsctl.config import RestConfig
from fsctl.errors import FsctlError
from fsctl.northbound import protocol, server
from fsctl.northbound.listener import RestListener
from fsctl.northbound.protocol import is_administrator

RST = struct.pack("ii", 1, 0)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


class Served:
    """A small application behind the real server; `paths` are those that it was asked for."""

    def __init__(self, config: RestConfig) -> None:
        self.paths: list[str] = []
        self.administrators: list[bool] = []
        self.listener = RestListener(config)
        self.address = self.listener._tcp.getsockname()
        self._threads = [eventlet.spawn(self.listener.serve, self.app)]
        if config.socket is not None:
            self._threads.append(eventlet.spawn(self.listener.serve_administrator, self.app))

    def app(self, environ: Any, start: Any) -> list[bytes]:
        self.paths.append(environ["PATH_INFO"])
        self.administrators.append(is_administrator(environ))
        try:
            body = environ["wsgi.input"].read(1 << 20)
        except (FsctlError, OSError):
            start("400 Bad Request", [])
            return [b"bad"]
        start("200 OK", [])
        return [b"%d" % len(body)]

    def connect(self, timeout: float = 3.0) -> Any:
        return socket.create_connection(self.address, timeout=timeout)

    def stop(self) -> None:
        self.listener.close()
        for thread in self._threads:
            thread.kill()


@pytest.fixture
def plain() -> Iterator[Served]:
    served = Served(RestConfig(port=0))
    yield served
    served.stop()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A certificate of this host, and its key."""
    place = tmp_path_factory.mktemp("tls")
    found = {name: str(place / name) for name in ("cert.pem", "key.pem")}
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
               "-keyout", found["key.pem"], "-out", found["cert.pem"]]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return found


@pytest.fixture
def secure(files: dict[str, str]) -> Iterator[Served]:
    served = Served(RestConfig(port=0, tls_certificate=files["cert.pem"], tls_key=files["key.pem"]))
    yield served
    served.stop()


def read_all(connection: Any) -> bytes:
    got = b""
    try:
        while piece := connection.recv(65536):
            got += piece
    except (TimeoutError, ConnectionError):
        pass
    return got


def asked(connection: Any, request: bytes = GET) -> bytes:
    connection.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
    return read_all(connection)


def over_tls(served: Served, **context_options: Any) -> bytes:
    context = green_ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for name, value in context_options.items():
        setattr(context, name, value)
    with context.wrap_socket(served.connect()) as connection:
        return asked(connection)


# --- the listener ---------------------------------------------------------------------------------------------


def test_d2_a_reset_before_the_tls_handshake_ends_nothing(secure: Served) -> None:
    for n in range(50):
        connection = secure.connect()
        if n % 2:
            connection.sendall(b"\x16\x03\x01\x02\x00garbage")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
        connection.close()
    assert over_tls(secure).startswith(b"HTTP/1.1 200")


def test_d2_a_handshake_that_never_comes_keeps_nobody_waiting(secure: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "TLS_S", 0.3)
    idle = [secure.connect() for _ in range(20)]
    assert over_tls(secure).startswith(b"HTTP/1.1 200")
    eventlet.sleep(0.5)
    assert [c.recv(1) for c in idle] == [b""] * 20


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_d22_old_tls_is_refused(secure: Served) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        over_tls(secure, maximum_version=ssl.TLSVersion.TLSv1_1, minimum_version=ssl.TLSVersion.TLSv1)
    assert over_tls(secure).startswith(b"HTTP/1.1 200")


def test_d22_a_client_without_a_certificate_is_refused_where_one_is_wanted(files: dict[str, str]) -> None:
    config = RestConfig(port=0, tls_certificate=files["cert.pem"], tls_key=files["key.pem"], client_ca=files["cert.pem"])
    served = Served(config)
    try:
        try:
            got = over_tls(served)
        except (ssl.SSLError, ConnectionError):
            got = b""
        assert got == b""
        assert not served.paths
        context = green_ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(files["cert.pem"], files["key.pem"])
        with context.wrap_socket(served.connect()) as connection:
            assert asked(connection).startswith(b"HTTP/1.1 200")
    finally:
        served.stop()


def test_d22_the_certificate_is_read_anew_and_a_bad_one_is_not_taken(secure: Served, files: dict[str, str]) -> None:
    assert secure.listener.tls is not None
    whole = Path(files["cert.pem"]).read_text()
    Path(files["cert.pem"]).write_text("nonsense")
    try:
        secure.listener.tls.reload()
        assert over_tls(secure).startswith(b"HTTP/1.1 200")
    finally:
        Path(files["cert.pem"]).write_text(whole)
    before = secure.listener.tls._context
    secure.listener.tls.reload()
    assert secure.listener.tls._context is not before


def test_d3_when_all_connections_are_taken_an_idle_one_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST", 16)
    origins = iter([f"192.0.2.{n % 4}" for n in range(1000)])
    monkeypatch.setattr(server, "_origin", lambda _: next(origins))
    served = Served(RestConfig(port=0))
    try:
        idle = [served.connect() for _ in range(16)]
        eventlet.sleep(0.1)
        assert asked(served.connect()).startswith(b"HTTP/1.1 200")
        assert len(idle) == 16
    finally:
        served.stop()


def test_d3_the_administrator_has_a_way_in_of_his_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST", 16)
    path = tmp_path / "admin.sock"
    served = Served(RestConfig(port=0, socket=str(path)))
    try:
        assert path.stat().st_mode & 0o777 == 0o600
        taken = [served.connect() for _ in range(40)]
        eventlet.sleep(0.1)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            assert asked(connection).startswith(b"HTTP/1.1 200")
        assert served.administrators == [True]
        assert len(taken) == 40
    finally:
        served.stop()
    assert not path.exists()


def test_d3_a_left_over_socket_is_replaced_and_a_living_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    served = Served(RestConfig(port=0, socket=str(path)))
    try:
        with pytest.raises(FsctlError, match="another process listens there"):
            RestListener(RestConfig(port=0, socket=str(path)))
    finally:
        served.stop()
    assert os.listdir(tmp_path) == []


def test_d3_a_header_that_comes_byte_by_byte_has_a_deadline(plain: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEADER_S", 0.5)
    connection = plain.connect()
    try:
        for n in range(100):
            connection.sendall(GET[n % 20 : n % 20 + 1])
            eventlet.sleep(0.05)
    except ConnectionError:
        pass
    else:
        pytest.fail("the connection was kept")
    assert not plain.paths


def test_d12_a_body_that_does_not_come_has_a_deadline(plain: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "BODY_S", 0.3)
    connection = plain.connect()
    connection.sendall(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\nhalf")
    assert b" 400 " in read_all(connection)


# --- framing --------------------------------------------------------------------------------------------------

BODY = b"5\r\nhello\r\n0\r\n\r\n"
PUT = b"PUT / HTTP/1.1\r\nHost: x\r\n"
UNCLEAR = {
    "two codings": PUT + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + BODY,
    "an unknown coding": PUT + b"Transfer-Encoding: x\r\n\r\n" + BODY,
    "a coding in quotes": PUT + b'Transfer-Encoding: "chunked"\r\n\r\n' + BODY,
    "the coding twice": PUT + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + BODY,
    "coding and length": PUT + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n" + BODY,
    "two lengths": PUT + b"Content-Length: 3\r\nContent-Length: 5\r\n\r\nhello",
    "a length with a sign": PUT + b"Content-Length: +5\r\n\r\nhello",
    "a list of lengths": PUT + b"Content-Length: 5, 5\r\n\r\nhello",
    "a space before the colon": PUT + b"Content-Length : 5\r\n\r\nhello",
    "a folded line": PUT + b"X: a\r\n b\r\nContent-Length: 5\r\n\r\nhello",
    "a bare line feed": b"PUT / HTTP/1.1\nHost: x\nContent-Length: 5\n\nhello",
    "a line feed in the header": PUT + b"X: a\nContent-Length: 5\r\n\r\nhello",
    "a zero byte": PUT + b"X: a\0b\r\n\r\n",
    "HTTP/1.0 with a coding": b"PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + BODY,
    "another protocol": b"PUT / HTTP/2.0\r\n\r\n",
    "no protocol": b"GET /\r\n",
}
BAD_CHUNKS = {
    "a size with a sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "a size with 0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a size with an underscore": b"1_0\r\nhello\r\n0\r\n\r\n",
    "a chunk that is longer than its size": b"3\r\nhello\r\n0\r\n\r\n",
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "a line feed alone": b"5\nhello\n0\n\n",
    "a trailer that is none": b"5\r\nhello\r\n0\r\nnonsense\r\n\r\n",
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_d20_a_request_whose_end_is_unclear_is_the_last_one(plain: Served, name: str) -> None:
    connection = plain.connect()
    connection.sendall(UNCLEAR[name] + SMUGGLED)
    answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert plain.paths == []


@pytest.mark.parametrize("name", BAD_CHUNKS)
def test_d20_a_malformed_chunk_is_answered_and_the_connection_closed(plain: Served, name: str) -> None:
    connection = plain.connect()
    connection.sendall(PUT + b"Transfer-Encoding: chunked\r\n\r\n" + BAD_CHUNKS[name] + SMUGGLED)
    answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert plain.paths == ["/"]


def test_d20_what_is_clear_still_works(plain: Served) -> None:
    connection = plain.connect()
    connection.sendall(PUT + b"Transfer-Encoding: chunked\r\n\r\n5;x=1\r\nhello\r\n3\r\nyou\r\n0\r\nX: y\r\n\r\n")
    connection.sendall(PUT + b"Content-Length: 5\r\n\r\nhello" + GET)
    eventlet.sleep(0.1)
    assert asked(connection).count(b"HTTP/1.1 200") == 4
    assert plain.paths == ["/"] * 4


def test_d20_a_header_without_end_is_refused(plain: Served) -> None:
    connection = plain.connect()
    connection.sendall(PUT + b"".join(b"X%d: y\r\n" % n for n in range(100)) + b"\r\n")
    assert read_all(connection).startswith(b"HTTP/1.1 431 ")


def test_d3_the_command_line_uses_the_administrators_socket(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    served = Served(RestConfig(port=0, socket=str(path)))
    asking = "import sys; from fsctl.client import Client; print(Client(sys.argv[1])._send('GET', '/x', None, {}).status)"
    try:
        with subprocess.Popen([sys.executable, "-c", asking, f"unix:{path}"], stdout=subprocess.PIPE) as process:
            while process.poll() is None:
                eventlet.sleep(0.05)
            assert process.stdout is not None
            assert process.stdout.read() == b"200\n"
        assert served.administrators == [True]
        assert served.paths == ["/x"]
    finally:
        served.stop()
