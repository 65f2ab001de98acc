"""The WSGI application, put together."""

from __future__ import annotations

from collections.abc import Callable

import falcon

from fsctl.errors import FsctlError
from fsctl.northbound import problems
from fsctl.northbound.auth import Auth
from fsctl.northbound.middleware import Gate, Journal, WsgiApp, answering_head
from fsctl.northbound.resources import ROUTES, Service
from fsctl.status import Backend

MAX_BODY_BYTES = 64 << 20
"""About 400,000 flows."""
PATIENCE_S = 30.0


def make_app(
    backend: Backend,
    auth: Auth,
    *,
    max_body: int = MAX_BODY_BYTES,
    patience_s: float = PATIENCE_S,
    pause: Callable[[], None] = lambda: None,
) -> WsgiApp:
    """A WSGI callable that serves all calls of docs/rest.md.

    `max_body` bounds a request's body in bytes, `patience_s` is how many seconds a write waits for the switches.
    `pause` lets others run while a long body is read.
    """
    app = falcon.App(middleware=[Journal(), Gate(backend, auth)])
    service = Service(backend, max_body, patience_s, pause)
    for path, resource in ROUTES:
        app.add_route(path, resource(service))
    app.add_error_handler(Exception, problems.on_exception)
    app.add_error_handler(falcon.HTTPError, problems.on_http_error)
    app.add_error_handler(FsctlError, problems.on_fsctl_error)
    return answering_head(app)
