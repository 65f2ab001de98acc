"""Netlink sockets: dumps, the stream of events, requests. The only I/O towards the kernel's tables.

Needs CAP_NET_ADMIN (for the larger receive buffer). Sources: netlink(7), rtnetlink(7).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count

from fsctl.agent import codec
from fsctl.agent.codec import Message
from fsctl.agent.events import Addr, Event, Link, Neigh, Nexthop, Route, Value
from fsctl.errors import FsctlError
from fsctl.model.addresses import IPV4, IPV6

NETLINK_ROUTE, NETLINK_XFRM, NETLINK_NETFILTER = 0, 6, 12
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 270, 1, 11, 12
SO_RCVBUFFORCE = 33
RECEIVE_BUFFER_BYTES = 16 << 20
DATAGRAM_BYTES = 1 << 17
DUMP_TRIES = 5
TIMEOUT_SECONDS = 10.0

#: LINK, NEIGH, TC, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR, IPV6_ROUTE, IPV6_RULE, NETCONF, NEXTHOP
ROUTE_GROUPS = (1, 3, 4, 5, 7, 8, 9, 11, 19, 24, 25, 32)
NFNLGRP_NFTABLES, XFRMNLGRP_POLICY = 7, 4
_TABLES_TOLD = frozenset(codec.DECODERS) | {kind + 1 for kind in codec.DECODERS}


class KernelError(FsctlError):
    """The kernel refused a request; `errno` says why."""

    def __init__(self, detail: str, number: int) -> None:
        super().__init__(f"{detail}: {os.strerror(number)}")
        self.errno = number


class NetlinkSocket:
    """One socket for requests (`groups` empty) or for a stream of notifications."""

    def __init__(self, protocol: int, groups: Iterable[int] = ()) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._numbers = count(1)
        self.torn = False
        """Some dump was taken while its table changed, each time that it was tried: something may be missing in it."""
        try:
            self.socket.bind((0, 0))
            wanted = list(groups)
            for group in wanted:
                self.socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
            if wanted:
                self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
                self.socket.setblocking(False)
            else:
                self.socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 0)
                self.socket.settimeout(TIMEOUT_SECONDS)
        except OSError:
            self.socket.close()
            raise

    def fileno(self) -> int:
        return self.socket.fileno()

    def close(self) -> None:
        self.socket.close()

    def dump(self, kind: int, payload: bytes) -> list[Message]:
        """All the answers to a dump request, taken again while the kernel says that they are `torn` by changes.

        Raises KernelError.
        """
        for _ in range(DUMP_TRIES):
            answers = list(self._dump(kind, payload))
            if not any(m.flags & codec.NLM_F_DUMP_INTR for m in answers):
                return answers
        self.torn = True
        return answers

    def _dump(self, kind: int, payload: bytes) -> Iterator[Message]:
        seq = next(self._numbers)
        self.socket.send(codec.request(kind, codec.NLM_F_DUMP, seq, payload))
        while True:
            for message in codec.messages(self.socket.recv(DATAGRAM_BYTES)):
                if message.seq != seq:
                    continue
                if message.type == codec.NLMSG_DONE:
                    return
                if message.type == codec.NLMSG_ERROR:
                    raise KernelError("dump refused", -struct.unpack_from("=i", message.payload)[0])
                yield message

    def ask(self, kind: int, flags: int, payload: bytes) -> list[Message]:
        """Send one request and wait for its acknowledgement; what was answered before that. Raises KernelError."""
        seq, answers = next(self._numbers), list[Message]()
        self.socket.send(codec.request(kind, flags | codec.NLM_F_ACK, seq, payload))
        while True:
            for message in codec.messages(self.socket.recv(DATAGRAM_BYTES)):
                if message.seq != seq:
                    continue
                if message.type != codec.NLMSG_ERROR:
                    answers.append(message)
                    continue
                error = -struct.unpack_from("=i", message.payload)[0]
                if error:
                    raise KernelError("request refused", error)
                return answers

    def drain(self, datagrams: int) -> Iterator[Message]:
        """What has arrived. Raises OSError (ENOBUFS) where notifications were lost."""
        for _ in range(datagrams):
            try:
                data = self.socket.recv(DATAGRAM_BYTES)
            except BlockingIOError:
                return
            yield from codec.messages(data)


def open_if_there(protocol: int, groups: Iterable[int] = ()) -> NetlinkSocket | None:
    """A socket of a family that the kernel may be built without (nf_tables, xfrm)."""
    try:
        return NetlinkSocket(protocol, groups)
    except OSError as e:
        if e.errno in (errno.EPROTONOSUPPORT, errno.ENOENT, errno.ESOCKTNOSUPPORT):
            return None
        raise


@dataclass(slots=True)
class News:
    """What a read brought: events for the fold; `policy`: look again at what may be bypassed; `lost`: dump again."""

    events: list[Event] = field(default_factory=list)
    policy: bool = False
    lost: bool = False


DUMPS: tuple[tuple[type[Value], int, int], ...] = (
    (Link, codec.RTM_GETLINK, 0), (Nexthop, codec.RTM_GETNEXTHOP, 0),
    (Addr, codec.RTM_GETADDR, 0), (Neigh, codec.RTM_GETNEIGH, 0),
    (Route, codec.RTM_GETROUTE, IPV4), (Route, codec.RTM_GETROUTE, IPV6),
)  # fmt: skip
"""What a dump asks for, in an order that lets most decisions be made once."""
_FIXED_BYTES = {Link: 16, Nexthop: 8, Addr: 8, Neigh: 12, Route: 12}


class Kernel:
    """This network namespace's kernel: `read` its events, `dump` its tables."""

    def __init__(self) -> None:
        self._route = NetlinkSocket(NETLINK_ROUTE, ROUTE_GROUPS)
        self.requests = NetlinkSocket(NETLINK_ROUTE)
        policy = (
            open_if_there(NETLINK_NETFILTER, [NFNLGRP_NFTABLES]),
            open_if_there(NETLINK_XFRM, [XFRMNLGRP_POLICY]),
        )
        self._policy = [s for s in policy if s is not None]

    def close(self) -> None:
        for s in (self._route, self.requests, *self._policy):
            s.close()

    def sockets(self) -> list[NetlinkSocket]:
        """What to wait on for news."""
        return [self._route, *self._policy]

    def renew(self) -> None:
        """Listen anew, for what happens from now on; what has been told before and not been read is dropped.

        Call it before a dump, which is newer than all that. A congested socket loses everything until it has been read
        empty, and says so once (netlink(7), ENOBUFS): it would go on losing what happens after the dump.
        """
        old, self._route = self._route, NetlinkSocket(NETLINK_ROUTE, ROUTE_GROUPS)
        old.close()

    def read(self, datagrams: int = 512) -> News:
        """What has happened; a bounded part of it, so that a flood cannot keep the agent from its other work."""
        news = News(lost=self.requests.torn)
        self.requests.torn = False
        try:
            for message in self._route.drain(datagrams):
                event = codec.event(message)
                if event is not None:
                    news.events.append(event)
                news.policy |= message.type not in _TABLES_TOLD or message.type in codec.POLICY_MESSAGES
        except OSError as e:
            if e.errno != errno.ENOBUFS:
                raise
            news.lost = True
        for s in self._policy:
            news.policy |= self._has_news(s)
        return news

    @staticmethod
    def _has_news(s: NetlinkSocket) -> bool:
        try:
            return bool(list(s.drain(512)))
        except OSError as e:
            if e.errno != errno.ENOBUFS:
                raise
            return True

    def dump(self, kind: type[Value], request: int, version: int) -> list[Value]:
        """All values of one kind."""
        found = (codec.event(m) for m in self.answers(kind, request, version))
        return [e.value for e in found if e is not None and isinstance(e.value, kind)]

    def answers(self, kind: type[Value], request: int, version: int) -> list[Message]:
        """The messages of a dump. None where the kernel lacks such values (next-hop objects before 5.3)."""
        family = codec.FAMILY_OF.get(version, 0)
        payload = struct.pack("=B", family) + bytes(_FIXED_BYTES[kind] - 1)
        try:
            return self.requests.dump(request, payload)
        except KernelError as e:
            if e.errno in (errno.EOPNOTSUPP, errno.EINVAL) and kind is Nexthop:
                return []
            raise
