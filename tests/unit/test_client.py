"""The client against the application behind a real socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from fsctl.client import Client, UnreachableError
from fsctl.errors import (
    ConflictError,
    ForbiddenError,
    FsctlError,
    InvalidError,
    NotFoundError,
    StoreError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
    UnsyncedError,
)  # fmt: skip
from fsctl.status import CLEAR
from tests.rest.conftest import flow
from tests.rest.fake import FakeBackend
from tests.rest.server import serving


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def url(backend: FakeBackend) -> Iterator[str]:
    with serving(backend) as url:
        yield url


@pytest.fixture
def admin(url: str) -> Iterator[Client]:
    with Client(url, "admin-token") as client:
        yield client


def test_every_call(admin: Client, backend: FakeBackend) -> None:
    assert admin.is_alive()
    assert admin.put_flows("vr1", [flow(), flow("10.0.3.0/24")])["added"] == 2
    answer = admin.patch_flows("vr1", add=[flow("fd00::/64")], remove=[{"in": "eth0", "ipv4_dst": "10.0.3.0/24"}])
    assert (answer["revision"], answer["added"], answer["removed"]) == (2, 1, 1)
    assert [f["status"]["state"] for f in admin.flows("vr1")] == ["installed"] * 2
    assert admin.flows("vr1", state="refused") == []
    assert [r["name"] for r in admin.routers()] == ["vr1", "vr2"]
    assert admin.router("vr1")["flows"] == 2
    assert [b["name"] for b in admin.bridges()] == ["br-a", "br-b", "br-c"]
    assert len(admin.rules()) == len(admin.rules(page=1)) == 1
    assert admin.rules("br-b") == []
    packet = {"bridge": "br-a", "in_port": 2, "eth_dst": "02:00:00:00:01:01", "ipv4_dst": "10.0.2.5"}
    assert admin.walk(packet)["end"] == "bridged"
    assert admin.change_interface("vr1", "eth0", mtu=1400)["changed"] == 1
    assert backend.interface_changes[0].addresses is None
    assert admin.change_interface("vr1", "eth0", clear=("mtu", "addresses"))["changed"] == 1
    assert (backend.interface_changes[1].addresses, backend.interface_changes[1].mtu) == (CLEAR, CLEAR)
    assert admin.orphans() == []
    assert admin.move_nexthop("vr1", "eth1", "02:00:00:00:02:01", "02:00:00:00:02:99")["changed"] == 1
    assert admin.delete_flows("vr1", wait=False)["removed"] == 2
    assert admin.not_ready() == []
    backend.reasons = ("bridge br-c is not connected",)
    assert admin.not_ready() == ["bridge br-c is not connected"]


@pytest.mark.parametrize(
    "kind",
    [InvalidError, ConflictError, UnsyncedError, TooLargeError, NotFoundError, UnavailableError, StoreError, ForbiddenError],
)
def test_errors_are_the_same_on_both_sides(admin: Client, backend: FakeBackend, kind: type[FsctlError]) -> None:
    backend.refusal = kind("because", field="flows[3].out", value="eth9")
    with pytest.raises(kind) as caught:
        admin.put_flows("vr1", [])
    assert type(caught.value) is kind
    assert (caught.value.detail, caught.value.field, caught.value.value) == ("because", "flows[3].out", "eth9")


def test_tokens(url: str) -> None:
    with pytest.raises(UnauthorizedError):
        Client(url).routers()
    with pytest.raises(ForbiddenError):
        Client(url, "vr1-token").delete_flows("vr2")


def test_what_only_http_knows(admin: Client) -> None:
    with pytest.raises(NotFoundError):
        admin.call("GET", "/v7")
    with pytest.raises(FsctlError, match="Not Allowed"):
        admin.call("POST", "/v1/routers")


def test_names_are_quoted(admin: Client) -> None:
    with pytest.raises(NotFoundError) as caught:
        admin.router("a b?c")
    assert caught.value.value == "a b?c"


def test_a_url_that_is_none() -> None:
    for url in ("localhost:8080", "ftp://host", "http://", ""):
        with pytest.raises(InvalidError, match="url"):
            Client(url)


def test_nobody_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        client = Client(f"http://127.0.0.1:{unused.getsockname()[1]}", "x")
        with pytest.raises(UnreachableError, match="Connection refused"):
            client.put_flows("vr1", [])


def answering(answer: bytes) -> tuple[str, list[bytes], Callable[[], None]]:
    """A server that gives every connection the same bytes; the requests it saw; how to end it."""
    server, requests = socket.create_server(("127.0.0.1", 0)), []

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                requests.append(connection.recv(65536))
                connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()

    def end() -> None:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join()

    return f"http://127.0.0.1:{server.getsockname()[1]}", requests, end


def test_reads_are_tried_again_and_writes_are_not() -> None:
    url, requests, end = answering(b"")
    try:
        with pytest.raises(UnreachableError):
            Client(url).routers()
        assert len(requests) == 3
        requests.clear()
        for write in (Client(url).delete_flows, lambda r: Client(url).put_flows(r, [])):
            with pytest.raises(UnreachableError):
                write("vr1")
        assert [r.split(b" ")[0] for r in requests] == [b"DELETE", b"PUT"]
    finally:
        end()


@pytest.mark.parametrize("body", [b"<html>", b"[]", b""])
@pytest.mark.parametrize("status", [b"200 OK", b"502 Bad Gateway"])
def test_somebody_else_answers(status: bytes, body: bytes) -> None:
    url, _, end = answering(b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(body), body))
    try:
        with pytest.raises(UnreachableError, match="not fsctl's"):
            Client(url).routers()
    finally:
        end()
