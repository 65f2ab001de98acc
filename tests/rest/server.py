"""The application behind a real socket on the loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from wsgiref.simple_server import WSGIRequestHandler, make_server

from fsctl.northbound import make_app
from tests.rest.conftest import MAX_BODY, auth
from tests.rest.fake import FakeBackend


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the test's standard error."""


@contextmanager
def serving(backend: FakeBackend) -> Iterator[str]:
    """Serve until the end of the block; gives the URL."""
    server = make_server("127.0.0.1", 0, make_app(backend, auth(), max_body=MAX_BODY), handler_class=_Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
