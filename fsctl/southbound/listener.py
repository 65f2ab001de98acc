"""Where switches connect: the socket, TLS, and how many connections there may be.

Replaces Ryu's listener, which one failed accept ends for good, and which listens on all addresses.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import eventlet
from eventlet.green import ssl as green_ssl
from ryu.lib import hub

from fsctl.config import OpenFlowConfig
from fsctl.errors import FsctlError
from fsctl.unixsocket import listen_unix

_LOG = logging.getLogger(__name__)
MOST = 256
"""Connections at a time. A bridge needs one."""
TLS_S = 10.0
"""How long a TLS handshake may take."""
_PAUSE_S = 0.1
_BACKLOG = 128


class OpenFlowListener:
    """Listens from its construction on. Raises FsctlError if that is impossible."""

    def __init__(self, config: OpenFlowConfig, speak: Callable[[Any, Any], None]) -> None:
        """`speak(connection, address)` serves one connection until it ends."""
        self._speak = speak
        self.config = config
        self._tls = _context(config) if config.kind == "pssl" else None
        self._socket = listen_unix(Path(config.host), "OpenFlow") if config.kind == "punix" else _tcp(config)
        self._open = 0

    def run(self) -> None:
        """Accept connections until `close`."""
        while True:
            try:
                connection, address = self._socket.accept()
            except OSError as e:
                if e.errno in (errno.EBADF, errno.EINVAL):
                    return  # closed
                _LOG.warning("OpenFlow: a connection cannot be accepted: %s", e.strerror)
                hub.sleep(_PAUSE_S)
                continue
            if self._open >= MOST:
                _LOG.warning("OpenFlow: %d connections are open; one more from %s is refused", MOST, address)
                connection.close()
                hub.sleep(_PAUSE_S)
                continue
            self._open += 1
            eventlet.spawn_n(self._serve, connection, address or "unix socket")

    def _serve(self, connection: Any, address: Any) -> None:
        try:
            if self._tls is not None:
                connection = self._shake_hands(connection)
            self._speak(connection, address)
        except (OSError, eventlet.Timeout) as e:
            _LOG.warning("OpenFlow: the connection of %s ended: %s", address, e)
        except Exception:  # noqa: BLE001 - one connection must not end the others
            _LOG.exception("OpenFlow: the connection of %s failed", address)
        finally:
            self._open -= 1
            with contextlib.suppress(OSError):
                connection.close()

    def _shake_hands(self, connection: Any) -> Any:
        assert self._tls is not None
        with eventlet.Timeout(TLS_S):
            return self._tls.wrap_socket(connection, server_side=True)

    def close(self) -> None:
        """End `run`; a unix socket disappears."""
        self._socket.close()
        if self.config.kind == "punix":
            with contextlib.suppress(OSError):
                os.unlink(self.config.host)

    @property
    def is_local(self) -> bool:
        """Whether only processes of this host can connect."""
        return self.config.is_local


def _context(config: OpenFlowConfig) -> ssl.SSLContext:
    """TLS 1.2 or later; the switch must show a certificate of the CA."""
    context: ssl.SSLContext = green_ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    assert config.tls is not None
    try:
        context.load_cert_chain(config.tls.certificate, config.tls.private_key)
        context.load_verify_locations(config.tls.ca)
    except (OSError, ssl.SSLError) as e:
        raise FsctlError(f"the files of openflow.tls cannot be used: {e}", field="openflow.tls") from e
    return context


def _tcp(config: OpenFlowConfig) -> Any:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        return eventlet.listen((config.host, config.port), family=family, backlog=_BACKLOG, reuse_addr=True, reuse_port=False)
    except OSError as e:
        raise FsctlError(f"OpenFlow cannot listen on {config.host} port {config.port}: {e.strerror}") from e
