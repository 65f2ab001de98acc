"""The connections of REST: how many, for how long, and what happens when there are too many.

Whoever reaches the port can open connections, without a token. They must not keep the others out: a router whose
heartbeats are not heard loses its delegations.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import resource
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Any

import eventlet
import eventlet.wsgi

from fsctl.northbound.origin import origin_of as _origin
from fsctl.northbound.protocol import Protocol

_LOG = logging.getLogger(__name__)
MOST = 4096
"""Connections at a time; fewer where the process may not have so many open files."""
MOST_OF_ONE = 64
"""Connections of one IPv4 address, or of one IPv6 network of 64 bits."""
HOSTS_SHARE = 0.75
"""Which part of all connections this host itself may have."""
SILENCE_S = 60.0
"""A connection over which nothing comes or goes for so long is closed, between two requests and within one."""
TLS_S = 10.0
"""How long a TLS handshake may take."""
KEPT_FILES = 512
"""Open files that stay free for switches, database and store."""
_PAUSE_S = 0.1
Wrap = Callable[[Any], Any]


def serve(listener: Any, app: Callable[..., Any], tls: Wrap | None = None, most: int = MOST) -> None:
    """Serve until the listener is closed; `tls` shakes hands over a new connection."""
    pool = _Pool(max(16, min(most, _open_files() - KEPT_FILES)), tls)
    eventlet.wsgi.server(
        _Door(listener), app, custom_pool=pool, protocol=Protocol, socket_timeout=SILENCE_S, keepalive=True,
        log=logging.getLogger("fsctl.rest.http"), log_output=False, debug=False,
    )  # fmt: skip


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
    """The threads of the connections. Those of one address beyond its share are closed at once."""

    def __init__(self, size: int, tls: Wrap | None) -> None:
        super().__init__(size)
        self._tls = tls
        self._open: Counter[str] = Counter()
        self._connections: dict[int, tuple[str, Any]] = {}

    def spawn(self, function: Callable[[Any], None], connection: Any) -> Any:
        origin = _origin(connection[0])
        most = MOST_OF_ONE if origin else int(self.size * HOSTS_SHARE)
        if self._open[origin] >= most:
            _LOG.warning("REST: %s has %d connections open; one more is refused", origin or "this host", most)
            return super().spawn(lambda: None)
        if not self.free():
            self._make_room()
        self._open[origin] += 1
        self._connections[id(connection)] = origin, connection
        thread = super().spawn(self._serve, function, connection)
        thread.link(lambda _: self._closed(origin, id(connection)))
        return thread

    def _serve(self, function: Callable[[Any], None], connection: Any) -> None:
        """The handshake is made here: one that hangs or fails keeps nobody else waiting."""
        try:
            if self._tls is not None:
                with eventlet.Timeout(TLS_S, TimeoutError("the TLS handshake takes too long")):
                    connection[1] = self._tls(connection[1])
            function(connection)
        except (OSError, ssl.SSLError) as e:
            _LOG.debug("REST: the connection of %s ended: %s", connection[0], e)
        finally:
            with contextlib.suppress(OSError):
                connection[1].close()

    def _make_room(self) -> None:
        """End a connection of whoever has most of them, an idle one if there is one."""
        (origin, _), *_ = self._open.most_common(1)
        theirs = [c for o, c in self._connections.values() if o == origin]
        idle = next((c for c in theirs if c[2] == eventlet.wsgi.STATE_IDLE), theirs[0])
        with contextlib.suppress(OSError):
            eventlet.greenio.shutdown_safe(idle[1])
        _LOG.warning("REST: %d connections are open; one of %s is ended", self.size, origin or "this host")

    def _closed(self, origin: str, number: int) -> None:
        self._connections.pop(number, None)
        self._open[origin] -= 1
        if not self._open[origin]:
            del self._open[origin]
