"""UDP packets as fast as one process can, without a compiler: sendmmsg(2) through ctypes; and their receiver.

    blast.py send ADDRESS PORT SECONDS PAYLOAD
    blast.py receive PORT SECONDS       prints "ready", then packets per second over SECONDS after the first packet

The receiver reads the kernel's counters instead of the packets: a packet counts when UDP has taken it for the
socket, its checksum verified, whether or not the socket had room for it.
"""

from __future__ import annotations

import ctypes
import socket
import sys
import time
from pathlib import Path

BATCH = 64
SETTLE_S = 0.3
NO_PACKETS_S = 10.0


class IoVec(ctypes.Structure):
    """struct iovec"""

    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


class MsgHdr(ctypes.Structure):
    """struct msghdr"""

    _fields_ = (
        ("name", ctypes.c_void_p), ("namelen", ctypes.c_uint32), ("iov", ctypes.POINTER(IoVec)), ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p), ("controllen", ctypes.c_size_t), ("flags", ctypes.c_int),
    )  # fmt: skip


class MMsgHdr(ctypes.Structure):
    """struct mmsghdr"""

    _fields_ = (("hdr", MsgHdr), ("len", ctypes.c_uint))


def send(address: str, port: int, seconds: float, payload: int) -> None:
    """One flow to `address`:`port`."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect((address, port))
        data = ctypes.create_string_buffer(payload)
        vector = IoVec(ctypes.cast(data, ctypes.c_void_p), payload)
        messages = (MMsgHdr * BATCH)()
        for message in messages:
            message.hdr.iov, message.hdr.iovlen = ctypes.pointer(vector), 1
        sendmmsg, fd = ctypes.CDLL(None, use_errno=True).sendmmsg, sock.fileno()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            sendmmsg(fd, messages, BATCH, 0)


def _received() -> int:
    """UDP packets with a right checksum that were for a bound port, IPv4 and IPv6."""
    total = 0
    rows = [line.split() for line in Path("/proc/self/net/snmp").read_text().splitlines() if line.startswith("Udp:")]
    counters = dict(zip(rows[0][1:], map(int, rows[1][1:]), strict=True))
    total += counters["InDatagrams"] + counters["RcvbufErrors"]
    for line in Path("/proc/self/net/snmp6").read_text().splitlines():
        name, value = line.split()
        if name in ("Udp6InDatagrams", "Udp6RcvbufErrors"):
            total += int(value)
    return total


def receive(port: int, seconds: float) -> float:
    """Packets per second, counted from a little after the first one on."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::", port))
        print("ready", flush=True)
        before, deadline = _received(), time.monotonic() + NO_PACKETS_S
        while _received() == before:
            if time.monotonic() > deadline:
                return 0.0
            time.sleep(0.01)
        time.sleep(SETTLE_S)
        first, start = _received(), time.monotonic()
        time.sleep(seconds)
        return (_received() - first) / (time.monotonic() - start)


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
    else:
        print(receive(int(sys.argv[2]), float(sys.argv[3])))
