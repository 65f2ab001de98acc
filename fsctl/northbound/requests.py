"""Bodies and query parameters, read strictly."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import falcon

from fsctl.errors import MalformedError, TooLargeError
from fsctl.schema.pieces import loads_pieces
from fsctl.schema.text import Json, loads

JSON_TYPE = "application/json"


def read_json(
    req: falcon.Request, max_body: int, arrays: Mapping[str, int] | None = None, pause: Callable[[], None] = lambda: None
) -> Json:
    """The JSON body; `arrays` are members that may be long arrays, with the most elements of each.

    Raises MalformedError, TooLargeError, and Falcon's errors for 411 and 415.
    """
    media_type, _, parameters = (req.content_type or "").partition(";")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if media_type.strip().lower() != JSON_TYPE or charset not in ("", "utf-8"):
        raise falcon.HTTPUnsupportedMediaType(description=f"expected Content-Type: {JSON_TYPE}")
    if req.get_header("Content-Encoding", default="identity").lower() != "identity":
        raise falcon.HTTPUnsupportedMediaType(description="expected a body without Content-Encoding")
    body = _read(req, max_body)
    return loads(body) if arrays is None else loads_pieces(body, arrays, pause)


def body_size(req: falcon.Request, most: int) -> int:
    """Bytes that a body may turn out to have; `most` for one that does not say."""
    return most if req.get_header("Transfer-Encoding") is not None else min(req.content_length or 0, most)


def _read(req: falcon.Request, max_body: int) -> bytes:
    if req.get_header("Transfer-Encoding") is not None:
        return _read_chunked(req, max_body)
    length = req.content_length or 0
    if length > max_body:
        raise _too_large(max_body, length)
    body: bytes = req.bounded_stream.read(length)
    if len(body) < length:
        raise MalformedError(f"the body ends after {len(body)} of {length} bytes")
    return body


def _read_chunked(req: falcon.Request, max_body: int) -> bytes:
    """A body that ends by itself, where the WSGI server can tell (PEP 3333 has no word for it, eventlet can)."""
    if not (req.env.get("wsgi.input_terminated") or "eventlet.input" in req.env):
        raise falcon.HTTPLengthRequired(description="expected Content-Length")
    body: bytes = req.env["wsgi.input"].read(max_body + 1)
    if len(body) > max_body:
        raise _too_large(max_body, None)
    return body


def _too_large(max_body: int, length: int | None) -> TooLargeError:
    return TooLargeError(f"a body may have at most {max_body} bytes", field="Content-Length", value=length)


def no_body(req: falcon.Request) -> None:
    """Raises MalformedError where a request that takes no body brings one."""
    if req.content_length:
        raise MalformedError(f"{req.method} takes no body here", field="Content-Length", value=req.content_length)


def parameters(req: falcon.Request, known: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Query parameters by name; `known` says which values each may have (none listed: any).

    Raises MalformedError for an unknown parameter, one given twice, and an unknown value.
    """
    found: dict[str, str] = {}
    for name, value in req.params.items():
        if name not in known:
            expected = f"expected one of {', '.join(known)}" if known else "this call takes none"
            raise MalformedError(f"unknown query parameter; {expected}", field=name, value=value)
        if not isinstance(value, str) or (known[name] and value not in known[name]):
            expected = f"one of {', '.join(known[name])}" if known[name] else "one value"
            raise MalformedError(f"expected {expected}", field=name, value=value)
        found[name] = value
    return found
