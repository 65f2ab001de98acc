"""Where REST listens: an address for all, with TLS if that is configured, and a unix socket for the administrator."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import eventlet

from fsctl.config import RestConfig
from fsctl.errors import FsctlError
from fsctl.northbound.server import serve
from fsctl.northbound.tls import Tls
from fsctl.unixsocket import listen_unix

MOST_LOCAL = 64
"""Connections of the unix socket; they do not count among the others."""


class RestListener:
    """Listens from its construction on. Raises FsctlError if that is impossible."""

    def __init__(self, config: RestConfig) -> None:
        self.config = config
        self.tls = Tls(config) if config.tls_certificate is not None else None
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        try:
            self._tcp = eventlet.listen((config.host, config.port), family=family, reuse_addr=True)
        except OSError as e:
            raise FsctlError(f"REST cannot listen on {config.host}:{config.port}: {e.strerror}") from e
        self._unix = None if config.socket is None else listen_unix(Path(config.socket), "REST")

    def serve(self, app: Callable[..., Any]) -> None:
        """Serve whoever comes over the network."""
        serve(self._tcp, app, self.tls.wrap if self.tls else None)

    def serve_administrator(self, app: Callable[..., Any]) -> None:
        """Serve root, and the controller's own user, over the unix socket."""
        assert self._unix is not None
        serve(self._unix, app, most=MOST_LOCAL)

    def close(self) -> None:
        """End both; the unix socket disappears."""
        self._tcp.close()
        if self._unix is not None and self.config.socket is not None:
            self._unix.close()
            with contextlib.suppress(OSError):
                os.unlink(self.config.socket)
