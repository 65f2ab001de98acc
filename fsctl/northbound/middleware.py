"""What happens around every call: who may make it, and one line in the log for every write."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

import falcon

from fsctl.errors import NotFoundError, UnauthorizedError
from fsctl.northbound.auth import Auth, Principal
from fsctl.northbound.limits import Quiet, Strangers
from fsctl.northbound.origin import origin_of
from fsctl.northbound.protocol import is_administrator
from fsctl.northbound.resources import Resource
from fsctl.status import Backend

_LOG = logging.getLogger("fsctl.rest")
_WRITES = ("PUT", "PATCH", "DELETE")
_REFUSALS = (401, 403, 429)
MOST_LOGGED = 300
"""Characters of a line."""

StartResponse = Callable[..., Any]
WsgiApp = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


class Gate:
    """Lets a call through to its resource, or raises UnauthorizedError, ForbiddenError, NotFoundError."""

    def __init__(self, backend: Backend, auth: Auth) -> None:
        self._backend = backend
        self._auth = auth
        self._strangers = Strangers()

    def _identify(self, req: falcon.Request, header: str | None) -> Principal:
        try:
            return self._auth.identify(header)
        except UnauthorizedError:
            self._strangers.admit(_origin(req))
            raise

    def process_resource(
        self, req: falcon.Request, _resp: falcon.Response, resource: Resource | None, params: dict[str, str]
    ) -> None:
        if resource is None:
            return
        header = req.get_header("Authorization")
        if header is None and is_administrator(req.env):
            principal = Principal()
        elif header is None and resource.is_public:
            self._strangers.admit(_origin(req))
            return
        else:
            principal = self._identify(req, header)
        req.context.principal = principal
        if resource.admin_only:
            principal.check_admin()
        router = params.get("router")
        if router is not None:
            principal.check_router(router)
            if router not in self._backend.network.routers:
                raise NotFoundError("no such router", field="router", value=router)


class Journal:
    """Who wrote what, what became of it, and how long it took. Of refusals of one address, one line in ten seconds."""

    def __init__(self) -> None:
        self._quiet = Quiet()

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        req.context.started = time.monotonic()

    def process_response(self, req: falcon.Request, resp: falcon.Response, _resource: Resource, _succeeded: bool) -> None:
        if req.method not in _WRITES:
            return
        principal = getattr(req.context, "principal", "nobody")
        summary = getattr(req.context, "summary", "")
        took_ms = (time.monotonic() - req.context.started) * 1000
        origin = req.env.get("REMOTE_ADDR") or "the unix socket"
        count = self._quiet.left_out(origin) if resp.status_code in _REFUSALS else 0
        if count is None:
            return
        # ascii(): nothing that a request contains may begin a new line.
        line = ascii(f"{req.method} {req.path} by {principal} at {origin}: {resp.status_code} {summary}")[1:-1][:MOST_LOGGED]
        is_heartbeat = req.method == "PUT" and req.path.endswith("/session") and resp.status_code == HTTPStatus.OK
        level = logging.DEBUG if is_heartbeat else logging.INFO
        _LOG.log(level, "%s (%.1f ms)%s", line, took_ms, f"; {count} more of this address were refused before" if count else "")


def _origin(req: falcon.Request) -> str:
    return origin_of((req.env.get("REMOTE_ADDR", ""),))


def answering_head(app: WsgiApp) -> WsgiApp:
    """HEAD is GET without the body (RFC 9110, 9.3.2)."""

    def wrapped(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "HEAD":
            return app(environ, start_response)
        body = app(environ | {"REQUEST_METHOD": "GET"}, start_response)
        close = getattr(body, "close", None)
        if close is not None:
            close()
        return []

    return wrapped
