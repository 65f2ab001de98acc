"""REST over TLS: as the configuration says, and read anew when it is told to."""

from __future__ import annotations

import logging
import ssl
from typing import Any

from eventlet.green import ssl as green_ssl

from fsctl.config import RestConfig
from fsctl.errors import FsctlError

_LOG = logging.getLogger(__name__)


class Tls:
    """The server's side of TLS 1.2 and later. With `client_ca`, clients must show a certificate that it has signed."""

    def __init__(self, config: RestConfig) -> None:
        """Raises FsctlError if the files cannot be used."""
        self._config = config
        self._context = self._load()

    def _load(self) -> ssl.SSLContext:
        context: ssl.SSLContext = green_ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        assert self._config.tls_certificate is not None
        try:
            context.load_cert_chain(self._config.tls_certificate, self._config.tls_key)
            if self._config.client_ca is not None:
                context.load_verify_locations(self._config.client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ssl.SSLError) as e:
            raise FsctlError(f"the TLS files cannot be used: {e}", field="rest.tls_certificate") from e
        return context

    def reload(self) -> None:
        """Use the files as they are now, for new connections. If they cannot be used, the old ones stay."""
        try:
            self._context = self._load()
        except FsctlError as e:
            _LOG.error("%s; the certificate of before stays", e)
        else:
            _LOG.info("REST: the TLS certificate was read anew")

    def wrap(self, connection: Any) -> Any:
        """Shake hands with a client; raises OSError (ssl.SSLError is one)."""
        return self._context.wrap_socket(connection, server_side=True)
