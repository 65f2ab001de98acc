"""One router does its worst; another one is served, and its lease kept (D6, D7, D8, D10)."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import pytest

from fsctl.client import Client
from fsctl.errors import BusyError, FsctlError, TooLargeError
from tests.soak.switch import rss_kib
from tests.waiting import eventually

from .host import MAC, Host

SERVED_S = 5.0
"""A write of the other router is answered; alone it takes some milliseconds. Here others use the machine too."""


def flow(dst: str, next_hop: str, **match: str) -> dict[str, Any]:
    to = {"set": {"eth_dst": MAC[next_hop]}, "out": "eth1"}
    return {"match": {"in": "eth0", "ipv4_dst": dst, **match}, "action": "forward", **to}


def table(count: int) -> list[dict[str, Any]]:
    return [flow(f"10.{1 + n // 65536}.{n // 256 % 256}.{n % 256}/32", "r2.eth0") for n in range(count)]


def of(host: Host, router: str) -> Client:
    return Client(host.control.url, host.control.tokens[router], timeout_s=60.0)


@pytest.mark.timeout(180)
def test_d6_a_flood_of_dear_writes_keeps_nobody_else_waiting(host: Host) -> None:
    hostile, other = of(host, "r1"), of(host, "r2")
    hostile.put_flows("r1", table(20_000))
    other.call("PUT", "/v1/routers/r2/session", {"id": "v", "lease": 2.0})
    over, refused = threading.Event(), [0]

    def flood() -> None:
        with of(host, "r1") as client:
            hops = ("r2.eth0", "b")
            for n in range(100_000):
                if over.is_set():
                    return
                try:
                    client.patch_flows("r1", add=[flow("0.0.0.0/0", hops[n % 2])], wait=False)
                except BusyError:
                    refused[0] += 1
                    time.sleep(0.01)

    floods = [threading.Thread(target=flood) for _ in range(4)]
    for thread in floods:
        thread.start()
    try:
        slowest = 0.0
        for n in range(20):
            other.call("PUT", "/v1/routers/r2/session", {"id": "v", "lease": 2.0})
            begun = time.monotonic()
            other.call("PATCH" if n else "PUT", "/v1/routers/r2/flows",
                       {"add" if n else "flows": [flow(f"10.77.{n}.0/24", "b")]}, {"session": "v"})  # fmt: skip
            slowest = max(slowest, time.monotonic() - begun)
            time.sleep(0.2)
        assert slowest < SERVED_S, f"{slowest:.2f} s"
        assert len(host.client.flows("r2")) == 20
        # The other router's agent is gone: its lease ends although the flood goes on.
        eventually(lambda: not host.client.flows("r2"), within_s=SERVED_S + 2.0)
    finally:
        over.set()
        for thread in floods:
            thread.join()


def test_d7_rules_are_counted_before_anything_is_stored(host: Host) -> None:
    """1,000 hosts and 1,000 senders of 20/8 would make a million rules of 2,001 delegations."""
    macs = [f"02:01:00:00:{n // 256:02x}:{n % 256:02x}" for n in range(1000)]
    flows = [flow("20.0.0.0/8", "r2.eth0"), *(flow(f"20.0.{n // 256}.{n % 256}/32", "r2.eth0") for n in range(1000))]
    flows += [flow("20.0.0.0/8", "b", eth_src=mac) for mac in macs]
    with pytest.raises(TooLargeError):
        of(host, "r1").put_flows("r1", flows)
    assert not host.client.flows("r1")
    assert host.is_ready()


def test_d8_a_controller_that_was_stopped_ends_no_lease(host: Host) -> None:
    other = of(host, "r2")
    other.call("PUT", "/v1/routers/r2/session", {"id": "v", "lease": 2.0})
    other.call("PUT", "/v1/routers/r2/flows", {"flows": [flow("10.77.0.0/24", "b")]}, {"session": "v"})
    os.kill(host.control.pid, signal.SIGSTOP)
    time.sleep(5.0)
    os.kill(host.control.pid, signal.SIGCONT)
    other.call("PUT", "/v1/routers/r2/session", {"id": "v", "lease": 2.0})
    assert len(host.client.flows("r2")) == 1
    eventually(lambda: not host.client.flows("r2"), within_s=SERVED_S)


@pytest.mark.parametrize("body", [
    b'{"flows": [{"' + b"x" * 30_000_000 + b'": 1}]}',
    b'{"flows": [' + b"1," * 15_000_000 + b"1]}",
    b'{"flows": ' + b"[" * 30_000_000,
    b'{"flows": [{' + b",".join(b'"k%d":1' % n for n in range(40_000)) + b',"k1":1}]}',
], ids=["one long key", "numbers", "depth", "keys"])  # fmt: skip
def test_d8_a_long_body_stalls_nobody(host: Host, body: bytes) -> None:
    """Another one is answered in between, however long the body is."""
    stop, worst = threading.Event(), [0.0]

    def look() -> None:
        with Client(host.control.url) as client:
            while not stop.is_set():
                begun = time.monotonic()
                client.call("GET", "/healthz")
                worst[0] = max(worst[0], time.monotonic() - begun)
                time.sleep(0.01)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        with pytest.raises(FsctlError):
            of(host, "r1").call("PUT", "/v1/routers/r1/flows", body)
    finally:
        stop.set()
        thread.join()
    print(f"longest stall {worst[0] * 1000:.0f} ms")
    assert worst[0] < 1.0


@pytest.mark.timeout(120)
def test_many_long_bodies_at_once_take_no_more_memory_than_one(host: Host) -> None:
    """A router may open 64 connections; a long body takes several times its size until it is understood."""
    one = b'{"flows": [' + b",".join([b'{"match": {}}'] * 2_000_000)  # 28 MB, never ended
    connections = [_announced(host, len(one) + 1) for _ in range(24)]
    before = rss_kib(host.control.pid)
    try:
        threads = [threading.Thread(target=_send, args=(c, one)) for c in connections]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        most = rss_kib(host.control.pid) - before
        with of(host, "r2") as other:
            other.put_flows("r2", [flow("10.77.0.0/24", "b")])
        assert most < 3 * len(one) >> 10, f"{most} KiB more"
    finally:
        for connection in connections:
            connection.close()
    eventually(lambda: _takes_a_long_body(host), 10.0)


def _announced(host: Host, size: int) -> socket.socket:
    parts = urlsplit(host.control.url)
    connection = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=30)
    head = f"PUT /v1/routers/r1/flows HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {host.control.tokens['r1']}\r\n"
    connection.sendall(head.encode() + f"Content-Type: application/json\r\nContent-Length: {size}\r\n\r\n".encode())
    return connection


def _send(connection: socket.socket, data: bytes) -> None:
    with suppress(OSError):  # most are refused while they send
        connection.sendall(data)


def _takes_a_long_body(host: Host) -> bool:
    try:
        of(host, "r1").put_flows("r1", table(2000))
    except BusyError:
        return False
    return True
