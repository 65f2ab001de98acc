"""What hostile tenants do to the controller: each kind is a function that goes on until it is killed."""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

REFUSED_PAUSE_S = 0.01
"""Nobody waits as long as `Retry-After` says; but a loop over a closed port would measure the attacker."""
LONG = b'{"flows": [' + b",".join([b'{"match": {}}'] * 1_000_000)
TABLE = 10_000
HELLO = struct.pack("!BBHI", 5, 0, 8, 1)


@dataclass(frozen=True)
class Target:
    """Where the controller is, and the tokens of two hostile routers with interfaces eth0 and eth1."""

    host: str
    rest: int
    openflow: int
    tokens: dict[str, str]
    next_hops: tuple[str, str]

    @property
    def router(self) -> str:
        return sorted(self.tokens)[os.getpid() % len(self.tokens)]

    def connect(self, port: int | None = None) -> socket.socket:
        return socket.create_connection((self.host, port or self.rest), timeout=30)

    def head(self, method: str, path: str, length: int, token: str | None = None) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: Bearer {token or self.tokens[self.router]}"]
        lines += ["Content-Type: application/json", f"Content-Length: {length}"]
        return "\r\n".join([*lines, "", ""]).encode()

    def call(self, method: str, path: str, body: Any = None, token: str | None = None) -> int:
        """One request on a connection of its own; the status, 0 if there was none."""
        data = b"" if body is None else json.dumps(body).encode()
        try:
            connection = http.client.HTTPConnection(self.host, self.rest, timeout=60)
            headers = {"Authorization": f"Bearer {token or self.tokens[self.router]}", "Content-Type": "application/json"}
            connection.request(method, path, data or None, headers)
            answer = connection.getresponse()
            answer.read()
            connection.close()
        except (OSError, http.client.HTTPException):
            time.sleep(REFUSED_PAUSE_S)
            return 0
        return answer.status

    def flow(self, dst: str, hop: int = 0, **match: str) -> dict[str, Any]:
        to = {"set": {"eth_dst": self.next_hops[hop]}, "out": "eth1"}
        return {"match": {"in": "eth0", "ipv4_dst": dst, **match}, "action": "forward", **to}


def long_bodies(target: Target) -> None:
    """Bodies of 14 MB that never end."""
    with suppress(OSError), target.connect() as connection:
        connection.sendall(target.head("PUT", f"/v1/routers/{target.router}/flows", len(LONG) + 1) + LONG)
        connection.recv(4096)


def slow_bodies(target: Target) -> None:
    """A byte now and then."""
    with suppress(OSError), target.connect() as connection:
        connection.sendall(target.head("PUT", f"/v1/routers/{target.router}/flows", 1000))
        while True:
            connection.sendall(b" ")
            time.sleep(0.5)


def connections(target: Target) -> None:
    """Connections that say nothing, or half a header."""
    held: list[socket.socket] = []
    with suppress(OSError):
        while len(held) < 400:
            held.append(target.connect())
            held[-1].sendall(b"GET / HTTP/1.1\r\nHost" if len(held) % 2 else b"")
    time.sleep(1.0)
    for connection in held:
        connection.close()


def wrong_tokens(target: Target) -> None:
    target.call("GET", f"/v1/routers/{target.router}", token=os.urandom(16).hex())


def writes(target: Target) -> None:
    """A default route over a large table, changed again and again."""
    path = f"/v1/routers/{target.router}/flows"
    if target.call("PUT", path, {"flows": [target.flow(f"20.{n >> 8}.{n & 255}.0/24") for n in range(TABLE)]}) != 200:
        return
    for n in range(200):
        target.call("PATCH", f"{path}?wait=no", {"add": [target.flow("0.0.0.0/0", n % 2)]})


def rules(target: Target) -> None:
    """Hosts times senders: refused, after it has been read."""
    flows = [target.flow("20.0.0.0/8", 0), *(target.flow(f"20.0.{n >> 8}.{n & 255}/32") for n in range(2000))]
    flows += [target.flow("20.0.0.0/8", 1, eth_src=f"02:01:00:00:{n >> 8:02x}:{n & 255:02x}") for n in range(250)]
    target.call("PUT", f"/v1/routers/{target.router}/flows", {"flows": flows})


def leases(target: Target) -> None:
    """A session with a lease of a second, a table, silence."""
    path, name = f"/v1/routers/{target.router}", os.urandom(4).hex()
    target.call("PUT", f"{path}/session", {"id": name, "lease": 1.0})
    target.call("PUT", f"{path}/flows?session={name}", {"flows": [target.flow(f"21.0.{n}.0/24") for n in range(200)]})
    time.sleep(0.2)


def lists(target: Target) -> None:
    """Whole lists, read as slowly as possible."""
    with suppress(OSError), target.connect() as connection:
        connection.sendall(target.head("GET", f"/v1/routers/{target.router}/flows", 0))
        while connection.recv(4096):
            time.sleep(0.05)


def openflow(target: Target) -> None:
    """Whatever a switch would not send."""
    rng = random.Random()
    with suppress(OSError), target.connect(target.openflow) as connection:
        connection.sendall(rng.choice((b"", HELLO)))
        for _ in range(50):
            length = rng.choice((0, 7, 8, 16, 64, 65535))
            connection.sendall(struct.pack("!BBHI", 5, rng.randrange(36), length, rng.randrange(1 << 32)) + rng.randbytes(length))


KINDS: dict[str, tuple[Callable[[Target], None], int]] = {
    "long bodies": (long_bodies, 16), "slow bodies": (slow_bodies, 60), "connections": (connections, 2),
    "wrong tokens": (wrong_tokens, 4), "dear writes": (writes, 4), "rules that multiply": (rules, 2),
    "leases that end": (leases, 2), "whole lists": (lists, 16), "no OpenFlow": (openflow, 8),
}  # fmt: skip
"""What one does, and how many do it at a time."""


def attack(target: Target, kind: str) -> None:
    """Until the process is killed. Guests have processors of their own; here they are given way to."""
    os.nice(10)
    work, many = KINDS[kind]

    def go_on() -> None:
        while True:
            work(target)
            time.sleep(REFUSED_PAUSE_S)

    for _ in range(many):
        threading.Thread(target=go_on, daemon=True).start()
    threading.Event().wait()
