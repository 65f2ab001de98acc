"""Errors as application/problem+json (RFC 9457)."""

from __future__ import annotations

import logging
from typing import Any

import falcon

from fsctl.errors import BusyError, FsctlError, UnauthorizedError
from fsctl.schema.answers import problem_json
from fsctl.schema.text import Json, dumps

PROBLEM_TYPE = "application/problem+json"
_LOG = logging.getLogger("fsctl.rest")


def send(req: falcon.Request, resp: falcon.Response, error: FsctlError, **extra: Json) -> None:
    """Answer with an error of ours."""
    if isinstance(error, UnauthorizedError):
        resp.set_header("WWW-Authenticate", 'Bearer realm="fsctl"')
    if isinstance(error, BusyError):
        resp.set_header("Retry-After", str(error.retry_after_s))
    req.context.summary = str(error)
    _write(resp, error.status, problem_json(error, req.path, extra))


def on_fsctl_error(req: falcon.Request, resp: falcon.Response, error: FsctlError, _params: dict[str, Any]) -> None:
    if error.status == FsctlError.status:
        _LOG.error("%s %s: %s", req.method, ascii(req.path), error, exc_info=error)
    send(req, resp, error)


def on_http_error(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, _params: dict[str, Any]) -> None:
    """What Falcon finds itself: no such path, method or header. The type says no more than the status does."""
    resp.set_headers(error.headers or {})
    detail = error.description or error.title
    req.context.summary = detail
    problem = {
        "type": "about:blank",
        "title": falcon.code_to_http_status(error.status_code).partition(" ")[2],
        "status": error.status_code,
        "detail": detail,
        "instance": req.path,
    }
    _write(resp, error.status_code, problem)


def on_exception(req: falcon.Request, resp: falcon.Response, error: Exception, _params: dict[str, Any]) -> None:
    """A mistake of fsctl's own: all of it goes to the log, nothing of it to the caller."""
    _LOG.error("%s %s failed", req.method, ascii(req.path), exc_info=error)
    send(req, resp, FsctlError("fsctl failed to answer; its log says more"))


def _write(resp: falcon.Response, status: int, problem: Json) -> None:
    resp.status = status
    resp.content_type = PROBLEM_TYPE
    resp.stream = None
    resp.text = dumps(problem)
