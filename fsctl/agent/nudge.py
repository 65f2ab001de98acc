"""Sends a neighbour an empty datagram, as forwarded packets would go to it, so that the kernel resolves or confirms it.

UDP to the discard port (RFC 863), 28 or 48 bytes, with a TTL of 1: it never leaves the link. No capability is needed.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

from fsctl.agent.events import NeighKey
from fsctl.model.addresses import IPV4, IPV6, format_ip

DISCARD_PORT = 9
_IP_PKTINFO = 8
_IN_PKTINFO, _IN6_PKTINFO = struct.Struct("=i4s4s"), struct.Struct("=16si")


class Nudge:
    """One socket for each IP version."""

    def __init__(self) -> None:
        self._sockets = {
            version: s
            for version, family in ((IPV4, socket.AF_INET), (IPV6, socket.AF_INET6))
            if (s := _open(family)) is not None
        }

    def close(self) -> None:
        for s in self._sockets.values():
            s.close()

    def send(self, to: NeighKey) -> None:
        """Raises OSError where it cannot go out (EPERM: a filter on the router's own packets)."""
        address = format_ip(to.version, to.value)
        s = self._sockets.get(to.version)
        if s is None:
            raise OSError(f"no socket for IPv{to.version}")
        with suppress(ConnectionError):  # about an earlier datagram
            s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        flags = socket.MSG_DONTROUTE | socket.MSG_DONTWAIT
        if to.version == IPV4:
            info = _IN_PKTINFO.pack(to.link, bytes(4), bytes(4))
            s.sendmsg([b""], [(socket.IPPROTO_IP, _IP_PKTINFO, info)], flags, (address, DISCARD_PORT))
        else:
            info = _IN6_PKTINFO.pack(bytes(16), to.link)
            where = (address, DISCARD_PORT, 0, to.link)
            s.sendmsg([b""], [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, info)], flags, where)


def _open(family: socket.AddressFamily) -> socket.socket | None:
    try:
        s = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    except OSError:
        return None  # built without this IP version
    if family == socket.AF_INET:
        s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
    else:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
    return s
