"""REST: a plain WSGI application over `status.Backend` (docs/rest.md)."""

from __future__ import annotations

from fsctl.northbound.app import make_app
from fsctl.northbound.auth import Auth

__all__ = ["Auth", "make_app"]
