"""The connections of REST: how many, for how long, and what happens when there are too many.

Whoever reaches the port can open connections, without a token. They must not keep the others out: a router whose
heartbeats are not heard loses its delegations.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import resource
from collections import Counter
from collections.abc import Callable
from typing import Any

import eventlet
import eventlet.wsgi

_LOG = logging.getLogger(__name__)
MOST = 1024
"""Connections at a time; fewer where the process may not have so many open files."""
MOST_OF_ONE = 64
"""Connections of one IPv4 address, or of one IPv6 network of 64 bits. This host itself may have more."""
SILENCE_S = 60.0
"""A connection over which nothing comes or goes for so long is closed, between two requests and within one."""
KEPT_FILES = 256
"""Open files that stay free for switches, database and store."""
_PAUSE_S = 0.1


def serve(listener: Any, app: Callable[..., Any]) -> None:
    """Serve until the listener is closed."""
    pool = _Pool(max(16, min(MOST, _open_files() - KEPT_FILES)))
    eventlet.wsgi.server(
        _Door(listener), app, custom_pool=pool, socket_timeout=SILENCE_S, log_output=False, debug=False
    )


def _open_files() -> int:
    """How many files the process may have open; if that is not enough, it asks for more."""
    enough = MOST + KEPT_FILES
    soft, hard = (enough if limit == resource.RLIM_INFINITY else limit for limit in resource.getrlimit(resource.RLIMIT_NOFILE))
    if soft >= enough:
        return soft
    wanted = min(hard, enough)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return wanted


class _Door:
    """The listening socket. A connection that cannot be accepted is no reason to accept none any more."""

    def __init__(self, listener: Any) -> None:
        self._listener = listener

    def __getattr__(self, name: str) -> Any:
        return getattr(self._listener, name)

    def accept(self) -> Any:
        while True:
            try:
                return self._listener.accept()
            except OSError as e:
                if e.errno in (errno.EBADF, errno.EINVAL):
                    raise  # the listener is closed
                _LOG.warning("REST cannot accept a connection: %s", e)
                eventlet.sleep(_PAUSE_S)


class _Pool(eventlet.GreenPool):
    """The threads of the connections. Those of one address beyond MOST_OF_ONE are closed at once."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._open: Counter[str] = Counter()

    def spawn(self, function: Callable[[Any], None], connection: Any) -> Any:
        origin = _origin(connection[0])
        if origin and self._open[origin] >= MOST_OF_ONE:
            _LOG.warning("REST: %s has %d connections open; one more is refused", origin, MOST_OF_ONE)
            return super().spawn(lambda: None)
        self._open[origin] += 1
        thread = super().spawn(function, connection)
        thread.link(lambda _: self._closed(origin))
        return thread

    def _closed(self, origin: str) -> None:
        self._open[origin] -= 1
        if not self._open[origin]:
            del self._open[origin]


def _origin(address: Any) -> str:
    """Who it is that connects; "" for this host."""
    try:
        found = ipaddress.ip_address(address[0].partition("%")[0])
    except (ValueError, IndexError, TypeError, AttributeError):
        return str(address)
    found = getattr(found, "ipv4_mapped", None) or found
    if found.is_loopback:
        return ""
    is_one = found.version == 4 or found.is_link_local  # all guests of a bridge share fe80::/64
    return str(found) if is_one else str(ipaddress.ip_network((found, 64), strict=False))
