"""Real packets without hosts: veth pairs into Open vSwitch, and raw sockets at their other ends.

    sender ==veth== [port 1  bridge  port 2] ==veth== receiver

All inside a network namespace of its own, which ends with this process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from topologies.blast import IoVec, MMsgHdr
from topologies.ovs import LabError, die_with_parent, run
from topologies.sandbox import Sandbox

CLONE_NEWNET = 0x40000000
ETH_P_IP = 0x0800
TTL = 100
PATIENCE_S = 1.0
SOURCE = bytes([10, 0, 0, 1])
SETTLE_S = 0.3


class Namespace:
    """A network namespace that a sleeping child keeps."""

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            raise LabError("network namespaces need root")
        self._keeper = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], preexec_fn=die_with_parent)  # noqa: PLW1509
        self.inside = ("nsenter", "--target", str(self._keeper.pid), "--net")
        own = os.readlink("/proc/self/ns/net")
        deadline = time.monotonic() + PATIENCE_S * 10
        while os.readlink(f"/proc/{self._keeper.pid}/ns/net") == own:
            if time.monotonic() > deadline:
                raise LabError("unshare(1) has made no network namespace")
            time.sleep(0.01)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._keeper.kill()
        self._keeper.wait()

    def run(self, *command: str) -> str:
        return run(*self.inside, *command)

    def raw_socket(self, interface: str) -> socket.socket:
        """A packet(7) socket at an interface inside: the calling thread enters the namespace for as long as that takes."""
        setns = ctypes.CDLL(None, use_errno=True).setns
        with open("/proc/thread-self/ns/net") as home, open(f"/proc/{self._keeper.pid}/ns/net") as inside:
            if setns(inside.fileno(), CLONE_NEWNET):
                raise LabError(f"setns: {os.strerror(ctypes.get_errno())}")
            try:
                found = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP))
                found.bind((interface, ETH_P_IP))
                return found
            finally:
                setns(home.fileno(), CLONE_NEWNET)

    def received(self, interface: str) -> int:
        """Packets that an interface inside has received so far."""
        for line in Path(f"/proc/{self._keeper.pid}/net/dev").read_text().splitlines():
            name, _, counters = line.strip().partition(":")
            if name == interface:
                return int(counters.split()[1])
        raise LabError(f"no interface {interface}")


def frame(eth_dst: int, eth_src: int, dst: int, ident: int = 0) -> bytes:
    """A 64-byte Ethernet frame (FCS included) with a UDP datagram; `ident` is its IP identification."""
    header = struct.pack("!BBHHHBBH4sI", 0x45, 0, 46, ident & 0xFFFF, 0, TTL, 17, 0, SOURCE, dst)
    total = sum(struct.unpack("!10H", header))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    ip = header[:10] + struct.pack("!H", checksum) + header[12:]
    udp = struct.pack("!HHHH", 4000, 4001, 26, 0) + bytes(18)
    return eth_dst.to_bytes(6, "big") + eth_src.to_bytes(6, "big") + struct.pack("!H", ETH_P_IP) + ip + udp


class Arrived:
    """What a receiver looks at in a frame."""

    def __init__(self, raw: bytes) -> None:
        self.eth_dst, self.eth_src = int.from_bytes(raw[:6], "big"), int.from_bytes(raw[6:12], "big")
        self.ttl, self.ident = raw[22], int.from_bytes(raw[18:20], "big")
        self.dst = int.from_bytes(raw[30:34], "big")


class _Messages:
    """Frames for sendmmsg(2)."""

    def __init__(self, frames: Sequence[bytes]) -> None:
        self._buffers = [ctypes.create_string_buffer(data, len(data)) for data in frames]
        self._vectors = [IoVec(ctypes.cast(b, ctypes.c_void_p), len(b)) for b in self._buffers]
        self._messages = (MMsgHdr * len(frames))()
        for message, vector in zip(self._messages, self._vectors, strict=True):
            message.hdr.iov, message.hdr.iovlen = ctypes.pointer(vector), 1
        self._sendmmsg = ctypes.CDLL(None).sendmmsg

    def send(self, sender: socket.socket) -> None:
        self._sendmmsg(sender.fileno(), self._messages, len(self._messages), 0)


class Wire:
    """A bridge between a sender and a receiver."""

    def __init__(self, space: Namespace, ovs: Sandbox, bridge: str) -> None:
        self._space, self._ovs, self.bridge = space, ovs, bridge
        self._stack = ExitStack()
        self._ident = 0
        self._ports = [f"{bridge}s", f"{bridge}r"]
        self._ends = [f"{bridge}s0", f"{bridge}r0"]

    def __enter__(self) -> Self:
        for port, end in zip(self._ports, self._ends, strict=True):
            self._space.run("ip", "link", "add", port, "type", "veth", "peer", "name", end)
            for name in (port, end):
                self._space.run("sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1")
                self._space.run("ip", "link", "set", name, "up")
        self._ovs.add_bridge(self.bridge)
        for number, port in enumerate(self._ports, 1):
            self._ovs.vsctl("add-port", self.bridge, port, "--", "set", "interface", port, f"ofport_request={number}")
        self._sender, self._receiver = (self._stack.enter_context(self._space.raw_socket(end)) for end in self._ends)
        self._receiver.settimeout(PATIENCE_S)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()
        self._ovs.del_bridge(self.bridge)

    def one(self, eth_dst: int, eth_src: int, dst: int) -> tuple[float, Arrived] | None:
        """Send one packet: seconds until it has arrived, and how it looked then; None if it has not."""
        self._ident = self._ident + 1 & 0xFFFF
        data = frame(eth_dst, eth_src, dst, self._ident)
        start = time.perf_counter()
        self._sender.send(data)
        with contextlib.suppress(TimeoutError):
            while True:
                raw = self._receiver.recv(2048)
                took = time.perf_counter() - start
                arrived = Arrived(raw)
                if arrived.ident == self._ident and arrived.dst == dst:
                    return took, arrived
        return None

    def burst(self, eth_dst: int, eth_src: int, destinations: Sequence[int]) -> float | None:
        """One packet to each, all at once: seconds until the last has arrived; None if not all do."""
        messages = _Messages([frame(eth_dst, eth_src, dst) for dst in destinations])
        start = time.perf_counter()
        messages.send(self._sender)
        with contextlib.suppress(TimeoutError):
            for _ in destinations:
                self._receiver.recv(2048)
            return time.perf_counter() - start
        return None

    def rate(self, eth_dst: int, eth_src: int, destinations: Sequence[int], seconds: float) -> float:
        """Packets per second that arrive while all that can be is sent, to each destination in turn."""
        with self._blasting([frame(eth_dst, eth_src, dst) for dst in destinations]):
            time.sleep(SETTLE_S)
            first, start = self._space.received(self._ends[1]), time.monotonic()
            time.sleep(seconds)
            arrived, took = self._space.received(self._ends[1]) - first, time.monotonic() - start
        self._drain()
        return arrived / took

    @contextlib.contextmanager
    def _blasting(self, frames: Sequence[bytes]) -> Iterator[None]:
        """In a thread, which needs Python's lock only between two calls."""
        end, messages = threading.Event(), _Messages(frames)

        def blast() -> None:
            while not end.is_set():
                messages.send(self._sender)

        thread = threading.Thread(target=blast)
        thread.start()
        try:
            yield
        finally:
            end.set()
            thread.join()

    def _drain(self) -> None:
        time.sleep(SETTLE_S)
        self._receiver.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._receiver.recv(2048)
        self._receiver.settimeout(PATIENCE_S)

    def datapath_flows(self) -> int:
        """Entries of the datapath's cache for what comes from the sender."""
        flows = self._ovs.appctl("dpctl/dump-flows", "--names", "netdev@ovs-netdev")
        return sum(1 for line in flows.splitlines() if f"in_port({self._ports[0]})" in line)

    def forget(self) -> None:
        """Empty the datapath's cache: every packet is a first one again."""
        self._ovs.appctl("revalidator/purge")
