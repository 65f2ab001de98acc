"""A router in a network namespace of its own, with real veth interfaces; `ip` and sockets inside it."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fsctl.agent.netlink import Kernel

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces")


@contextmanager
def inside(name: str) -> Iterator[None]:
    """This thread's sockets and /proc/sys/net are those of the namespace; sockets made here stay there."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        assert _libc.setns(there, CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        yield
    finally:
        assert _libc.setns(home, CLONE_NEWNET) == 0
        os.close(home)
        os.close(there)


@dataclass
class Namespace:
    name: str

    def run(self, command: str, check: bool = True) -> str:
        """A command inside; what it printed."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, *command.split()], capture_output=True, text=True, check=False, timeout=30
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stderr}"
        return done.stdout

    def ip(self, command: str, check: bool = True) -> str:
        return self.run(f"ip {command}", check)

    def json(self, command: str) -> Any:
        return json.loads(self.run(f"ip -j {command}") or "[]")

    def mac(self, interface: str) -> str:
        found: str = self.json(f"link show dev {interface}")[0]["address"]
        return found

    def sysctl(self, key: str, value: str) -> None:
        with inside(self.name):
            Path("/proc/sys/net", key).write_text(value)

    def forwards_plainly(self, interfaces: Collection[str]) -> None:
        """It forwards IPv4, and nothing of it is against a bypass: reverse path filters and redirects are off."""
        for key in ("rp_filter", "send_redirects"):
            for i in (*interfaces, "all"):
                self.sysctl(f"ipv4/conf/{i}/{key}", "0")
        self.sysctl("ipv4/ip_forward", "1")


@contextmanager
def namespaces(*names: str) -> Iterator[list[Namespace]]:
    """Fresh namespaces, gone at the end; names carry this process's id, so that runs do not meet."""
    made = []
    try:
        for name in names:
            full = f"fsa{os.getpid()}{name}"
            subprocess.run(["ip", "netns", "add", full], check=True)
            made.append(Namespace(full))
            made[-1].ip("link set lo up")
        yield made
    finally:
        for ns in made:
            with suppress(subprocess.CalledProcessError):
                subprocess.run(["ip", "netns", "del", ns.name], check=True)


class KernelOf(Kernel):
    """The kernel of a namespace, asked from outside."""

    def __init__(self, name: str) -> None:
        self._name = name
        with inside(name):
            super().__init__()

    def renew(self) -> None:
        with inside(self._name):
            super().renew()


def veth(router: Namespace, interface: str, other: Namespace, peer: str) -> None:
    """A cable between two namespaces, both ends up."""
    router.ip(f"link add {interface} type veth peer name {peer} netns {other.name}")
    router.ip(f"link set {interface} up")
    other.ip(f"link set {peer} up")
