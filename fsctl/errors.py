"""Every error that fsctl raises on purpose, each with the HTTP status it ends as.

Outside input raises one of these with the name of the field and the offending value;
`assert` is kept for fsctl's own invariants.
"""

from __future__ import annotations

from typing import Any, ClassVar


class FsctlError(Exception):
    """Root of the tree.

    `field` is a JSON pointer-like path (`flows[3].match.ipv4_dst`), `value` what was found there.
    """

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str, *, field: str | None = None, value: Any = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.value = value

    def __str__(self) -> str:
        if self.field is None:
            return self.detail
        got = "" if self.value is None else f" (got {self.value!r})"
        return f"{self.field}: {self.detail}{got}"


class MalformedError(FsctlError):
    """The request is not JSON, or not of the shape that its method takes."""

    status = 400
    slug = "malformed-request"
    title = "Malformed request"


class UnauthorizedError(FsctlError):
    """No bearer token, or an unknown one."""

    status = 401
    slug = "unauthorized"
    title = "Unauthorized"


class ForbiddenError(FsctlError):
    """The token is known and may not do this."""

    status = 403
    slug = "forbidden"
    title = "Forbidden"


class NotFoundError(FsctlError):
    """No such router, interface, bridge or delegation."""

    status = 404
    slug = "not-found"
    title = "Not found"


class ConflictError(FsctlError):
    """The request contradicts what is there (a session held by somebody else, an old revision)."""

    status = 409
    slug = "conflict"
    title = "Conflict"


class UnsyncedError(ConflictError):
    """A session sends a change before it has sent its whole FIB: the present FIB may be empty, or of another session."""

    slug = "session-not-synced"
    title = "Session not synced"


class TooLargeError(FsctlError):
    """The body or the router's FIB would exceed its limit."""

    status = 413
    slug = "too-large"
    title = "Too large"


class InvalidError(FsctlError):
    """Well-formed input with a value that is unknown or not allowed."""

    status = 422
    slug = "invalid-value"
    title = "Invalid value"


class BusyError(FsctlError):
    """This caller asks for too much at once; others are served. Nothing was changed."""

    status = 429
    slug = "too-many-requests"
    title = "Too many requests"
    retry_after_s: ClassVar[int] = 1


class UnavailableError(FsctlError):
    """A switch, the database or the controller cannot be reached now."""

    status = 503
    slug = "unavailable"
    title = "Unavailable"


class SilentError(UnavailableError):
    """The connection is there, but no answer came in time: whether the request was carried out is unknown."""

    slug = "no-answer"


class ConfigError(FsctlError):
    """The configuration file cannot be used; says the file, the key, the value and what was expected."""

    slug = "bad-configuration"
    title = "Bad configuration"

    def __init__(self, file: str, detail: str, *, field: str | None = None, value: Any = None) -> None:
        super().__init__(detail, field=field, value=value)
        self.file = file

    def __str__(self) -> str:
        return f"{self.file}: {super().__str__()}"


class StoreError(FsctlError):
    """The store's file is damaged, of a newer version, or cannot be written."""

    slug = "store-error"
    title = "Store error"


class SwitchError(FsctlError):
    """A switch rejected a message; `type` and `code` are OpenFlow's (OFPT_ERROR)."""

    slug = "switch-error"
    title = "Switch error"

    def __init__(self, detail: str, *, type: int, code: int) -> None:
        super().__init__(detail)
        self.type = type
        self.code = code
